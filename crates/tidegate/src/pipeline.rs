//! The pipeline: every stage and every channel between them, in the order a message travels.
//!
//! ```text
//! broker or subscriber ── admit() ──▶ verify (in the connection's task: checks 1 to 8)
//!        ▲                               │ refused: journal
//!        │ answer                        ▼ gate channel, GATE_QUEUE
//!        └─────────────────────────── gate thread: replay guard and commit, in groups
//!                                        │ fresh and durable
//!                                        ▼ released channel, RELEASED_QUEUE
//!                                     detect thread: rules and forest
//!                                        │ every event
//!                                        ▼
//!                                     journal: live to the hub, and to the gate thread to be kept
//! ```
//!
//! Every channel is bounded. A full released channel slows commits down; a full gate channel refuses
//! messages as not durable, which MQTT's flow control makes rare: a client has at most 256 of them
//! on their way. Only rows about refused messages are left out of the
//! database when there are too many, and counted, so that an attacker cannot slow anybody.

mod describe;
mod detect;
mod gate;
mod journal;

use crate::clock;
use crate::level::Level;
use anyhow::{Context, Result};
use bytes::Bytes;
use std::sync::Arc;
use std::thread::JoinHandle;
use tidegate_broker::{Disposition, Gate, Incoming, SecurityEvent};
use tidegate_detect::detector::Detector;
use tidegate_envelope::principal::Principal;
use tidegate_serve::hub::Hub;
use tidegate_store::writer::Store;
use tidegate_verify::delivery::{Delivery, SessionId};
use tidegate_verify::guard::ReplayGuard;
use tidegate_verify::registry::Registry;
use tidegate_verify::stage::Unverified;
use tidegate_verify::verifier::Verifier;
use tokio::sync::{mpsc, oneshot};

use describe::Origin;
pub(crate) use describe::origin_denied;
use gate::Candidate;
pub(crate) use journal::Journal;

/// Verified messages that wait for the replay guard, some tenths of a second's worth; beyond it,
/// messages are not accepted, and their senders told to send again.
const GATE_QUEUE: usize = 16_384;
/// Durable messages that wait for detection; beyond it, commits wait.
const RELEASED_QUEUE: usize = 4_096;

/// What the pipeline is made of.
pub(crate) struct Parts {
    /// How much protection is on.
    pub(crate) level: Level,
    /// Whether attacks are part of the show, and may be told by their client ids.
    pub(crate) demo: bool,
    /// Who may speak.
    pub(crate) registry: Arc<Registry>,
    /// Checks 1 to 8.
    pub(crate) verifier: Verifier,
    /// Checks 9 to 13.
    pub(crate) guard: ReplayGuard,
    /// Check 14.
    pub(crate) store: Store,
    /// Rules and forest, from level `ai` on.
    pub(crate) detector: Option<Detector>,
    /// What people see.
    pub(crate) hub: Hub,
}

/// The way into the pipeline, shared by all connections.
#[derive(Clone)]
pub(crate) struct Pipeline {
    registry: Arc<Registry>,
    verifier: Arc<Verifier>,
    gate: mpsc::Sender<Candidate>,
    journal: Journal,
}

/// The threads behind the pipeline.
pub(crate) struct Threads {
    gate: JoinHandle<Store>,
    detect: JoinHandle<()>,
}

/// A message as its connection received it.
pub(crate) struct Arrival<'a> {
    pub(crate) topic: &'a str,
    pub(crate) payload: Bytes,
    pub(crate) retained: bool,
    pub(crate) principal: &'a Principal,
    pub(crate) session: u64,
    /// Who sent it, for people: client id and address.
    pub(crate) source: String,
}

/// Starts the threads and joins the channels.
pub(crate) fn start(parts: Parts) -> Result<(Pipeline, Threads)> {
    let (gate_sender, candidates) = mpsc::channel(GATE_QUEUE);
    let (released_sender, released) = mpsc::channel(RELEASED_QUEUE);
    let journal = Journal::new(parts.hub, parts.store.recorder(), &gate_sender);

    let gate = gate::Gate {
        guard: parts.guard,
        store: parts.store,
        candidates,
        released: released_sender,
        journal: journal.clone(),
        registry: Arc::clone(&parts.registry),
    };
    let detect = detect::Detect {
        detector: parts.detector,
        released,
        journal: journal.clone(),
        registry: Arc::clone(&parts.registry),
        protected: parts.level.has_signatures(),
        demo: parts.demo,
    };
    let spawn = |name: &str| std::thread::Builder::new().name(name.into());
    let threads = Threads {
        gate: spawn("gate")
            .spawn(move || gate.run())
            .context("cannot start the gate thread")?,
        detect: spawn("detect")
            .spawn(move || detect.run())
            .context("cannot start the detect thread")?,
    };
    let pipeline = Pipeline {
        registry: parts.registry,
        verifier: Arc::new(parts.verifier),
        gate: gate_sender,
        journal,
    };
    Ok((pipeline, threads))
}

impl Threads {
    /// Waits until everything that was taken in is durable and shown; gives the store back.
    ///
    /// The last [`Pipeline`] must be gone, or this waits for it.
    pub(crate) fn finish(self) -> Option<Store> {
        let store = self.gate.join().ok();
        // The gate's end of the released channel is gone, so detection drains it and ends.
        drop(self.detect.join());
        store
    }
}

impl Pipeline {
    /// One message's way in: answers when its fate is durable.
    pub(crate) async fn admit(&self, arrival: Arrival<'_>) -> Disposition {
        if self.registry.topics().is_command(arrival.topic) {
            return Disposition::Deliver;
        }
        let now = clock::now();
        let delivery = Delivery {
            topic: arrival.topic,
            payload: &arrival.payload,
            retained: arrival.retained,
            principal: arrival.principal,
            session: SessionId(arrival.session),
        };
        let verified = self.verifier.verify(Unverified::new(delivery), now);
        let origin = Origin {
            topic: arrival.topic.into(),
            source: arrival.source,
            payload: arrival.payload,
        };
        let message = match verified {
            Ok(message) => message,
            Err(refusal) => {
                let reason = refusal.reason;
                self.journal
                    .publish(describe::refused(&self.registry, &refusal, &origin, now));
                return Disposition::Refused(reason);
            }
        };
        let (answer, fate) = oneshot::channel();
        // Nothing above waits, and neither does this: the calls of one connection overlap, and any
        // wait before the channel could let a later message of a device overtake an earlier one.
        let candidate = Candidate::Message {
            message,
            origin,
            answer,
        };
        if self.gate.try_send(candidate).is_err() {
            return Disposition::Unavailable;
        }
        fate.await.unwrap_or(Disposition::Unavailable)
    }

    /// The journal, for events that are not about one message.
    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }
}

impl Gate for Pipeline {
    async fn admit(&self, publish: Incoming) -> Disposition {
        let arrival = Arrival {
            topic: &publish.topic,
            payload: publish.payload,
            retained: publish.retain,
            principal: &publish.principal,
            session: publish.session,
            source: format!("{} at {}", publish.client_id, publish.peer),
        };
        Self::admit(self, arrival).await
    }

    fn observe(&self, event: SecurityEvent) {
        self.journal
            .publish(describe::security(&self.registry, &event, clock::now()));
    }
}
