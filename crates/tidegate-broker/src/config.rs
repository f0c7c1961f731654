//! What a broker is told before it opens a port.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;

use crate::acl::Access;

/// Everything that a broker needs to know.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// The ports to open.
    pub listeners: Vec<Listener>,
    /// TLS of the listeners with [`Transport::Tls`]; replaced by [`Handle::reload_tls`](crate::Handle::reload_tls).
    pub tls: Option<Arc<ServerConfig>>,
    /// Bounds on everything that clients can make the broker keep.
    pub limits: Limits,
}

/// One port.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Address to bind; port 0 takes a free one.
    pub address: SocketAddr,
    /// Plain TCP or TLS.
    pub transport: Transport,
    /// Who may do what on connections through this port.
    pub access: Access,
}

/// What lies under MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP: everybody on the way reads and changes it.
    Plain,
    /// TLS; with a client certificate where the TLS configuration asks for one.
    Tls,
}

/// Bounds on what clients can make the broker keep or wait for.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections in total, CONNECT still to come or not.
    pub max_connections: usize,
    /// Connections from one network address.
    pub max_connections_per_address: usize,
    /// Time from accepting a socket to its complete CONNECT, TLS handshake included.
    pub connect_within: Duration,
    /// Sessions of one certificate's principal, connected or not. Clients without a certificate
    /// cannot be told apart, and have only the limits for all.
    pub max_sessions_per_principal: usize,
    /// CONNECTs of one certificate's principal in the long run, 1 at least.
    pub connects_per_second_per_principal: u32,
    /// CONNECTs of one certificate's principal at once, after a quiet time.
    pub connect_burst_per_principal: u32,
    /// Longest application message, in bytes. A packet may be [`Self::PACKET_OVERHEAD_BYTES`] longer.
    pub max_payload_bytes: usize,
    /// Publishes of one client that wait for the gate at one time (MQTT 5 Receive Maximum), 1 to 65,535.
    pub max_incoming_in_flight: u16,
    /// Publishes to one client that wait for its acknowledgement at one time, 1 at least.
    pub max_outgoing_in_flight: u16,
    /// Messages that wait for one client.
    pub max_queued_messages: usize,
    /// Bytes that wait for one client.
    pub max_queued_bytes: usize,
    /// Filters of one client.
    pub max_subscriptions: usize,
    /// Sessions, connected or not.
    pub max_sessions: usize,
    /// Longest time that a session outlives its connection.
    pub max_session_expiry: Duration,
    /// Retained messages in total.
    pub max_retained_messages: usize,
    /// Bytes of retained messages in total.
    pub max_retained_bytes: usize,
    /// Time that a client may leave sent bytes unread before it is cut off.
    pub write_stall: Duration,
    /// Time that publishes in flight get to finish when a connection ends.
    pub drain_within: Duration,
}

impl Limits {
    /// What a packet may have beside its payload: topic, properties and header.
    pub const PACKET_OVERHEAD_BYTES: usize = 4_096;

    /// Longest accepted packet, in bytes after the fixed header.
    #[must_use]
    pub fn max_packet_bytes(&self) -> usize {
        self.max_payload_bytes.saturating_add(Self::PACKET_OVERHEAD_BYTES)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 16_384,
            max_connections_per_address: 12_288,
            // A mute socket is to be gone after five seconds, even on a machine that is busy.
            connect_within: Duration::from_millis(4_500),
            max_sessions_per_principal: 64,
            connects_per_second_per_principal: 32,
            connect_burst_per_principal: 256,
            max_payload_bytes: 65_536,
            max_incoming_in_flight: 256,
            max_outgoing_in_flight: 1_024,
            max_queued_messages: 32_768,
            max_queued_bytes: 16 << 20,
            max_subscriptions: 128,
            max_sessions: 16_384,
            max_session_expiry: Duration::from_secs(24 * 60 * 60),
            max_retained_messages: 16_384,
            max_retained_bytes: 32 << 20,
            write_stall: Duration::from_secs(30),
            drain_within: Duration::from_secs(5),
        }
    }
}
