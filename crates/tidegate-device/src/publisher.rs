//! A publisher: signs a device's readings and brings them to the broker in order.
//!
//! Messages are signed when they are given, wait in a bounded queue while there is no connection,
//! and are sent at QoS 1. One that was sent and not acknowledged is sent again, byte for byte, so
//! a verifier that has it already knows it as a redelivery.

mod backoff;
mod event;
mod link;
mod queue;

use self::event::Events;
use self::link::Link;
use self::queue::{Entry, Queue};
use crate::sequence::{SequenceError, SequenceFile};
use bytes::Bytes;
use rustls::ClientConfig;
use std::sync::Arc;
use std::time::Duration;
use tidegate_envelope::id::{DeviceId, KeyEpoch, MessageDeviceId, Sequence};
use tidegate_envelope::json_v1::{self, Draft};
use tidegate_envelope::key::MacKey;
use tidegate_envelope::reading::Channels;
use tidegate_envelope::time::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

pub use self::backoff::{FIRST_WAIT, LONGEST_WAIT};
pub use self::event::{Counts, Dropped, Event};

/// Events that wait for the caller; further ones are only counted.
pub const EVENT_CAPACITY: usize = 1_024;
/// Largest message that is sent, as brokers of ours allow.
pub const MAX_PAYLOAD_BYTES: usize = 64 * 1_024;

/// Where a publisher connects.
#[derive(Debug, Clone)]
pub struct BrokerAddress {
    /// Name or address; with TLS, one that the broker's certificate carries.
    pub host: String,
    /// 1883 for plain MQTT and 8883 for TLS by custom.
    pub port: u16,
    /// TLS with our CA and, for mutual TLS, this device's certificate; `None` is plain MQTT.
    ///
    /// From [`tidegate_pki::tls::client_config`], which trusts our CA alone: a broker with any
    /// other certificate is refused before a byte of a reading is sent.
    pub tls: Option<Arc<ClientConfig>>,
}

/// How a publisher signs.
#[derive(Debug, Clone)]
pub struct Signing {
    /// The device's key.
    pub key: MacKey,
    /// The key's epoch, named in each message unless it is 0.
    pub epoch: KeyEpoch,
}

/// How a publisher works.
#[derive(Debug, Clone)]
pub struct PublisherConfig {
    /// The device; also the MQTT client id.
    pub device: DeviceId,
    /// The `device_id` in its messages.
    pub message_id: MessageDeviceId,
    /// Its telemetry topic.
    pub topic: String,
    /// The broker.
    pub broker: BrokerAddress,
    /// `None` sends json-v1 without `hmac`, for the levels that have no signatures.
    pub signing: Option<Signing>,
    /// Messages that wait for a connection; beyond it the oldest is dropped. At least 1.
    pub queue_capacity: usize,
    /// Messages sent and not yet acknowledged. At least 1.
    pub in_flight: u16,
    /// A message that has waited longer is dropped: verifiers refuse those of more than 30 s as
    /// `stale`. `None` keeps all.
    pub max_age: Option<Duration>,
    /// How long one attempt to connect may take.
    pub connect_timeout: Duration,
    /// Silence after which the connection is probed. Whole seconds, 1 to 65,535.
    pub keep_alive: Duration,
}

impl PublisherConfig {
    /// A publisher with the usual limits: 1,024 messages queued, 32 in flight, 25 s of age.
    #[must_use]
    pub fn new(
        device: DeviceId,
        message_id: MessageDeviceId,
        topic: String,
        broker: BrokerAddress,
        signing: Option<Signing>,
    ) -> Self {
        Self {
            device,
            message_id,
            topic,
            broker,
            signing,
            queue_capacity: 1_024,
            in_flight: 32,
            max_age: Some(Duration::from_secs(25)),
            connect_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(30),
        }
    }
}

/// A publisher could not start, or did not take a reading.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Nothing can be published to the topic.
    #[error("`{0}` is not a topic to publish to: it is empty or has wildcards")]
    Topic(String),
    /// No sequence number could be had.
    #[error("no sequence number for the message")]
    Sequence(#[from] SequenceError),
    /// The message is too large for any broker of ours.
    #[error("a message of {0} bytes is larger than {MAX_PAYLOAD_BYTES}")]
    TooLarge(usize),
    /// Its task has ended.
    #[error("the publisher has stopped")]
    Stopped,
}

/// One device at one broker. Several live side by side in one process.
///
/// Dropping it ends the connection at once; [`Publisher::close`] waits for outstanding messages.
#[derive(Debug)]
pub struct Publisher {
    config: PublisherConfig,
    sequence: SequenceFile,
    queue: Arc<Queue>,
    events: Events,
    close: mpsc::Sender<CloseRequest>,
}

/// Finish until the deadline, then say how many messages were left unacknowledged.
struct CloseRequest {
    deadline: Instant,
    left: oneshot::Sender<usize>,
}

impl Publisher {
    /// Starts connecting in a task of its own, and gives the events of which [`EVENT_CAPACITY`] wait.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with time and network enabled.
    pub fn start(
        config: PublisherConfig,
        sequence: SequenceFile,
    ) -> Result<(Self, mpsc::Receiver<Event>), PublishError> {
        if config.topic.is_empty() || !rumqttc::valid_topic(&config.topic) {
            return Err(PublishError::Topic(config.topic));
        }
        let (events, received) = Events::new(EVENT_CAPACITY);
        let queue = Arc::new(Queue::new(config.queue_capacity, config.max_age));
        let (close, close_requests) = mpsc::channel(1);
        let link = Link::new(&config, Arc::clone(&queue), events.clone());
        tokio::spawn(link.run(close_requests));
        Ok((
            Self {
                config,
                sequence,
                queue,
                events,
                close,
            },
            received,
        ))
    }

    /// Signs a reading that was measured at `timestamp` and queues it. Never waits for the network.
    ///
    /// Blocks for one synced write in each 1,024 calls ([`SequenceFile::advance`]).
    pub fn publish(
        &mut self,
        timestamp: Timestamp,
        status: &str,
        channels: &Channels,
    ) -> Result<Sequence, PublishError> {
        if self.close.is_closed() {
            return Err(PublishError::Stopped);
        }
        let sequence = self.sequence.advance()?;
        let epoch = self.config.signing.as_ref().map(|signing| signing.epoch);
        let draft = Draft {
            device: &self.config.message_id,
            timestamp,
            sequence,
            boot: Some(self.sequence.boot()),
            epoch: epoch.filter(|epoch| *epoch != KeyEpoch::default()),
            status,
            channels,
        };
        let payload = match &self.config.signing {
            Some(signing) => json_v1::sign(&draft, &signing.key),
            None => unsigned(&draft),
        };
        if payload.len() > MAX_PAYLOAD_BYTES {
            return Err(PublishError::TooLarge(payload.len()));
        }
        let entry = Entry {
            sequence,
            payload: Bytes::from(payload),
            queued: Instant::now(),
        };
        self.queue.push(entry, &self.events);
        Ok(sequence)
    }

    /// Totals since the start.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.events.counts()
    }

    /// Messages that wait to be sent, those in flight not included.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Sends what is queued, waits for acknowledgements for `patience` at most, and disconnects.
    ///
    /// Returns how many messages the broker has not acknowledged: 0 when all went well.
    pub async fn close(self, patience: Duration) -> usize {
        let (left, reply) = oneshot::channel();
        let request = CloseRequest {
            deadline: Instant::now() + patience,
            left,
        };
        if self.close.send(request).await.is_err() {
            return self.queue.len();
        }
        reply.await.unwrap_or_else(|_| self.queue.len())
    }
}

/// json-v1 without `hmac`.
fn unsigned(draft: &Draft<'_>) -> Vec<u8> {
    let readings: serde_json::Map<_, _> = draft
        .channels
        .iter()
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    let message = serde_json::json!({
        "boot": draft.boot.map(|boot| boot.0),
        "device_id": draft.device.as_str(),
        "readings": readings,
        "sequence": draft.sequence.get(),
        "status": draft.status,
        "timestamp": draft.timestamp.to_string(),
    });
    message.to_string().into_bytes()
}
