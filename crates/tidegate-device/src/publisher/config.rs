//! What a publisher is told at its start.

use super::connector::Connector;
use compact_str::CompactString;
use rustls::ClientConfig;
use std::sync::Arc;
use std::time::Duration;
use tidegate_envelope::cose_v1::TagLength;
use tidegate_envelope::id::{DeviceId, KeyEpoch, MessageDeviceId};
use tidegate_envelope::key::MacKey;
use tokio::sync::watch;

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
    ///
    /// For a certificate that is renewed meanwhile, see [`PublisherConfig::tls_changes`].
    pub tls: Option<Arc<ClientConfig>>,
}

/// How a publisher signs.
#[derive(Debug, Clone)]
pub struct Signing {
    /// The device's key.
    pub key: MacKey,
    /// The key's epoch; json-v1 names it in each message unless it is 0, cose-v1 always.
    pub epoch: KeyEpoch,
}

/// How messages are written; what the device's registry entry says.
#[derive(Debug, Clone, Default)]
pub enum MessageFormat {
    /// One JSON object with its MAC inside.
    #[default]
    JsonV1,
    /// COSE_Mac0 (RFC 9052 §6.2) with a CBOR payload.
    ///
    /// Values are sent as 32-bit floats, about seven significant digits, and the time in whole
    /// milliseconds: what is finer is lost, and signed as it was sent.
    CoseV1 {
        /// The channels of a message in their order, as the device's registry entry names them.
        /// A reading must have exactly these.
        channels: Arc<[CompactString]>,
        /// Length of the MAC.
        tag: TagLength,
    },
    /// The payload is json-v1 without `hmac`; the MAC stands in the MQTT 5 user property
    /// [`DETACHED_PROPERTY`](tidegate_envelope::cose_v1::DETACHED_PROPERTY). Values keep their
    /// 64 bits; the signed time is in whole milliseconds.
    CoseDetached {
        /// Length of the MAC.
        tag: TagLength,
    },
}

/// What happens to a reading for which the queue has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// The oldest message gives way: what waits is the newest.
    #[default]
    DropOldest,
    /// The new message gives way: what waits is the oldest. It takes a sequence number all the
    /// same, so that a verifier sees the gap.
    DropNewest,
    /// [`PublishError::QueueFull`](super::PublishError::QueueFull), and no sequence number is
    /// used: the caller still has the reading. No message that was taken is dropped for want of
    /// room, so up to `in_flight` more than `queue_capacity` wait after a lost session.
    Refuse,
}

/// Where the time of a reading comes from.
#[derive(Debug, Clone, Default)]
pub enum TimeSource {
    /// The caller has a clock and gives the time with each reading.
    #[default]
    System,
    /// The device has no clock: the publisher asks for the time, signed
    /// ([`clock`](crate::clock)), and the caller says with an [`Instant`](tokio::time::Instant)
    /// when it measured. Needs [`PublisherConfig::signing`].
    Echo(EchoTopics),
}

/// Where a device without a clock asks, and where it is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EchoTopics {
    /// `…/<device>/time`.
    pub request: String,
    /// `…/<device>/commands`.
    pub answer: String,
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
    /// How messages are written. All but json-v1 need `signing`.
    pub format: MessageFormat,
    /// Messages that wait for a connection. At least 1.
    pub queue_capacity: usize,
    /// What happens beyond it.
    pub overflow: Overflow,
    /// Messages sent and not yet acknowledged. At least 1.
    pub in_flight: u16,
    /// A message that has waited longer is dropped: verifiers refuse those of more than 30 s as
    /// `stale`. `None` keeps all.
    pub max_age: Option<Duration>,
    /// How long one attempt to connect may take.
    pub connect_timeout: Duration,
    /// Silence after which the connection is probed. Whole seconds, 1 to 65,535.
    pub keep_alive: Duration,
    /// TLS that may change while the publisher runs, in place of [`BrokerAddress::tls`]: from
    /// [`Renewal::tls`](crate::renewal::Renewal::tls). When it changes, the publisher waits for the
    /// acknowledgements that are outstanding, for a bounded time, and connects anew; the session
    /// goes on, and no message is lost or changes its place.
    pub tls_changes: Option<watch::Receiver<Arc<ClientConfig>>>,
    /// Makes the connection in place of TCP; TLS, where there is any, goes on top.
    pub connector: Option<Connector>,
    /// Where the time of a reading comes from.
    pub time: TimeSource,
    /// What the random part of the waits before reconnecting starts from, so that a simulation
    /// can be repeated; `None` asks the operating system, and keeps devices apart.
    pub jitter_seed: Option<u64>,
}

impl PublisherConfig {
    /// A publisher with the usual limits: 1,024 messages queued, 32 in flight, 25 s of age; json-v1,
    /// the oldest dropped first, over TCP, with the caller's time.
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
            format: MessageFormat::default(),
            queue_capacity: 1_024,
            overflow: Overflow::default(),
            in_flight: 32,
            max_age: Some(Duration::from_secs(25)),
            connect_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(30),
            tls_changes: None,
            connector: None,
            time: TimeSource::default(),
            jitter_seed: None,
        }
    }
}
