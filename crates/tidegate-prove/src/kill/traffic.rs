//! The traffic: devices that publish, a thief who sends everything again, and an eavesdropper.
//!
//! All of it goes on whatever happens to the gateway: a lost connection is made again until it
//! stands, and what was not answered is sent again first, as any publisher does.

use super::client::{Answer, Client, Received};
use super::ledger::{Id, Ledger, Sending, now};
use super::site::{Broker, Device, GLANCE, Site};
use anyhow::Result;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use tidegate_device::sequence::{SequenceError, SequenceFile};
use tidegate_envelope::id::DeviceId;
use tokio::time::{Instant, sleep, sleep_until};

/// Pause between two new messages of one device.
const PACE: Duration = Duration::from_millis(2);
/// Unanswered publishes of a device, and of a thief; fewer where the broker allows fewer.
const DEVICE_WINDOW: usize = 16;
const THIEF_WINDOW: usize = 64;
/// How long a lock that was let go may seem to be held.
const LOCK_WITHIN: Duration = Duration::from_secs(2);
/// One message of so many may be sent by the thief before its device has an answer.
const FRONT_RUN: usize = 8;

/// Everything that goes on at a site.
pub(crate) struct Traffic {
    pub(crate) site: Site,
    pub(crate) ledger: RefCell<Ledger>,
    publishers: Vec<Publisher>,
    running: Cell<bool>,
    load: Cell<bool>,
    answers: Cell<u64>,
}

/// What one device and its thief have before them.
struct Publisher {
    numbers: RefCell<Option<SequenceFile>>,
    file: PathBuf,
    /// Copies to be sent through the device's own connection.
    own_copies: RefCell<VecDeque<Id>>,
    /// Copies to be sent by the thief.
    replays: RefCell<VecDeque<Id>>,
    /// Sent and not yet answered: by the device, by the thief.
    unanswered: [Cell<usize>; 2],
    /// Messages to be signed although there is no load, and how old they say they are.
    extra: Cell<u32>,
    extra_age: Cell<Duration>,
    /// When a message of this device was accepted, and could not be made durable, for the last time.
    accepted: Cell<Option<Instant>>,
    unavailable: Cell<Option<Instant>>,
}

/// Which of a device's two connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Device,
    Thief,
}

/// Opens a state file whose lock this process has just let go.
///
/// A child that another thread is starting holds a copy of every descriptor until it has become its
/// program, and with it the lock.
fn reopen(file: &Path, device: &DeviceId) -> std::result::Result<SequenceFile, SequenceError> {
    let started = Instant::now();
    loop {
        match SequenceFile::open(file, device) {
            Err(SequenceError::InUse { .. }) if started.elapsed() < LOCK_WITHIN => {
                std::thread::sleep(Duration::from_millis(1));
            }
            opened => return opened,
        }
    }
}

impl Traffic {
    /// Starts the connections of the first `devices` devices and of their thieves; must be called
    /// inside a [`tokio::task::LocalSet`].
    pub(crate) fn start(site: Site, devices: usize) -> Result<Rc<Self>> {
        let publishers = site
            .devices
            .iter()
            .map(|device| {
                let file = site.path(&format!("{}.sequence", device.id));
                Ok(Publisher {
                    numbers: RefCell::new(Some(SequenceFile::open(&file, &device.id)?)),
                    file,
                    own_copies: RefCell::default(),
                    replays: RefCell::default(),
                    unanswered: Default::default(),
                    extra: Cell::new(0),
                    extra_age: Cell::new(Duration::ZERO),
                    accepted: Cell::new(None),
                    unavailable: Cell::new(None),
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let traffic = Rc::new(Self {
            publishers,
            site,
            ledger: RefCell::default(),
            running: Cell::new(true),
            load: Cell::new(true),
            answers: Cell::new(0),
        });
        for number in 0..devices {
            traffic.connect(number);
            tokio::task::spawn_local(Link::new(Rc::clone(&traffic), number, Who::Thief).run());
        }
        if traffic.site.broker() == Broker::Embedded {
            tokio::task::spawn_local(Rc::clone(&traffic).eavesdrop());
        }
        Ok(traffic)
    }

    /// Starts one more device.
    pub(crate) fn connect(self: &Rc<Self>, number: usize) {
        tokio::task::spawn_local(Link::new(Rc::clone(self), number, Who::Device).run());
    }

    /// When a message of any of these devices was accepted for the last time.
    pub(crate) fn accepted(&self, devices: Range<usize>) -> Option<Instant> {
        let accepted = self.publishers[devices]
            .iter()
            .map(|publisher| publisher.accepted.get());
        accepted.max().flatten()
    }

    /// When a message could not be made durable for the last time.
    pub(crate) fn unavailable(&self) -> Option<Instant> {
        let unavailable = self
            .publishers
            .iter()
            .map(|publisher| publisher.unavailable.get());
        unavailable.max().flatten()
    }

    /// Turns the stream of new messages on or off.
    pub(crate) fn load(&self, on: bool) {
        self.load.set(on);
    }

    /// Has every device sign `count` messages more, whatever the load, that say they are `age` old.
    pub(crate) fn publish_extra(&self, count: u32, age: Duration) {
        for publisher in &self.publishers {
            publisher.extra.set(count);
            publisher.extra_age.set(age);
        }
    }

    /// Has a message sent again: by the thief, or through the device's own connection.
    pub(crate) fn send_again(&self, id: Id, sending: Sending) {
        let publisher = &self.publishers[self.ledger.borrow().message(id).device];
        let queue = if sending == Sending::OwnCopy {
            &publisher.own_copies
        } else {
            &publisher.replays
        };
        queue.borrow_mut().push_back(id);
    }

    /// Ends a device's process and starts it again: its numbers go on above all reserved ones.
    pub(crate) fn restart_publisher(&self, number: usize) -> Result<()> {
        let publisher = &self.publishers[number];
        // The lock on the file goes first.
        drop(publisher.numbers.take());
        let opened = reopen(&publisher.file, &self.site.devices[number].id)?;
        publisher.numbers.replace(Some(opened));
        Ok(())
    }

    /// Answers of any kind since the start.
    pub(crate) fn answers(&self) -> u64 {
        self.answers.get()
    }

    /// Whether every copy that was asked for has been sent and answered.
    pub(crate) fn all_replayed(&self) -> bool {
        self.publishers.iter().all(|publisher| {
            publisher.replays.borrow().is_empty()
                && publisher.own_copies.borrow().is_empty()
                && publisher.unanswered[Who::Thief as usize].get() == 0
        })
    }

    /// Whether, moreover, every message has been sent and answered.
    pub(crate) fn all_answered(&self) -> bool {
        let answered = |publisher: &Publisher| {
            publisher.extra.get() == 0 && publisher.unanswered[Who::Device as usize].get() == 0
        };
        self.all_replayed() && self.publishers.iter().all(answered)
    }

    /// What is not through yet, for people.
    pub(crate) fn waiting(&self) -> String {
        let waiting = self.publishers.iter().enumerate().map(|(number, publisher)| {
            let [device, thief] = publisher.unanswered.each_ref().map(Cell::get);
            let extra = publisher.extra.get();
            format!("device {number}: {device} unanswered, {extra} to send, {thief} copies unanswered")
        });
        waiting.collect::<Vec<_>>().join("; ")
    }

    /// Ends all connections.
    pub(crate) fn stop(&self) {
        self.running.set(false);
    }

    /// Somebody who may read everything, and compares what is given out with what was sent.
    async fn eavesdrop(self: Rc<Self>) {
        while self.running.get() {
            if let Ok(mut client) =
                Client::connect(self.site.mqtts_port(), &self.site.operator, "eavesdropper").await
                && client.subscribe(&self.site.filter()).await.is_ok()
            {
                while let Ok(received) = client.receive().await {
                    if let Received::Message(payload) = received {
                        self.ledger.borrow_mut().deliver(&payload);
                    }
                }
            }
            sleep(GLANCE).await;
        }
    }
}

/// One of a device's two connections, made again whenever it is lost.
struct Link {
    traffic: Rc<Traffic>,
    number: usize,
    who: Who,
    device: Device,
    /// Sent on this connection and not yet answered, in order.
    in_flight: VecDeque<(u16, Id, Sending)>,
    /// Sent on an earlier connection and never answered.
    again: VecDeque<(Id, Sending)>,
    next_new: Instant,
    /// Something could not be made durable: first everything in flight is answered, and then it is
    /// sent again in its order.
    holds: bool,
}

impl Link {
    fn new(traffic: Rc<Traffic>, number: usize, who: Who) -> Self {
        Self {
            device: traffic.site.devices[number].clone(),
            traffic,
            number,
            who,
            in_flight: VecDeque::new(),
            again: VecDeque::new(),
            next_new: Instant::now(),
            holds: false,
        }
    }

    async fn run(mut self) {
        let client_id = match self.who {
            Who::Device => self.device.id.to_string(),
            Who::Thief => format!("thief-of-{}", self.device.id),
        };
        while self.traffic.running.get() {
            let port = self.traffic.site.mqtts_port();
            if let Ok(client) = Client::connect(port, &self.device.tls, &client_id).await {
                // Ends with the connection; how is of no consequence.
                drop(self.exchange(client).await);
                while let Some((_, id, sending)) = self.in_flight.pop_back() {
                    self.again.push_front((id, sending.again()));
                }
            }
            sleep(GLANCE).await;
        }
    }

    /// Until the connection ends. What the gateway said before it was killed is read to the end:
    /// an answer that is on its way is a promise already.
    async fn exchange(&mut self, mut client: Client) -> Result<()> {
        let window = match self.who {
            Who::Device => DEVICE_WINDOW,
            Who::Thief => THIEF_WINDOW,
        };
        let window = window.min(client.receive_maximum());
        while self.traffic.running.get() {
            self.holds &= !self.in_flight.is_empty();
            while !self.holds
                && self.in_flight.len() < window
                && let Some((id, sending)) = self.next()?
            {
                let payload = self.traffic.ledger.borrow().message(id).payload.clone();
                let packet_id = client.publish(&self.device.topic, &payload, sending == Sending::Again)?;
                self.in_flight.push_back((packet_id, id, sending));
            }
            self.count_unanswered();
            client.flush().await?;
            let glance = sleep_until(self.next_new.max(Instant::now() + GLANCE / 2));
            tokio::select! {
                received = client.receive() => {
                    if let Received::Answer(packet_id, answer) = received? {
                        self.settle(packet_id, &answer);
                    }
                }
                () = glance => {}
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Option<(Id, Sending)>> {
        if let Some(again) = self.again.pop_front() {
            return Ok(Some(again));
        }
        let publisher = &self.traffic.publishers[self.number];
        let mut ledger = self.traffic.ledger.borrow_mut();
        if self.who == Who::Thief {
            let mut replays = publisher.replays.borrow_mut();
            // Before the device has its answer, a thief who is faster makes the gateway take the
            // thief's copy for the message; that is tried with some, and the device's own redelivery
            // with the others. Mosquitto would only be handed a message by the thief that it lacks.
            let embedded = self.traffic.site.broker() == Broker::Embedded;
            let captured = |id: &Id| ledger.message(*id).answered || embedded && id.is_multiple_of(FRONT_RUN);
            let replay = replays.pop_front_if(|id| captured(id));
            if replay.is_some() {
                ledger.counts.add("replays published by a thief", 1);
            }
            return Ok(replay.map(|id| (id, Sending::Replay)));
        }
        if let Some(copy) = publisher.own_copies.borrow_mut().pop_front() {
            ledger
                .counts
                .add("replays published through the device's own connection", 1);
            return Ok(Some((copy, Sending::OwnCopy)));
        }
        let extra = publisher.extra.get();
        if extra == 0 && !(self.traffic.load.get() && Instant::now() >= self.next_new) {
            return Ok(None);
        }
        let mut numbers = publisher.numbers.borrow_mut();
        let Some(numbers) = numbers.as_mut() else {
            return Ok(None);
        };
        let age = if extra > 0 {
            publisher.extra.set(extra - 1);
            publisher.extra_age.get()
        } else {
            Duration::ZERO
        };
        self.next_new = Instant::now() + PACE;
        let number = (numbers.boot(), numbers.advance()?);
        let id = ledger.sign(
            self.number,
            &self.device,
            number,
            now().minus(age),
            !age.is_zero(),
        );
        Ok(Some((id, Sending::First)))
    }

    fn settle(&mut self, packet_id: u16, answer: &Answer) {
        let found = self.in_flight.iter().position(|(sent, ..)| *sent == packet_id);
        if let Some((_, id, sending)) = found.and_then(|position| self.in_flight.remove(position)) {
            self.traffic.ledger.borrow_mut().answer(id, sending, answer);
            self.traffic.answers.set(self.traffic.answers.get() + 1);
            let publisher = &self.traffic.publishers[self.number];
            match answer {
                Answer::Accepted => publisher.accepted.set(Some(Instant::now())),
                Answer::Unavailable => {
                    publisher.unavailable.set(Some(Instant::now()));
                    self.holds = true;
                    self.again.push_back((id, sending.again()));
                }
                Answer::Refused(_) => {}
            }
            self.count_unanswered();
        }
    }

    fn count_unanswered(&self) {
        let unanswered = self.in_flight.len() + self.again.len();
        self.traffic.publishers[self.number].unanswered[self.who as usize].set(unanswered);
    }
}
