//! A campaign: one site, and the lives and deaths of its gateway.

use super::check;
use super::ledger::{Counts, Id, Sending};
use super::site::{Broker, GLANCE, PATIENCE, Process, Site};
use super::traffic::Traffic;
use anyhow::{Result, bail};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Devices at a site.
const DEVICES: u32 = 3;
/// Latest moment of a kill that goes by the clock, in milliseconds after the start; later behind
/// Mosquitto, which takes some 100 ms to let a subscriber in.
const LATEST_MS: u64 = 250;
const LATEST_BEHIND_MOSQUITTO_MS: u64 = 400;
/// The same for a kill that is to hit the start itself, which takes some 10 ms.
const START_MS: u64 = 15;
/// Most answers, once the gateway is ready, before a kill that goes by them.
const MOST_ANSWERS: u64 = 200;
/// Everything since the campaign's start is sent again every so many lives.
const EVERYTHING_EVERY: u32 = 200;
/// Database and ledger are compared every so many lives.
const COMPARE_EVERY: u32 = 500;
/// Older messages that are sent again in every life.
const SAMPLE: usize = 24;
/// Copies of the previous life that go through the devices' own connections.
const OWN_COPIES: usize = 8;
/// A publisher is started again in one life of so many.
const RESTART_EVERY: u32 = 40;
/// Behind Mosquitto, one life of so many lasts until the gateway has caught up, or messages would
/// grow old in Mosquitto's queue.
const CATCH_UP_EVERY: u32 = 20;
/// A log beyond this is written back at the start, so that kills fall into that too.
const WRITTEN_BACK_BYTES: u64 = 4 << 20;
/// How long a gateway may take to get through all that is sent.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(120);
/// Close to the 30 s window's end when published, beyond it when the gateway comes.
const OUTDATED: Duration = Duration::from_millis(29_000);
const OUTDATED_WAIT: Duration = Duration::from_millis(1_500);
const OUTDATED_MESSAGES: u32 = 5;

/// What a campaign is to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) broker: Broker,
    pub(super) lives: u32,
    pub(super) seed: u64,
}

/// When a life ends.
#[derive(Debug, Clone, Copy)]
enum End {
    After(Duration),
    Answers(u64),
    /// When everything has been sent again and answered, and a little later.
    CaughtUp(Duration),
}

struct Campaign {
    traffic: Rc<Traffic>,
    random: StdRng,
    /// The first message of the life before.
    previous: Id,
    /// All messages before it have been through the gateway.
    settled: Id,
    lives: u32,
}

/// Runs one campaign; `next_life` is told of each kill, and says whether to go on.
pub(super) fn run(plan: Plan, binary: &Path, mut next_life: impl FnMut(&Counts) -> bool) -> Result<Counts> {
    let site = Site::new(binary, plan.broker, DEVICES)?;
    let mosquitto = match plan.broker {
        Broker::Embedded => None,
        Broker::Mosquitto => Some(site.start_mosquitto()?),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = tokio::task::LocalSet::new();
    let counts = local.block_on(&runtime, async {
        if mosquitto.is_some() {
            subscribe_once(&site).await?;
        }
        let mut campaign = Campaign {
            traffic: Traffic::start(site, DEVICES as usize)?,
            random: StdRng::seed_from_u64(plan.seed),
            previous: 0,
            settled: 0,
            lives: 0,
        };
        let mut alive = true;
        let mut go_on = true;
        while alive && go_on && campaign.lives < plan.lives {
            alive = campaign.live().await?;
            go_on = next_life(&campaign.traffic.ledger.borrow().counts);
        }
        if alive {
            campaign.finish().await?;
        } else {
            campaign.compare()?;
        }
        campaign.traffic.stop();
        Ok(std::mem::take(&mut campaign.traffic.ledger.borrow_mut().counts))
    });
    drop(mosquitto);
    counts
}

/// Mosquitto keeps messages for a session only once it exists.
async fn subscribe_once(site: &Site) -> Result<()> {
    let mut gateway = site.start_gateway()?;
    if !until_ready(&mut gateway).await? {
        bail!("the gateway does not subscribe: {}", gateway.logged());
    }
    Ok(())
}

impl Campaign {
    /// One life from start to kill. False when the gateway must not be started again.
    async fn live(&mut self) -> Result<bool> {
        self.lives += 1;
        let everything = self.lives.is_multiple_of(EVERYTHING_EVERY);
        let compare = self.lives.is_multiple_of(COMPARE_EVERY);
        self.replay(everything);
        if self.random.random_ratio(1, RESTART_EVERY) {
            let number = self.random.random_range(0..DEVICES as usize);
            self.traffic.restart_publisher(number)?;
            self.count("publishers started again", 1);
        }
        let end = self.choose_end(everything || compare);
        let log_bytes = self.traffic.site.log_bytes();
        let mut gateway = self.traffic.site.start_gateway()?;
        self.wait(end, &mut gateway).await?;
        if let Some(status) = gateway.ended()? {
            let text = format!("the gateway ended by itself with {status}: {}", gateway.logged());
            self.traffic.ledger.borrow_mut().counts.violation(text);
            return Ok(false);
        }
        gateway.kill()?;
        self.count("kills", 1);
        let before_ready = !gateway.is_ready();
        self.count(
            "lives that ended before the gateway was ready",
            u64::from(before_ready),
        );
        self.count("starts with a log to recover", u64::from(log_bytes > 0));
        let long = log_bytes > WRITTEN_BACK_BYTES;
        self.count(
            "starts with a log long enough to be written back",
            u64::from(long),
        );
        if compare {
            self.compare()?;
        }
        Ok(true)
    }

    /// Has everything of the previous life sent again, and a sample of what came before it.
    fn replay(&mut self, everything: bool) {
        let end = self.traffic.ledger.borrow().len();
        let first = if everything { 0 } else { self.previous };
        for id in first..end {
            self.traffic.send_again(id, Sending::Replay);
        }
        if first > 0 {
            for _ in 0..SAMPLE {
                let id = self.random.random_range(0..first);
                self.traffic.send_again(id, Sending::Replay);
            }
        }
        if self.previous < end {
            for _ in 0..OWN_COPIES {
                let id = self.random.random_range(self.previous..end);
                if self.traffic.ledger.borrow().message(id).acknowledged {
                    self.traffic.send_again(id, Sending::OwnCopy);
                }
            }
        }
        self.count("times that everything was sent again", u64::from(everything));
        self.previous = end;
    }

    fn choose_end(&mut self, caught_up: bool) -> End {
        let behind_mosquitto = self.traffic.site.broker() == Broker::Mosquitto;
        if caught_up || behind_mosquitto && self.random.random_ratio(1, CATCH_UP_EVERY) {
            return End::CaughtUp(Duration::from_micros(self.random.random_range(0..100_000)));
        }
        let latest_ms = if behind_mosquitto {
            LATEST_BEHIND_MOSQUITTO_MS
        } else {
            LATEST_MS
        };
        let random = &mut self.random;
        match random.random_range(0..4) {
            0 => End::After(Duration::from_micros(random.random_range(0..START_MS * 1_000))),
            1 => End::Answers(random.random_range(1..=MOST_ANSWERS)),
            _ => End::After(Duration::from_micros(random.random_range(0..latest_ms * 1_000))),
        }
    }

    async fn wait(&mut self, end: End, gateway: &mut Process) -> Result<()> {
        match end {
            End::After(time) => sleep(time).await,
            End::Answers(number) => {
                if !until_ready(gateway).await? {
                    let text = format!("the gateway was not ready within {} s", PATIENCE.as_secs());
                    self.traffic.ledger.borrow_mut().counts.violation(text);
                }
                let before = self.traffic.answers();
                until(
                    PATIENCE,
                    gateway,
                    || Ok(self.traffic.answers() - before >= number),
                )
                .await?;
            }
            End::CaughtUp(and_more) => {
                self.catch_up(gateway).await?;
                self.traffic.load(true);
                sleep(and_more).await;
            }
        }
        Ok(())
    }

    /// Lets the gateway get through everything that was sent; no load comes meanwhile or after.
    async fn catch_up(&mut self, gateway: &mut Process) -> Result<()> {
        let traffic = Rc::clone(&self.traffic);
        let answered = || Ok(traffic.all_answered());
        traffic.load(false);
        let mut caught_up = until(CATCH_UP_WITHIN, gateway, answered).await?;
        if traffic.site.broker() == Broker::Mosquitto {
            // Mosquitto's queue is one and in order: when these are in the database, all is through.
            traffic.publish_extra(1, Duration::ZERO);
            let newest = || check::has_newest(&traffic.site, &traffic.ledger.borrow());
            caught_up &= until(CATCH_UP_WITHIN, gateway, answered).await?
                && until(CATCH_UP_WITHIN, gateway, newest).await?;
        }
        self.settled = traffic.ledger.borrow().len();
        if !caught_up {
            let within = CATCH_UP_WITHIN.as_secs();
            let (waiting, logged) = (traffic.waiting(), gateway.logged());
            let text = format!(
                "the gateway has not got through its messages within {within} s: {waiting}; it said: {logged}"
            );
            traffic.ledger.borrow_mut().counts.violation(text);
        }
        Ok(())
    }

    /// The last life: everything once more, a clean end, and the last comparison.
    async fn finish(&mut self) -> Result<()> {
        self.replay(true);
        let mut gateway = self.traffic.site.start_gateway()?;
        self.catch_up(&mut gateway).await?;
        self.end(&mut gateway)?;
        if self.traffic.site.broker() == Broker::Mosquitto {
            self.outdated().await?;
            check::outdated_are_events(&self.traffic.site, &mut self.traffic.ledger.borrow_mut())?;
            for (reason, count) in check::refusals(&self.traffic.site)? {
                self.count(&format!("refused: {reason}"), count);
            }
        }
        self.compare()
    }

    /// Messages that are fresh when Mosquitto takes them, and too old when the gateway comes.
    async fn outdated(&mut self) -> Result<()> {
        self.traffic.publish_extra(OUTDATED_MESSAGES, OUTDATED);
        sleep(OUTDATED_WAIT).await;
        let mut gateway = self.traffic.site.start_gateway()?;
        self.catch_up(&mut gateway).await?;
        self.end(&mut gateway)
    }

    fn end(&self, gateway: &mut Process) -> Result<()> {
        let logged = gateway.logged();
        let status = gateway.interrupt()?;
        if !status.success() {
            let text = format!("the gateway stopped with {status}: {logged}");
            self.traffic.ledger.borrow_mut().counts.violation(text);
        }
        Ok(())
    }

    fn compare(&self) -> Result<()> {
        check::compare(
            &self.traffic.site,
            &mut self.traffic.ledger.borrow_mut(),
            self.settled,
        )
    }

    fn count(&self, what: &str, number: u64) {
        self.traffic.ledger.borrow_mut().counts.add(what, number);
    }
}

/// Whether the gateway became ready in time.
async fn until_ready(gateway: &mut Process) -> Result<bool> {
    let start = Instant::now();
    while !gateway.is_ready() {
        if start.elapsed() > PATIENCE || gateway.ended()?.is_some() {
            return Ok(false);
        }
        sleep(GLANCE).await;
    }
    Ok(true)
}

/// Whether the condition came to hold in time, and before the gateway ended by itself.
async fn until(
    within: Duration,
    gateway: &mut Process,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<bool> {
    let start = Instant::now();
    while !condition()? {
        if start.elapsed() > within || gateway.ended()?.is_some() {
            return Ok(false);
        }
        sleep(GLANCE).await;
    }
    Ok(true)
}
