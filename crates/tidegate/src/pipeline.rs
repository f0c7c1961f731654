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
mod judge;
mod memory;

use crate::clock;
use crate::level::Level;
use anyhow::{Context, Result};
use bytes::Bytes;
use std::collections::HashSet;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tidegate_broker::{Disposition, Gate, Incoming, Reply, SecurityEvent};
use tidegate_detect::detector::Detector;
use tidegate_envelope::cose_v1::DETACHED_PROPERTY;
use tidegate_envelope::principal::Principal;
use tidegate_serve::hub::Hub;
use tidegate_store::writer::Store;
use tidegate_verify::delivery::{Delivery, SessionId};
use tidegate_verify::guard::ReplayGuard;
use tidegate_verify::registry::Registry;
use tidegate_verify::stage::Unverified;
use tidegate_verify::verifier::Verifier;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use describe::Origin;
pub(crate) use describe::{enrollment, notice, origin_denied};
use gate::{Candidate, Released};
pub(crate) use journal::Journal;
pub(crate) use judge::AdoptError;
use judge::Bench;
pub(crate) use memory::Memory;

/// Verified messages that wait for the replay guard, some tenths of a second's worth; beyond it,
/// messages are not accepted, and their senders told to send again.
const GATE_QUEUE: usize = 16_384;
/// Durable messages that wait for detection; beyond it, commits wait.
const RELEASED_QUEUE: usize = 4_096;
/// How often detection looks who is silent.
const TICK_EVERY: Duration = Duration::from_secs(1);

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
    /// What the detector keeps over restarts.
    pub(crate) memory: Option<Memory>,
    /// What people see.
    pub(crate) hub: Hub,
}

/// The way into the pipeline, shared by all connections.
#[derive(Clone)]
pub(crate) struct Pipeline {
    bench: Bench,
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
    /// Whether the connection resumed that session.
    pub(crate) resumed: bool,
    /// The signature beside the payload, where there is one.
    pub(crate) detached: Option<&'a str>,
    /// Who sent it, for people: client id and address.
    pub(crate) source: String,
}

/// Starts the threads and joins the channels. To be called within a runtime, which tells the time.
pub(crate) fn start(parts: Parts) -> Result<(Pipeline, Threads)> {
    let (gate_sender, candidates) = mpsc::channel(GATE_QUEUE);
    let (released_sender, released) = mpsc::channel(RELEASED_QUEUE);
    let journal = Journal::new(parts.hub, parts.store.recorder(), &gate_sender);
    tokio::spawn(tick(released_sender.downgrade()));

    let gate = gate::Gate {
        guard: parts.guard,
        store: parts.store,
        candidates,
        released: released_sender,
        journal: journal.clone(),
        registry: Arc::clone(&parts.registry),
        registered: None,
        outage: None,
        fence: None,
    };
    let detect = detect::Detect {
        detector: parts.detector,
        memory: parts.memory,
        silent: HashSet::new(),
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
        bench: Bench::new(parts.registry, parts.verifier),
        gate: gate_sender,
        journal,
    };
    Ok((pipeline, threads))
}

/// Tells detection of the time, as long as the gate thread runs.
async fn tick(detection: mpsc::WeakSender<Released>) {
    let mut ticks = tokio::time::interval(TICK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(detection) = detection.upgrade() else {
            return;
        };
        // A full channel is full of readings, and the next tick will do.
        drop(detection.try_send(Released::Tick));
    }
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
        match self.take(arrival) {
            Ok(fate) => fate.await.unwrap_or(Disposition::Unavailable),
            Err(answer) => answer,
        }
    }

    /// Verifies a message and hands it to the gate thread, both by the one registry in use.
    ///
    /// Nothing waits here: the calls of one connection overlap, and any wait before the channel
    /// could let a later message of a device overtake an earlier one.
    fn take(&self, arrival: Arrival<'_>) -> Result<oneshot::Receiver<Disposition>, Disposition> {
        let judge = self.bench.judge();
        if judge.registry.topics().is_command(arrival.topic) {
            return Err(Disposition::Deliver);
        }
        let now = clock::now();
        let delivery = Delivery {
            topic: arrival.topic,
            payload: &arrival.payload,
            retained: arrival.retained,
            principal: arrival.principal,
            session: SessionId(arrival.session),
            resumed: arrival.resumed,
            detached: arrival.detached,
        };
        let answers = judge.verifier.answers(Unverified::new(delivery), now);
        let verified = match answers {
            Some(Ok(answers)) => return Err(reply(&judge.registry, arrival.topic, answers)),
            Some(Err(refusal)) => Err(refusal),
            None => judge.verifier.verify(Unverified::new(delivery), now),
        };
        let origin = Origin {
            topic: arrival.topic.into(),
            source: arrival.source,
            payload: arrival.payload,
            redelivered: *arrival.principal == Principal::Broker,
        };
        match verified {
            Ok(message) => {
                let (answer, fate) = oneshot::channel();
                let candidate = Candidate::Message {
                    message,
                    origin,
                    answer,
                };
                let sent = self.gate.try_send(candidate);
                sent.map(|()| fate).map_err(|_| Disposition::Unavailable)
            }
            Err(refusal) => {
                let event = describe::refused(&judge.registry, &refusal, &origin, now);
                drop(judge);
                self.journal.publish(event);
                Err(Disposition::Refused(refusal.reason))
            }
        }
    }

    /// The journal, for events that are not about one message.
    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }
}

/// The answers to a question for the time, on the command topic of who asked.
fn reply(registry: &Registry, topic: &str, answers: Vec<Vec<u8>>) -> Disposition {
    let topics = registry.topics();
    let asker = topics.time_segment(topic).unwrap_or_default();
    Disposition::Reply(Reply {
        topic: topics.command(asker).into(),
        payloads: answers.into_iter().map(Bytes::from).collect(),
    })
}

impl Gate for Pipeline {
    async fn admit(&self, publish: Incoming) -> Disposition {
        let arrival = Arrival {
            topic: &publish.topic,
            payload: publish.payload,
            retained: publish.retain,
            principal: &publish.principal,
            session: publish.session,
            resumed: publish.resumed,
            detached: publish
                .user_properties
                .iter()
                .find(|(name, _)| name == DETACHED_PROPERTY)
                .map(|(_, value)| &**value),
            source: match publish.peer {
                Some(peer) => format!("{} at {peer}", publish.client_id),
                None => "broker".to_owned(),
            },
        };
        Self::admit(self, arrival).await
    }

    fn observe(&self, event: SecurityEvent) {
        let event = describe::security(&self.bench.judge().registry, &event, clock::now());
        self.journal.publish(event);
    }
}
