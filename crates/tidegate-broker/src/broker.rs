//! The broker as its process sees it: opened, run, asked, told.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use rustls::ServerConfig;
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::principal::Principal;
use tidegate_envelope::reason::Reason;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

use crate::acl::Access;
use crate::config::{BrokerConfig, Limits, Transport};
use crate::descriptors;
use crate::door::{Door, Proof, receive};
use crate::gate::Gate;
use crate::info::SessionInfo;
use crate::session::Order;
use crate::shared::{Course, IsRevoked, Shared};

/// How often sessions, wills and event counts are looked after.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Time for farewells when the broker stops, beside [`Limits::drain_within`](crate::Limits::drain_within).
const FAREWELLS_WITHIN: Duration = Duration::from_secs(2);

/// A broker whose ports are open.
pub struct Broker {
    shared: Arc<Shared>,
    doors: Vec<Door>,
}

/// Why a broker does not open, or does not publish.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// Usually the port is taken, or the address is not one of this machine.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
    /// A listener with TLS needs [`BrokerConfig::tls`].
    #[error("the listener on {0} wants TLS, but no TLS configuration is given")]
    NoTls(SocketAddr),
    /// Nothing would ever be accepted.
    #[error("no listener is configured")]
    NoListener,
    /// MQTT forbids an empty topic name, wildcards and U+0000; ours is also bounded in length.
    #[error("`{0}` is not a topic name")]
    TopicName(String),
}

impl Broker {
    /// Opens the ports; clients wait in them until [`run`](Self::run). Must be called in a tokio runtime.
    ///
    /// Raises the process's soft limit of open files to what [`Limits::max_connections`] needs, as
    /// far as the hard limit allows.
    ///
    /// # Errors
    /// When a port cannot be opened, or TLS is wanted and not configured.
    pub fn bind<G: Gate>(config: BrokerConfig, gate: Arc<G>) -> Result<Self, BrokerError> {
        let BrokerConfig {
            listeners,
            tls,
            limits,
        } = config;
        if listeners.is_empty() {
            return Err(BrokerError::NoListener);
        }
        if let Some(listener) = listeners
            .iter()
            .find(|one| one.transport == Transport::Tls && tls.is_none())
        {
            return Err(BrokerError::NoTls(listener.address));
        }
        descriptors::raise_limit(limits.max_connections);
        let doors = listeners.iter().map(Door::open).collect::<Result<_, _>>()?;
        Ok(Self::over(doors, limits, tls, gate))
    }

    /// A broker that opens no port: clients come by [`Handle::attach`].
    pub fn without_listeners<G: Gate>(limits: Limits, gate: Arc<G>) -> Self {
        Self::over(Vec::new(), limits, None, gate)
    }

    fn over<G: Gate>(
        doors: Vec<Door>,
        mut limits: Limits,
        tls: Option<Arc<ServerConfig>>,
        gate: Arc<G>,
    ) -> Self {
        // With a window of nothing, nothing would ever be acknowledged.
        limits.max_incoming_in_flight = limits.max_incoming_in_flight.max(1);
        limits.max_outgoing_in_flight = limits.max_outgoing_in_flight.max(1);
        Self {
            shared: Arc::new(Shared::new(gate, limits, tls)),
            doors,
        }
    }

    /// The addresses that are listened on, in the order of the configuration.
    #[must_use]
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        self.doors.iter().map(Door::address).collect()
    }

    /// What the rest of the process holds while the broker runs.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Serves until `stop` is cancelled; then accepts and reads nothing more, lets the gate
    /// finish the publishes that it has, acknowledges them, and sends clients away.
    pub async fn run(self, stop: CancellationToken) {
        let Course {
            tasks,
            stop: stopping,
            end,
        } = &self.shared.course;
        for door in self.doors {
            tasks.spawn(door.run(Arc::clone(&self.shared)));
        }
        stop.run_until_cancelled(look_after(&self.shared)).await;
        stopping.cancel();
        self.shared.sessions.shut_down();
        tasks.close();
        let grace = self.shared.limits.drain_within + FAREWELLS_WITHIN;
        if timeout(grace, tasks.wait()).await.is_err() {
            tracing::warn!(connections = tasks.len(), "connections did not end in time");
            end.cancel();
            tasks.wait().await;
        }
        self.shared.summarize_events();
    }
}

async fn look_after(shared: &Arc<Shared>) {
    let mut clock = interval(SWEEP_EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        shared.summarize_events();
        shared.rates.sweep();
        for (session, late) in shared.sessions.sweep() {
            shared.publish_will(&session, late).await;
        }
    }
}

/// Counts since the start, and of this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Sockets open now, CONNECT still to come or not.
    pub connections: usize,
    /// Sessions now, connected or not.
    pub sessions: usize,
    /// Retained messages now.
    pub retained: usize,
    /// CONNECTs accepted.
    pub accepted: u64,
    /// Publishes received.
    pub received: u64,
    /// Publishes refused by access control, limits or the gate.
    pub refused: u64,
    /// Copies queued for subscribers.
    pub delivered: u64,
    /// Copies that found no room, had expired, or were longer than the client takes.
    pub dropped: u64,
}

/// A cheap, cloneable hold on a broker.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    /// Counts since the start, and of this moment.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let counters = &self.shared.counters;
        Stats {
            connections: self.shared.places.total(),
            sessions: self.shared.sessions.count(),
            retained: self.shared.retained.count(),
            accepted: counters.accepted.load(Ordering::Relaxed),
            received: counters.received.load(Ordering::Relaxed),
            refused: counters.refused.load(Ordering::Relaxed),
            delivered: counters.delivered.load(Ordering::Relaxed),
            dropped: counters.dropped.load(Ordering::Relaxed),
        }
    }

    /// The sessions that a client is connected to, at most [`Limits::max_sessions`], in no order.
    ///
    /// Costs a look at each session while no client can connect: some milliseconds for 10,000.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionInfo> {
        self.shared.sessions.connected()
    }

    /// Serves an MQTT client over any stream, as if it had come through a port: one that another
    /// process or a simulation carries. Must be called in a tokio runtime; once the broker stops,
    /// the stream is closed.
    ///
    /// Whoever calls vouches that `principal` is at the other end: nothing here checks it.
    /// `peer` is what limits per address and events go by.
    pub fn attach<S>(&self, stream: S, peer: SocketAddr, principal: Arc<Principal>, access: Access)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let link = Either::Right(Box::new(stream) as Box<_>);
        receive(&self.shared, link, peer, Proof::Vouched(principal), access);
    }

    /// Takes this TLS configuration for handshakes from now on. Established connections stay,
    /// save those whose CONNECT is still to come: they are told to try again.
    ///
    /// The configuration must be a new one with its own session store and ticketer; else a
    /// revoked client could resume a session of the old one. To shut an identity out, reload
    /// first and then [`disconnect`](Self::disconnect)
    /// or [`disconnect_revoked`](Self::disconnect_revoked).
    pub fn reload_tls(&self, config: Arc<ServerConfig>) {
        self.shared.replace_tls(config);
    }

    /// Closes every connection of an identity, and forgets its sessions and wills. Each closed
    /// connection is reported as an event with this reason.
    pub fn disconnect(&self, id: &DeviceId, reason: Reason) {
        self.shared.sessions.shut_out(
            id,
            Order::Close {
                reason,
                keep_session: false,
            },
        );
    }

    /// Closes every connection whose certificate's serial number (big-endian without leading
    /// zeros) is revoked, with an event `session_closed_revoked` for each. Their sessions are
    /// kept: a device may come back with a newer certificate.
    ///
    /// The question is kept until the next call, and asked again after each TLS handshake, resumed
    /// or not, and before a delayed will is published.
    pub fn disconnect_revoked(&self, is_revoked: impl Fn(&[u8]) -> bool + Send + Sync + 'static) {
        let is_revoked: Arc<IsRevoked> = Arc::new(is_revoked);
        // First kept, then the table: whoever comes between the two is found by one of them.
        self.shared.replace_revoked(Arc::clone(&is_revoked));
        let order = Order::Close {
            reason: Reason::SessionClosedRevoked,
            keep_session: true,
        };
        self.shared.sessions.shut_out_serials(&*is_revoked, order);
    }

    /// Publishes with QoS 1, past access control and gate; returns how many clients it was queued for.
    ///
    /// # Errors
    /// When `topic` is not a topic name.
    pub fn publish(&self, topic: &str, payload: Bytes) -> Result<u64, BrokerError> {
        self.shared
            .publish_inside(ByteString::from(topic), payload)
            .map(|routed| routed.queued)
            .ok_or_else(|| BrokerError::TopicName(topic.to_owned()))
    }
}
