//! The connection of one publisher: made, lost and made again, by one task.

use super::backoff::{Backoff, STABLE_AFTER};
use super::config::EchoTopics;
use super::event::{Event, Events};
use super::queue::{Entry, Queue};
use super::{CloseRequest, MAX_PAYLOAD_BYTES, PublisherConfig};
use crate::chain::chain;
use crate::clock::{AnswerRefused, EchoClock};
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::{Publish, PublishProperties};
use rumqttc::{
    AsyncClient, ConnectionError, DisconnectProperties, DisconnectReasonCode, EventLoop, Incoming,
    MqttOptions, PubAckReason, PublishNoticeError, PublishOptions, PublishResult, StateError,
    TlsConfiguration, Transport,
};
use rustls::ClientConfig;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use tidegate_envelope::cose_v1::DETACHED_PROPERTY;
use tidegate_envelope::time_echo::Nonce;
use tidegate_pki::tls::classify_as_client;
use tokio::sync::{mpsc, watch};
use tokio::time::{self, Instant};
use tracing::debug;

/// The broker keeps the session this long after a lost connection, so that a message which it took
/// and whose acknowledgement was lost is known as a redelivery when it comes again.
const SESSION_EXPIRY_S: u32 = 300;
/// Largest packet taken from the broker; it sends acknowledgements, and answers of 200 bytes.
const MAX_INCOMING_BYTES: u32 = 4_096;
/// A subscription and a question for the time, beside the messages.
const MORE_REQUESTS: usize = 2;
/// Longest pause before what could not be stored is sent again: within a second of the end of an
/// outage messages are taken again.
const LONGEST_HOLD: Duration = Duration::from_millis(500);
/// How long a change of TLS waits for outstanding acknowledgements: two of a gateway's slow disk.
const DRAIN: Duration = Duration::from_secs(5);
/// How long the farewell may take after the last acknowledgement.
const FAREWELL: Duration = Duration::from_secs(1);

type Outcome = (Entry, Result<PublishResult, PublishNoticeError>);
type Notices = FuturesUnordered<BoxFuture<'static, Outcome>>;

/// Everything that the task owns beside the event loop.
pub(super) struct Link {
    options: MqttOptions,
    topic: String,
    in_flight: usize,
    queue: Arc<Queue>,
    events: Events,
    notices: Notices,
    backoff: Backoff,
    random: StdRng,
    /// Since when there is a connection.
    connected: Option<Instant>,
    /// While the gateway cannot store: when to send again, and how long it has been so.
    hold: Option<Instant>,
    store_backoff: Backoff,
    echo: Option<Echo>,
    tls: Option<watch::Receiver<Arc<ClientConfig>>>,
    /// After a change of TLS: until when to wait for acknowledgements. Nothing is sent meanwhile.
    drain: Option<Instant>,
}

/// What a device without a clock has beside its messages.
pub(super) struct Echo {
    pub(super) clock: Arc<EchoClock>,
    pub(super) topics: EchoTopics,
    pub(super) ready: Ready,
}

/// How far a connection has come before a question makes sense: its answer would be lost without a
/// subscription, and the client may send a question before a subscription that was given it first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Ready {
    /// It is new.
    #[default]
    No,
    /// The subscription is under way.
    Subscribing,
    /// There is one now. The first question of a connection is asked at once: this machine may have
    /// slept, which its monotonic clock does not count.
    Subscribed,
    /// As the clock says.
    Asked,
}

impl Link {
    pub(super) fn new(
        config: &PublisherConfig,
        queue: Arc<Queue>,
        events: Events,
        echo: Option<Echo>,
    ) -> Self {
        let address = (config.broker.host.as_str(), config.broker.port);
        let mut options = MqttOptions::new(config.device.as_str(), address);
        let keep_alive_s = u16::try_from(config.keep_alive.as_secs())
            .unwrap_or(u16::MAX)
            .max(1);
        options
            .set_keep_alive(keep_alive_s)
            .set_connect_timeout(config.connect_timeout)
            .set_session_expiry_interval(Some(SESSION_EXPIRY_S))
            .set_outgoing_inflight_upper_limit(config.in_flight.max(1))
            .set_max_packet_size(Some(MAX_INCOMING_BYTES))
            // A session of an earlier process holds nothing for this one.
            .set_clean_start(true);
        if let Some(connector) = config.connector.clone() {
            options.set_socket_connector(move |address, _| connector.connect(address));
        }
        if let Some(tls) = &config.broker.tls {
            options.set_transport(transport(Arc::clone(tls)));
        }
        Self {
            options,
            topic: config.topic.clone(),
            in_flight: usize::from(config.in_flight.max(1)),
            queue,
            events,
            notices: Notices::new(),
            backoff: Backoff::default(),
            random: config
                .jitter_seed
                .map_or_else(rand::make_rng, StdRng::seed_from_u64),
            connected: None,
            hold: None,
            store_backoff: Backoff::default(),
            echo,
            tls: config.tls_changes.clone(),
            drain: None,
        }
    }

    /// Runs until it is closed, or the publisher is dropped.
    pub(super) async fn run(mut self, mut close_requests: mpsc::Receiver<CloseRequest>) {
        // Room for all that may be in flight, so that handing over a message never waits.
        let builder = AsyncClient::builder(self.options.clone()).capacity(self.in_flight + MORE_REQUESTS);
        let (client, mut eventloop) = builder.build();
        let mut closing: Option<CloseRequest> = None;
        loop {
            self.take_tls(&mut eventloop);
            let step = {
                // `poll` is never dropped half-way, it may have written a part of a packet; but
                // where the connection is given up with it.
                let poll = eventloop.poll();
                tokio::pin!(poll);
                loop {
                    self.ask(&client);
                    self.hand_over(&client);
                    if closing.is_some() && self.is_done() {
                        break Step::Close;
                    }
                    if self.drain.is_some() && (self.connected.is_none() || self.notices.is_empty()) {
                        break Step::Reconnect;
                    }
                    let deadline = closing.as_ref().map(|request| request.deadline);
                    let next_question = self.next_question();
                    tokio::select! {
                        biased;
                        event = &mut poll => break Step::Polled(self.on_poll(event)),
                        Some(outcome) = self.notices.next() => self.on_outcome(outcome),
                        () = changed(&mut self.tls), if self.drain.is_none() && closing.is_none() => {
                            self.drain = Some(Instant::now() + DRAIN);
                        }
                        () = self.queue.filled.notified(), if self.may_send() => {}
                        () = until(next_question) => {}
                        () = until(self.hold), if self.hold.is_some() && self.notices.is_empty() => {
                            self.hold = None;
                        }
                        () = until(deadline) => break Step::Close,
                        () = until(self.drain) => break Step::Reconnect,
                        request = close_requests.recv(), if closing.is_none() => match request {
                            Some(request) => closing = Some(request),
                            None => return,
                        },
                    }
                }
            };
            let pause = match step {
                Step::Polled(pause) => pause,
                Step::Reconnect => {
                    self.end_connection(&mut eventloop);
                    continue;
                }
                Step::Close => break,
            };
            if self.connected.is_some() {
                // From now on a lost connection resumes its session.
                eventloop.options.set_clean_start(false);
            }
            if let Some(wait) = pause
                && !self.pause(wait, &mut close_requests, &mut closing).await
            {
                break;
            }
        }
        self.say_farewell(&client, &mut eventloop).await;
        if let Some(request) = closing {
            // A caller that gave up waiting needs no answer.
            let _ = request.left.send(self.queue.len() + self.notices.len());
        }
    }

    /// Waits before the next attempt. `false` when there is no time left for one.
    async fn pause(
        &mut self,
        wait: Duration,
        close_requests: &mut mpsc::Receiver<CloseRequest>,
        closing: &mut Option<CloseRequest>,
    ) -> bool {
        let end = Instant::now() + wait;
        loop {
            let deadline = closing.as_ref().map(|request| request.deadline);
            if closing.is_some() && self.is_done() {
                return false;
            }
            tokio::select! {
                biased;
                () = time::sleep_until(end) => return true,
                () = until(deadline) => return false,
                // What was wrong may have been the old one.
                () = changed(&mut self.tls) => return true,
                request = close_requests.recv(), if closing.is_none() => match request {
                    Some(request) => *closing = Some(request),
                    None => return false,
                },
            }
        }
    }

    /// Uses the TLS of now for the next connection.
    fn take_tls(&mut self, eventloop: &mut EventLoop) {
        if let Some(tls) = &mut self.tls
            && self.connected.is_none()
        {
            let config = Arc::clone(&tls.borrow_and_update());
            eventloop.options.set_transport(transport(config));
        }
    }

    /// Gives up the connection for one with other TLS. The broker keeps the session, and what it
    /// has not acknowledged is sent again in it, before anything else.
    fn end_connection(&mut self, eventloop: &mut EventLoop) {
        self.drain = None;
        if self.connected.take().is_some() {
            self.events.emit(Event::Reconnecting {
                unacknowledged: self.notices.len(),
            });
            eventloop.options.set_clean_start(false);
        }
        eventloop.clean();
    }

    /// How long to wait before the next poll, if at all.
    fn on_poll(&mut self, polled: Result<rumqttc::Event, ConnectionError>) -> Option<Duration> {
        match polled {
            Ok(rumqttc::Event::Incoming(Incoming::ConnAck(connack))) => {
                // Messages that the broker does not know any more must be back in their place
                // before a later one is sent.
                while let Some(Some(outcome)) = self.notices.next().now_or_never() {
                    self.on_outcome(outcome);
                }
                self.connected = Some(Instant::now());
                if let Some(echo) = &mut self.echo {
                    echo.ready = Ready::No;
                }
                self.events.emit(Event::Connected {
                    resumed: connack.session_present,
                });
                None
            }
            Ok(rumqttc::Event::Incoming(Incoming::SubAck(_))) => {
                if let Some(echo) = &mut self.echo {
                    echo.ready = Ready::Subscribed;
                }
                None
            }
            Ok(rumqttc::Event::Incoming(Incoming::Publish(publish))) => {
                self.on_publish(&publish);
                None
            }
            Ok(_) => None,
            Err(error) => {
                self.drain = None;
                let lasted = self.connected.take().map(|since| since.elapsed());
                if lasted.is_some_and(|lasted| lasted >= STABLE_AFTER) {
                    self.backoff.reset();
                }
                let retry_in = self.backoff.next_wait(&mut self.random);
                let reason = classify_as_client(cause(&error));
                let detail = chain(&error);
                debug!(%detail, reason = reason.map(tracing::field::display), ?retry_in, "no connection");
                self.events.emit(Event::Disconnected {
                    reason,
                    detail,
                    retry_in,
                });
                Some(retry_in)
            }
        }
    }

    fn on_outcome(&mut self, (entry, result): Outcome) {
        match result {
            Ok(PublishResult::Qos1(ack)) => match ack.reason {
                PubAckReason::Success | PubAckReason::NoMatchingSubscribers => {
                    self.store_backoff.reset();
                    let after = entry.queued.elapsed();
                    self.events.emit(Event::Acknowledged {
                        sequence: entry.sequence,
                        after,
                    });
                }
                // Not stored, and not the message's fault. What is in flight behind it comes back
                // too, and must be in its place before the first is sent again.
                PubAckReason::ImplementationSpecificError => {
                    let retry_in = self.hold_back();
                    self.events.emit(Event::Postponed {
                        sequence: entry.sequence,
                        retry_in,
                    });
                    self.queue.put_back(entry, &self.events);
                }
                refused => {
                    self.events.emit(Event::Refused {
                        sequence: entry.sequence,
                        code: refused as u8,
                    });
                }
            },
            // The session is gone and the broker never said that it has the message.
            Ok(_) | Err(_) => self.queue.put_back(entry, &self.events),
        }
    }

    /// A message on the answer topic; a device subscribes to nothing else.
    fn on_publish(&self, publish: &Publish) {
        let Some(echo) = &self.echo else { return };
        if publish.topic != echo.topics.answer.as_bytes() {
            return;
        }
        match echo.clock.take(&publish.payload, Instant::now()) {
            Ok(known) => self.events.emit(Event::TimeSet { error: known.error }),
            Err(why @ (AnswerRefused::NoAnswer | AnswerRefused::OtherKey(_))) => debug!(%why, "ignored"),
            Err(why) => self.events.emit(Event::TimeRefused { why }),
        }
    }

    fn next_question(&self) -> Option<Instant> {
        let echo = self.echo.as_ref().filter(|echo| echo.ready == Ready::Asked)?;
        self.connected.map(|_| echo.clock.next_request(Instant::now()))
    }

    /// Subscribes to answers and asks for the time, where that is due. All of it at QoS 0: a
    /// question or an answer that comes again later is of no use.
    fn ask(&mut self, client: &AsyncClient) {
        let now = Instant::now();
        let (Some(_), Some(echo)) = (self.connected, &mut self.echo) else {
            return;
        };
        let given = match echo.ready {
            Ready::No => {
                echo.ready = Ready::Subscribing;
                client.try_subscribe(echo.topics.answer.clone(), QoS::AtMostOnce)
            }
            Ready::Subscribing => return,
            Ready::Asked if echo.clock.next_request(now) > now => return,
            Ready::Subscribed | Ready::Asked => {
                echo.ready = Ready::Asked;
                let question = echo.clock.ask(Nonce(self.random.random()), now);
                let options = PublishOptions::at_most_once();
                client.try_publish(echo.topics.request.clone(), question, options)
            }
        };
        if let Err(error) = given {
            // There is room for both. A question that was not sent is asked again as one without
            // an answer.
            debug!(%error, "the client takes no question");
        }
    }

    /// Sends nothing for a while, which grows as long as nothing is stored.
    fn hold_back(&mut self) -> Duration {
        let now = Instant::now();
        let until = self
            .hold
            .unwrap_or_else(|| now + self.store_backoff.next_wait(&mut self.random).min(LONGEST_HOLD));
        self.hold = Some(until);
        until - now
    }

    fn may_send(&self) -> bool {
        self.connected.is_some()
            && self.hold.is_none()
            && self.drain.is_none()
            && self.notices.len() < self.in_flight
    }

    fn is_done(&self) -> bool {
        self.notices.is_empty() && self.queue.len() == 0
    }

    /// Gives queued messages to the client, as many as may be in flight.
    fn hand_over(&mut self, client: &AsyncClient) {
        while self.may_send() {
            let Some(entry) = self.queue.pop(&self.events) else {
                return;
            };
            debug_assert!(entry.message.payload.len() <= MAX_PAYLOAD_BYTES);
            let payload = entry.message.payload.clone();
            let sent = client.try_publish_tracked(self.topic.clone(), payload, publish_options(&entry));
            match sent {
                Ok(notice) => self
                    .notices
                    .push(async move { (entry, notice.wait_async().await) }.boxed()),
                Err(error) => {
                    debug!(%error, "the client takes no message now");
                    self.queue.put_back(entry, &self.events);
                    return;
                }
            }
        }
    }

    async fn say_farewell(&mut self, client: &AsyncClient, eventloop: &mut EventLoop) {
        if self.connected.is_none() {
            return;
        }
        let properties = DisconnectProperties {
            session_expiry_interval: Some(0),
            reason_string: None,
            user_properties: Vec::new(),
            server_reference: None,
        };
        let normal = DisconnectReasonCode::NormalDisconnection;
        let asked = if self.is_done() {
            client.try_disconnect_with_properties(normal, properties)
        } else {
            client.try_disconnect_now()
        };
        if asked.is_ok() {
            // The connection ends either way; a farewell that does not get through costs nothing.
            drop(time::timeout(FAREWELL, async { while eventloop.poll().await.is_ok() {} }).await);
        }
    }
}

/// How a poll of the client ended.
enum Step {
    /// By itself, and the next one comes after a pause, if there is one.
    Polled(Option<Duration>),
    /// The connection is to be made anew, with other TLS.
    Reconnect,
    /// It is over.
    Close,
}

fn transport(tls: Arc<ClientConfig>) -> Transport {
    Transport::tls_with_config(TlsConfiguration::Rustls(tls))
}

/// Waits until TLS is another. For ever, where it does not change any more.
async fn changed(tls: &mut Option<watch::Receiver<Arc<ClientConfig>>>) {
    if let Some(receiver) = tls
        && receiver.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

fn publish_options(entry: &Entry) -> PublishOptions {
    let options = PublishOptions::at_least_once();
    let Some(mac0) = entry.message.mac0.clone() else {
        return options;
    };
    options.properties(PublishProperties {
        user_properties: vec![(DETACHED_PROPERTY.into(), mac0)],
        ..PublishProperties::default()
    })
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// The part of an error whose sources lead down to TLS. In TLS 1.3 the broker's refusal of our
/// certificate comes where CONNACK was expected, and that error of the client names no source.
fn cause(error: &ConnectionError) -> &(dyn Error + 'static) {
    match error {
        ConnectionError::MqttState(StateError::Deserialization(inner)) => inner,
        other => other,
    }
}
