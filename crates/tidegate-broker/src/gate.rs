//! The Gate: what the broker asks before it acknowledges a publish, and whom it tells of trouble.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use tidegate_envelope::principal::Principal;
use tidegate_envelope::reason::Reason;

/// Decides about every publish before its sender gets an acknowledgement.
///
/// Letting a bad message pass shows it to every subscriber and tells its sender that it is
/// durable; refusing a good one loses a reading, since its sender is told not to send it again.
pub trait Gate: Send + Sync + 'static {
    /// Decides about one publish. Calls of one connection overlap, and are acknowledged in
    /// the order of arrival; the future must resolve without further publishes.
    fn admit(&self, publish: Incoming) -> impl Future<Output = Disposition> + Send;

    /// Told of refused connections, denied topics and broken packets. Must not block: it is
    /// called from connection tasks.
    fn observe(&self, event: SecurityEvent);
}

/// A publish as it came from a client, before anything in it is believed.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// Topic name, valid by MQTT's rules and at most 1,024 bytes long.
    pub topic: ByteString,
    /// Application message, at most [`Limits::max_payload_bytes`](crate::Limits) long.
    pub payload: Bytes,
    /// The RETAIN flag as sent.
    pub retain: bool,
    /// The DUP flag as sent: the client believes that it sent this before.
    pub dup: bool,
    /// Quality of service as sent, 0 to 2.
    pub qos: u8,
    /// Who the connection has proven to be.
    pub principal: Arc<Principal>,
    /// Hash of principal and client id: equal for a client that comes back, stable over restarts.
    pub session: u64,
    /// Whether this connection resumed a session that the broker still had.
    pub resumed: bool,
    /// MQTT 5 user properties, in order, within [`MAX_USER_PROPERTIES`] and
    /// [`MAX_USER_PROPERTY_BYTES`]; empty for MQTT 3.1.1.
    pub user_properties: Vec<(ByteString, ByteString)>,
    /// The client id of the connection, chosen by the client or assigned by the broker; empty for
    /// what another broker delivers.
    pub client_id: ByteString,
    /// Network address of the client; `None` for what another broker delivers.
    pub peer: Option<SocketAddr>,
}

/// Most user properties of one publish; one with more is `oversize`.
pub const MAX_USER_PROPERTIES: usize = 32;

/// Most bytes that the user properties of one publish have, names and values together; one with
/// more is `oversize`. A detached signature has about 150.
pub const MAX_USER_PROPERTY_BYTES: usize = 4_096;

/// What becomes of a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposition {
    /// Subscribers get it, and its sender a successful acknowledgement.
    Deliver,
    /// Nobody gets it; MQTT 5 senders are told why, MQTT 3.1.1 senders get a plain acknowledgement.
    Refused(Reason),
    /// It could not be made durable: MQTT 5 senders are told so, MQTT 3.1.1 connections are
    /// closed without an acknowledgement, so that the client sends it again.
    Unavailable,
    /// It was a question: nobody gets it, its sender gets a successful acknowledgement, and the
    /// answer is published. A will is never answered, since its sender is gone.
    Reply(Reply),
}

/// The answer to a question that came as a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Where it is published to, with QoS 1 and past access control. What is no topic name is
    /// logged and dropped.
    pub topic: ByteString,
    /// The application messages, in order: one for each key that the asker may hold.
    pub payloads: Vec<Bytes>,
}

/// Something that a defender wants to know about a connection.
#[derive(Debug, Clone)]
pub struct SecurityEvent {
    /// What happened.
    pub reason: Reason,
    /// Who the connection had proven to be, where it got that far.
    pub principal: Option<Principal>,
    /// The client id, where a CONNECT was read.
    pub client_id: Option<ByteString>,
    /// Network address of the client.
    pub peer: SocketAddr,
    /// Topic or filter that the event is about.
    pub topic: Option<ByteString>,
    /// What exactly happened, for people; may quote the client, shortened.
    pub detail: String,
    /// How many further events of this reason from this source were left out since the last one.
    pub left_out: u64,
}

/// A boxed [`Gate::admit`] call that owns its gate.
pub(crate) type Admission = Pin<Box<dyn Future<Output = Disposition> + Send>>;

/// [`Gate`] as a trait object, so that the broker is compiled once and not for every gate.
pub(crate) trait SharedGate: Send + Sync {
    fn admit(self: Arc<Self>, publish: Incoming) -> Admission;
    fn observe(&self, event: SecurityEvent);
}

impl<G: Gate> SharedGate for G {
    fn admit(self: Arc<Self>, publish: Incoming) -> Admission {
        Box::pin(async move { Gate::admit(&*self, publish).await })
    }

    fn observe(&self, event: SecurityEvent) {
        Gate::observe(self, event);
    }
}
