//! The real verifier and replay guard behind the gate, with group commit on a simulated disk.

use super::clock::{Clock, elapsed};
use super::disk::Disk;
use super::ledger::{Captured, Key, Ledger, key_of};
use super::plan::{Plan, Sabotage};
use anyhow::Result;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tidegate_broker::{Disposition, Gate, Incoming, SecurityEvent};
use tidegate_envelope::cose_v1::DETACHED_PROPERTY;
use tidegate_envelope::reason::Reason;
use tidegate_envelope::time::Timestamp;
use tidegate_verify::delivery::{Delivery, SessionId};
use tidegate_verify::guard::{GuardPolicy, Outcome, ReplayGuard};
use tidegate_verify::log::ReplayLog;
use tidegate_verify::registry::Registry;
use tidegate_verify::stage::{Unverified, Verified};
use tidegate_verify::verifier::{Message, Protection, Verifier};
use tokio::sync::{mpsc, oneshot};

/// Messages in one group at most.
const GROUP: usize = 64;
/// Messages that wait for the guard.
const QUEUE: usize = 1_024;
/// Longest payload.
const MAX_PAYLOAD_BYTES: usize = 65_536;

/// A ledger that several hosts write into.
pub(super) type SharedLedger = Arc<Mutex<Ledger>>;

/// Locks the ledger.
pub(super) fn open(ledger: &SharedLedger) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps what comes to a broker, so that an attacker can send it again.
pub(super) fn capture(ledger: &SharedLedger, publish: &Incoming) {
    let text = |(name, value): &(_, _)| (ToString::to_string(name), ToString::to_string(value));
    open(ledger).captured(Captured {
        topic: publish.topic.to_string(),
        payload: publish.payload.clone(),
        properties: publish.user_properties.iter().map(text).collect(),
    });
}

/// The gate of one run of the gateway's process.
pub(super) struct ReplayGate {
    registry: Arc<Registry>,
    verifier: Verifier,
    candidates: mpsc::Sender<Candidate>,
    clock: Clock,
    ledger: SharedLedger,
}

/// A verified message whose sender waits.
struct Candidate {
    message: Verified<Message>,
    answer: oneshot::Sender<Disposition>,
}

/// What decides, one message after the other.
struct Decide {
    guard: ReplayGuard,
    disk: Disk,
    clock: Clock,
    ledger: SharedLedger,
    random: StdRng,
    plan: Plan,
    /// The gateway's own time never falls below this; as the guard's, kept apart from it.
    floor: Option<Timestamp>,
}

/// Who waits for the group.
#[derive(Default)]
struct Group {
    admitted: Vec<(Option<Key>, Message, oneshot::Sender<Disposition>)>,
    duplicates: Vec<oneshot::Sender<Disposition>>,
}

impl ReplayGate {
    /// Starts from what is on the disk.
    pub(super) fn start(
        plan: &Plan,
        registry: &Arc<Registry>,
        mut disk: Disk,
        clock: &Clock,
        ledger: &SharedLedger,
    ) -> Result<Arc<Self>> {
        let at = elapsed();
        open(ledger).gateway_started(at);
        let loaded = disk.load()?;
        let mut policy = GuardPolicy::default();
        if plan.sabotage == Some(Sabotage::IgnoreAge) {
            policy.window = Duration::from_secs(3_600);
        }
        let guard = ReplayGuard::new(registry, policy, loaded, clock.now());
        let mut verifier = Verifier::new(Arc::clone(registry), Protection::Signed, MAX_PAYLOAD_BYTES);
        if !plan.certificates {
            verifier = verifier.dangerous_allow_anonymous();
        }
        let (candidates, waiting) = mpsc::channel(QUEUE);
        let decide = Decide {
            guard,
            floor: disk.floor(),
            disk,
            clock: clock.clone(),
            ledger: Arc::clone(ledger),
            random: StdRng::seed_from_u64(plan.seed ^ u64::try_from(at.as_millis()).unwrap_or(0)),
            plan: plan.clone(),
        };
        tokio::spawn(decide.run(waiting));
        Ok(Arc::new(Self {
            registry: Arc::clone(registry),
            verifier,
            candidates,
            clock: clock.clone(),
            ledger: Arc::clone(ledger),
        }))
    }
}

impl Gate for ReplayGate {
    async fn admit(&self, publish: Incoming) -> Disposition {
        capture(&self.ledger, &publish);
        if self.registry.topics().is_command(&publish.topic) {
            return Disposition::Deliver;
        }
        let delivery = Delivery {
            topic: &publish.topic,
            payload: &publish.payload,
            retained: publish.retain,
            principal: &publish.principal,
            session: SessionId(publish.session),
            resumed: publish.resumed,
            detached: publish
                .user_properties
                .iter()
                .find(|(name, _)| name == DETACHED_PROPERTY)
                .map(|(_, value)| &**value),
        };
        let message = match self.verifier.verify(Unverified::new(delivery), self.clock.now()) {
            Ok(message) => message,
            Err(refusal) => {
                open(&self.ledger).refused(None, refusal.reason, elapsed());
                return Disposition::Refused(refusal.reason);
            }
        };
        let (answer, fate) = oneshot::channel();
        if self.candidates.try_send(Candidate { message, answer }).is_err() {
            return Disposition::Unavailable;
        }
        fate.await.unwrap_or(Disposition::Unavailable)
    }

    fn observe(&self, event: SecurityEvent) {
        observe(&self.ledger, &event);
    }
}

/// Counts what the broker refused by itself.
pub(super) fn observe(ledger: &SharedLedger, event: &SecurityEvent) {
    let mut ledger = open(ledger);
    ledger.note(elapsed(), "event", &event.reason);
    ledger.count(format!("broker's events: {}", event.reason));
}

impl Decide {
    async fn run(mut self, mut waiting: mpsc::Receiver<Candidate>) {
        while let Some(first) = waiting.recv().await {
            let mut group = Group::default();
            self.take(first, &mut group);
            while group.admitted.len() < GROUP {
                match waiting.try_recv() {
                    Ok(candidate) => self.take(candidate, &mut group),
                    Err(_) => break,
                }
            }
            self.close(group).await;
        }
    }

    fn take(&mut self, Candidate { message, answer }: Candidate, group: &mut Group) {
        let (at, now) = (elapsed(), self.clock.now());
        let seen = message.get().clone();
        let key = key_of(&seen);
        let mut ledger = open(&self.ledger);
        if self.plan.sabotage == Some(Sabotage::DropSome)
            && key.is_some_and(|(_, _, sequence)| sequence % 100 == 7)
        {
            let _ = answer.send(Disposition::Deliver);
            return;
        }
        match self.guard.admit(message, now) {
            Outcome::Admitted => {
                let now = self.floor.map_or(now, |floor| floor.max(now));
                self.floor = Some(now);
                if let Some(key) = key {
                    ledger.admitted(key, &seen, now, at);
                }
                group.admitted.push((key, seen, answer));
            }
            Outcome::Duplicate => {
                if let Some(key) = key {
                    ledger.duplicate(key, at);
                }
                group.duplicates.push(answer);
            }
            Outcome::Refused(refusal) => {
                ledger.refused(key, refusal.reason, at);
                // The sender may be gone; its message is refused all the same.
                let _ = answer.send(Disposition::Refused(refusal.reason));
            }
        }
    }

    /// Writes, waits for the disk, and answers.
    async fn close(&mut self, mut group: Group) {
        let early = self.plan.sabotage == Some(Sabotage::AcknowledgeEarly);
        match self.guard.commit(&mut self.disk) {
            Ok(_) => {
                if early {
                    self.answer(&mut group);
                }
                tokio::time::sleep(self.sync_takes()).await;
                self.disk.sync();
                let at = elapsed();
                for (key, message, _) in &mut group.admitted {
                    if let Some(key) = *key {
                        self.note_durable(key, message, at);
                    }
                }
                // The process may die between sync and answer, too.
                if self.random.random_bool(0.3) {
                    tokio::time::sleep(self.sync_takes()).await;
                }
                self.answer(&mut group);
            }
            Err(failed) => {
                self.floor = self.disk.floor();
                let at = elapsed();
                let mut ledger = open(&self.ledger);
                ledger.note(at, "commit", &failed.refused);
                for (key, _, answer) in group.admitted.drain(..) {
                    ledger.refused(key, Reason::StorageUnavailable, at);
                    let _ = answer.send(Disposition::Unavailable);
                }
                for answer in group.duplicates.drain(..) {
                    let _ = answer.send(Disposition::Unavailable);
                }
            }
        }
    }

    fn note_durable(&self, key: Key, message: &mut Message, at: Duration) {
        if self.plan.sabotage == Some(Sabotage::ChangeSome) && key.2 % 100 == 7 {
            message.reading.timestamp = message
                .reading
                .timestamp
                .map(|at| at.plus(Duration::from_secs(1)));
        }
        open(&self.ledger).durable(key, message, at);
    }

    fn answer(&self, group: &mut Group) {
        for (_, _, answer) in &mut group.admitted {
            let (nobody, _) = oneshot::channel();
            let _ = std::mem::replace(answer, nobody).send(Disposition::Deliver);
        }
        for answer in group.duplicates.drain(..) {
            let _ = answer.send(Disposition::Refused(Reason::Duplicate));
        }
    }

    fn sync_takes(&mut self) -> Duration {
        let slowest = u64::try_from(self.plan.slowest_sync.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.random.random_range(1_000..=slowest.max(1_001)))
    }
}
