//! What all connections of a broker share.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use bytestring::ByteString;
use rmqtt_codec::types::{Publish, QoS};
use rustls::ServerConfig;
use tidegate_envelope::principal::Principal;
use tidegate_envelope::reason::Reason;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Limits;
use crate::events::Reporter;
use crate::filter::is_topic_name;
use crate::gate::{Disposition, Incoming, Reply, SecurityEvent, SharedGate};
use crate::limits::Places;
use crate::message::{Message, user_properties};
use crate::rates::Rates;
use crate::retained::Retained;
use crate::router::{RouteMemory, Routed, Router};
use crate::session::{About, LateWill, Session, stable_id};
use crate::sessions::Sessions;
use crate::turn;

/// What the broker publishes by itself comes from this session; no client has it.
const INSIDE: u64 = 0;

/// The state of a broker.
pub(crate) struct Shared {
    pub(crate) gate: Arc<dyn SharedGate>,
    pub(crate) limits: Limits,
    pub(crate) places: Arc<Places>,
    pub(crate) router: Arc<Router>,
    pub(crate) retained: Retained,
    pub(crate) sessions: Sessions,
    pub(crate) rates: Rates,
    /// What a handshake needs to compute.
    pub(crate) handshakes: Arc<Semaphore>,
    pub(crate) counters: Counters,
    pub(crate) course: Course,
    reporter: Reporter,
    tls: RwLock<TlsSlot>,
    revoked: RwLock<Arc<IsRevoked>>,
}

/// Whether the certificate with this serial number is revoked.
pub(crate) type IsRevoked = dyn Fn(&[u8]) -> bool + Send + Sync;

/// How far the broker has come, and the connections that it waits for at its end.
#[derive(Debug, Default)]
pub(crate) struct Course {
    pub(crate) tasks: TaskTracker,
    /// No CONNECT is taken any more.
    pub(crate) stop: CancellationToken,
    /// Connections that are left end at once.
    pub(crate) end: CancellationToken,
}

/// Totals since the start. Each is only ever added to, so no order between them is needed.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) accepted: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) delivered: AtomicU64,
    pub(crate) dropped: AtomicU64,
}

/// Adds to a counter.
pub(crate) fn count(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

/// The TLS configuration of new connections, and which one in turn it is.
#[derive(Clone)]
pub(crate) struct TlsSlot {
    pub(crate) config: Option<Arc<ServerConfig>>,
    pub(crate) generation: u64,
}

/// Whom an event is about.
#[derive(Debug, Clone)]
pub(crate) struct Who {
    pub(crate) peer: SocketAddr,
    pub(crate) principal: Option<Arc<Principal>>,
    pub(crate) client_id: Option<ByteString>,
}

impl Shared {
    pub(crate) fn new(gate: Arc<dyn SharedGate>, limits: Limits, tls: Option<Arc<ServerConfig>>) -> Self {
        let router = Arc::new(Router::default());
        Self {
            places: Arc::new(Places::new(
                limits.max_connections,
                limits.max_connections_per_address,
            )),
            retained: Retained::new(limits.max_retained_messages, limits.max_retained_bytes),
            sessions: Sessions::new(&limits, Arc::clone(&router)),
            counters: Counters::default(),
            course: Course::default(),
            reporter: Reporter::new(Arc::clone(&gate)),
            tls: RwLock::new(TlsSlot {
                config: tls,
                generation: 0,
            }),
            revoked: RwLock::new(Arc::new(|_| false)),
            handshakes: turn::turns(),
            rates: Rates::new(
                limits.connects_per_second_per_principal,
                limits.connect_burst_per_principal,
            ),
            router,
            limits,
            gate,
        }
    }

    pub(crate) fn report(
        &self,
        reason: Reason,
        who: &Who,
        topic: Option<&ByteString>,
        detail: impl Into<String>,
    ) {
        self.reporter.report(SecurityEvent {
            reason,
            principal: who.principal.as_deref().cloned(),
            client_id: who.client_id.clone(),
            peer: who.peer,
            topic: topic.cloned(),
            detail: detail.into(),
            left_out: 0,
        });
    }

    pub(crate) fn summarize_events(&self) {
        self.reporter.summarize();
    }

    pub(crate) fn tls(&self) -> TlsSlot {
        self.tls.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn replace_tls(&self, config: Arc<ServerConfig>) {
        let mut slot = self.tls.write().unwrap_or_else(PoisonError::into_inner);
        slot.config = Some(config);
        slot.generation += 1;
    }

    /// Whether a connection's certificate is revoked, as far as this broker was told.
    pub(crate) fn is_revoked(&self, about: &About) -> bool {
        let is_revoked = Arc::clone(&self.revoked.read().unwrap_or_else(PoisonError::into_inner));
        !about.serial.is_empty() && is_revoked(&about.serial)
    }

    pub(crate) fn replace_revoked(&self, is_revoked: Arc<IsRevoked>) {
        *self.revoked.write().unwrap_or_else(PoisonError::into_inner) = is_revoked;
    }

    /// Gives a publish that the gate let through to its subscribers, and keeps it if it is to be retained.
    pub(crate) fn distribute(&self, memory: &mut RouteMemory, publish: &Publish, sender: u64) -> Routed {
        let message = || Arc::new(Message::new(publish, sender));
        let retained = publish.retain.then(message);
        let stored = retained
            .as_ref()
            .is_none_or(|message| self.retained.store(message));
        let routed = self
            .router
            .route(memory, &publish.topic, || retained.unwrap_or_else(message));
        if routed.queued > 0 {
            count(&self.counters.delivered, routed.queued);
        }
        if routed.dropped > 0 || !stored {
            count(&self.counters.dropped, routed.dropped + u64::from(!stored));
        }
        routed
    }

    /// Publishes with QoS 1, past access control and gate; `None` when `topic` is no topic name.
    pub(crate) fn publish_inside(&self, topic: ByteString, payload: Bytes) -> Option<Routed> {
        is_topic_name(&topic).then(|| {
            let publish = Publish {
                dup: false,
                retain: false,
                qos: QoS::AtLeastOnce,
                topic,
                packet_id: None,
                payload,
                properties: None,
            };
            self.distribute(&mut RouteMemory::default(), &publish, INSIDE)
        })
    }

    /// Publishes an answer of the gate's.
    pub(crate) fn answer(&self, Reply { topic, payloads }: Reply) {
        for payload in payloads {
            if self.publish_inside(topic.clone(), payload).is_none() {
                tracing::error!(topic = &*topic, "the gate answers to what is no topic name");
            }
        }
    }

    /// Publishes the will of a session, if the gate lets it through. The will of a certificate that
    /// was revoked since is dropped: it would be the publish of a revoked client.
    pub(crate) async fn publish_will(&self, session: &Session, LateWill { will, leash }: LateWill) {
        let publish = will.publish;
        if self.is_revoked(&leash.about) {
            let who = Who {
                peer: leash.about.peer,
                principal: Some(Arc::clone(&session.principal)),
                client_id: Some(session.client_id.clone()),
            };
            let detail = "a will whose certificate was revoked before it was due";
            self.report(Reason::TlsRevoked, &who, Some(&publish.topic), detail);
            count(&self.counters.refused, 1);
            return;
        }
        let admission = Arc::clone(&self.gate).admit(Incoming {
            topic: publish.topic.clone(),
            payload: publish.payload.clone(),
            retain: publish.retain,
            dup: false,
            qos: publish.qos.value(),
            principal: Arc::clone(&session.principal),
            session: stable_id(&session.principal, &session.client_id),
            resumed: false,
            user_properties: user_properties(&publish),
            client_id: session.client_id.clone(),
            peer: Some(leash.about.peer),
        });
        match tokio::time::timeout(self.limits.drain_within, admission).await {
            Ok(Disposition::Deliver) => {
                self.distribute(&mut RouteMemory::default(), &publish, session.key);
            }
            // Whoever left the question is not there to read the answer.
            Ok(Disposition::Refused(_) | Disposition::Reply(_)) => count(&self.counters.refused, 1),
            Ok(Disposition::Unavailable) | Err(_) => count(&self.counters.dropped, 1),
        }
    }
}
