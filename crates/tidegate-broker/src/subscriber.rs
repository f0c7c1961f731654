//! Subscriber mode: takes messages from any broker, and acknowledges them after the gate's answer.
//!
//! The other broker has checked certificates and topics; the [`Gate`] is the same one that answers
//! for the embedded broker. Of each message's sender nothing is known but the topic.

mod amnesia;

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use rumqttc::mqttbytes::v5::{ConnectReturnCode, Publish, RetainForwardRule, SubscribeReasonCode};
use rumqttc::{
    AckMode, AsyncClient, ConnectionError, Event, EventLoop, Incoming as Packet, MqttOptions, PublishOptions,
    QoS, SessionMode, SubscribeFilterInput,
};
use tidegate_envelope::principal::Principal;
use tidegate_envelope::reason::Reason;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use amnesia::Amnesia;

use crate::gate::{Disposition, Gate, Incoming, MAX_USER_PROPERTIES, MAX_USER_PROPERTY_BYTES, Reply};

/// Messages that wait for the gate at one time; the broker keeps the rest.
const IN_FLIGHT: u16 = 512;
/// Requests that wait to be written: an acknowledgement and an answer for each message, and a few more.
const REQUESTS: usize = 2 * IN_FLIGHT as usize + 16;
/// Largest packet that is read.
const LARGEST_PACKET_BYTES: u32 = 128 * 1024;
/// How long the broker keeps what arrives while this gateway is away.
const SESSION_EXPIRY_S: u32 = 24 * 60 * 60;
/// Silence after which the connection is probed.
const KEEP_ALIVE_S: u16 = 15;
/// Pause after the first failed attempt to connect, and before messages that could not be stored
/// are asked for again. By then the gate has dealt with all that was on its way from the connection
/// before, or a later message could be accepted before an earlier one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause between two attempts to connect.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Longest pause before the broker is asked again for what could not be stored. With the time that
/// a broker takes to let the gateway in again, messages are accepted within a second of the
/// database's recovery.
const LONGEST_STORE_PAUSE: Duration = Duration::from_millis(400);
/// Time that messages in flight get to be answered and acknowledged when the subscriber stops.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);
/// Time for the last bytes to the broker.
const FAREWELL_WITHIN: Duration = Duration::from_secs(1);
/// All deliveries come through the one session that this gateway has at the broker.
const SESSION: u64 = 1;

/// Says what the connection does, for people.
pub trait Watch {
    /// The subscription stands.
    fn connected(&mut self);
    /// The connection is gone or could not be made; the next attempt follows.
    fn disconnected(&mut self, error: &str);
}

/// The broker refuses this gateway for good; another attempt would not help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the broker refuses this gateway: {code:?}")]
pub struct Refused {
    /// CONNACK's reason code.
    pub code: ConnectReturnCode,
}

/// Subscribes to `filter` and asks the gate about every message, until `stop`.
///
/// A message is acknowledged once the gate has answered; [`Disposition::Unavailable`] ends the
/// connection without an acknowledgement, so that the broker sends again. Answers to questions are
/// published with QoS 1. Of a message's user properties, those within [`MAX_USER_PROPERTIES`] and
/// [`MAX_USER_PROPERTY_BYTES`] reach the gate.
///
/// `options` say where the broker is and who this gateway is; the session's options are set here.
///
/// # Errors
/// Only when the broker refuses this gateway for good.
pub async fn run<G: Gate>(
    mut options: MqttOptions,
    filter: &str,
    gate: &Arc<G>,
    stop: CancellationToken,
    watch: &mut impl Watch,
) -> Result<(), Refused> {
    options
        .set_ack_mode(AckMode::Manual)
        .set_session_mode(SessionMode::Persistent)
        .set_session_store(Amnesia {
            session_expiry_s: SESSION_EXPIRY_S,
        })
        .set_session_expiry_interval(Some(SESSION_EXPIRY_S))
        .set_receive_maximum(Some(IN_FLIGHT))
        .set_max_packet_size(Some(LARGEST_PACKET_BYTES))
        .set_keep_alive(KEEP_ALIVE_S);
    let (client, mut eventloop) = AsyncClient::builder(options).capacity(REQUESTS).build();
    let subscriber = Subscriber { client, filter, gate };
    let mut pace = Pace::default();
    loop {
        let ended = subscriber
            .connection(&mut eventloop, watch, &mut pace, &stop)
            .await;
        let pause = match ended {
            Ended::Stopped => return Ok(()),
            Ended::Lost(ConnectionError::ConnectionRefused(code)) if refuses_for_good(code) => {
                return Err(Refused { code });
            }
            Ended::Lost(error) => {
                watch.disconnected(&error.to_string());
                longer(&mut pace.connect, LONGEST_PAUSE)
            }
            Ended::Unavailable => {
                watch.disconnected("a message could not be stored");
                pace.window = 1;
                longer(&mut pace.store, LONGEST_STORE_PAUSE)
            }
        };
        if stop.run_until_cancelled(sleep(pause)).await.is_none() {
            return Ok(());
        }
    }
}

struct Subscriber<'a, G> {
    client: AsyncClient,
    filter: &'a str,
    gate: &'a Arc<G>,
}

/// How fast to go: slowly after a failure, and faster once what failed has worked.
struct Pace {
    /// The last pause before connecting.
    connect: Duration,
    /// The last pause before asking for what could not be stored.
    store: Duration,
    /// Messages that the gate may have at one time. One, while it cannot store: if all that waits
    /// were tried each time, the tries would use up the quotas of the devices that sent it.
    window: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            connect: Duration::ZERO,
            store: Duration::ZERO,
            window: usize::from(IN_FLIGHT),
        }
    }
}

impl Pace {
    /// A message was stored.
    fn stored(&mut self) {
        self.store = Duration::ZERO;
        self.window = (self.window * 2).min(usize::from(IN_FLIGHT));
    }
}

/// Doubles a pause within its bounds.
fn longer(pause: &mut Duration, longest: Duration) -> Duration {
    *pause = (*pause * 2).clamp(FIRST_PAUSE, longest);
    *pause
}

/// How a connection ended.
enum Ended {
    Lost(ConnectionError),
    /// A message is not durable.
    Unavailable,
    Stopped,
}

fn lost(why: impl Into<String>) -> Ended {
    Ended::Lost(ConnectionError::Io(io::Error::other(why.into())))
}

impl<G: Gate> Subscriber<'_, G> {
    /// One connection, until it ends.
    ///
    /// Messages in flight when it is lost may be accepted all the same; the broker sends them
    /// again, and the replay guard knows them as duplicates.
    async fn connection(
        &self,
        eventloop: &mut EventLoop,
        watch: &mut impl Watch,
        pace: &mut Pace,
        stop: &CancellationToken,
    ) -> Ended {
        let mut fates = FuturesOrdered::new();
        let (mut connected, mut resumed) = (false, false);
        let mut deadline: Option<Instant> = None;
        loop {
            let polled = {
                // A poll is never dropped half-way, unless the connection goes with it: it may
                // have written a part of a packet.
                let mut poll = pin!(eventloop.poll());
                loop {
                    if deadline.is_some() && fates.is_empty() {
                        break None;
                    }
                    let room = fates.len() < pace.window;
                    tokio::select! {
                        biased;
                        Some((publish, fate)) = fates.next(), if !fates.is_empty() => {
                            if fate == Disposition::Unavailable {
                                break None;
                            }
                            // A duplicate is answered only once what it repeats is stored.
                            if matches!(fate, Disposition::Deliver | Disposition::Refused(Reason::Duplicate)) {
                                pace.stored();
                            }
                            self.settle(&publish, fate);
                        }
                        () = stop.cancelled(), if deadline.is_none() => {
                            deadline = Some(Instant::now() + DRAIN_WITHIN);
                        }
                        () = until(deadline), if deadline.is_some() => break None,
                        polled = &mut poll, if room => break Some(polled),
                    }
                }
            };
            let event = match polled {
                Some(Ok(event)) => event,
                Some(Err(error)) => return Ended::Lost(error),
                None if deadline.is_some() => {
                    if connected {
                        self.say_farewell(eventloop).await;
                    }
                    return Ended::Stopped;
                }
                None => {
                    // Not durable, so not acknowledged: a new connection makes the broker send it again.
                    eventloop.clean();
                    return Ended::Unavailable;
                }
            };
            match event {
                Event::Incoming(Packet::ConnAck(answer)) => {
                    pace.connect = Duration::ZERO;
                    // Now the client library has a memory of its own.
                    eventloop.options.clear_session_store();
                    (connected, resumed) = (true, answer.session_present);
                    // In a resumed session, too: it may be one that a crash cut off before it had
                    // subscribed, and then nothing would ever be delivered.
                    let filter = SubscribeFilterInput::new(self.filter, QoS::AtLeastOnce)
                        // Answers of this gateway's own are not for itself.
                        .no_local(true)
                        .retain_forward_rule(RetainForwardRule::OnNewSubscribe);
                    if let Err(error) = self.client.try_subscribe_many([filter]) {
                        return lost(error.to_string());
                    }
                }
                Event::Incoming(Packet::SubAck(answer)) => {
                    if let Some(code) = answer.return_codes.iter().find(|code| !is_granted(code)) {
                        return lost(format!("the broker refuses the subscription: {code:?}"));
                    }
                    watch.connected();
                }
                // What comes after `stop` is left to the broker.
                Event::Incoming(Packet::Publish(publish)) if deadline.is_none() => {
                    let admission = Arc::clone(self.gate);
                    fates.push_back(async move {
                        let fate = admission.admit(incoming(&publish, resumed)).await;
                        (publish, fate)
                    });
                }
                _ => {}
            }
        }
    }

    fn settle(&self, publish: &Publish, fate: Disposition) {
        if let Disposition::Reply(Reply { topic, payloads }) = fate {
            for payload in payloads {
                let answer = PublishOptions::new(QoS::AtLeastOnce);
                if let Err(error) = self.client.try_publish(&*topic, payload, answer) {
                    tracing::debug!(%error, "cannot answer; whoever asked will ask again");
                }
            }
        }
        if let Err(error) = self.client.try_ack(publish) {
            tracing::debug!(%error, "cannot acknowledge; the broker will send again");
        }
    }

    /// Writes what is still to be acknowledged, and leaves. The broker keeps the session.
    async fn say_farewell(&self, eventloop: &mut EventLoop) {
        if self.client.try_disconnect().is_ok() {
            // Whatever does not get through comes again, and is known as a duplicate.
            drop(timeout(FAREWELL_WITHIN, async { while eventloop.poll().await.is_ok() {} }).await);
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn incoming(publish: &Publish, resumed: bool) -> Incoming {
    Incoming {
        // A topic that is not UTF-8 cannot be a device's, and is refused by that check.
        topic: ByteString::from(String::from_utf8_lossy(&publish.topic).into_owned()),
        payload: Bytes::clone(&publish.payload),
        retain: publish.retain,
        dup: publish.dup,
        qos: publish.qos as u8,
        principal: Arc::new(Principal::Broker),
        session: SESSION,
        resumed,
        user_properties: user_properties(publish),
        client_id: ByteString::new(),
        peer: None,
    }
}

/// The user properties within the bounds. What is left out can make a message refused, never accepted.
fn user_properties(publish: &Publish) -> Vec<(ByteString, ByteString)> {
    let given = publish.properties.iter().flat_map(|given| &given.user_properties);
    let mut room = MAX_USER_PROPERTY_BYTES;
    let fits = |(name, value): &&(String, String)| {
        let left = room.checked_sub(name.len() + value.len());
        room = left.unwrap_or(0);
        left.is_some()
    };
    given
        .take(MAX_USER_PROPERTIES)
        .take_while(fits)
        .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
        .collect()
}

fn is_granted(code: &SubscribeReasonCode) -> bool {
    matches!(code, SubscribeReasonCode::Success(_))
}

fn refuses_for_good(code: ConnectReturnCode) -> bool {
    matches!(
        code,
        ConnectReturnCode::NotAuthorized
            | ConnectReturnCode::BadUserNamePassword
            | ConnectReturnCode::Banned
            | ConnectReturnCode::ClientIdentifierNotValid
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rumqttc::mqttbytes::v5::PublishProperties;

    fn with(properties: Vec<(String, String)>) -> Publish {
        let properties = PublishProperties {
            user_properties: properties,
            ..PublishProperties::default()
        };
        Publish::new("t", QoS::AtLeastOnce, "m", Some(properties))
    }

    #[test]
    fn user_properties_reach_the_gate_up_to_their_number_and_bytes() {
        let many = |count| vec![("n".to_owned(), "v".to_owned()); count];
        assert_eq!(
            user_properties(&with(many(MAX_USER_PROPERTIES))).len(),
            MAX_USER_PROPERTIES
        );
        assert_eq!(
            user_properties(&with(many(MAX_USER_PROPERTIES + 1))).len(),
            MAX_USER_PROPERTIES
        );
        let long = |bytes| {
            vec![
                ("n".to_owned(), "v".repeat(bytes - 1)),
                ("m".into(), String::new()),
            ]
        };
        assert_eq!(user_properties(&with(long(MAX_USER_PROPERTY_BYTES - 1))).len(), 2);
        assert_eq!(user_properties(&with(long(MAX_USER_PROPERTY_BYTES))).len(), 1);
        assert_eq!(user_properties(&with(long(MAX_USER_PROPERTY_BYTES + 1))).len(), 0);
    }

    #[test]
    fn delivery_of_another_broker_names_the_broker_and_nobody_else() {
        let mut publish = with(Vec::new());
        publish.topic = Bytes::from_static(b"\xff/t");
        publish.dup = true;
        let incoming = incoming(&publish, true);
        assert_eq!(*incoming.principal, Principal::Broker);
        assert_eq!((incoming.peer, &*incoming.client_id), (None, ""));
        assert!(incoming.resumed && incoming.dup && !incoming.retain);
        assert_eq!(&*incoming.topic, "\u{fffd}/t");
    }
}
