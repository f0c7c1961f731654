//! The gate thread: replay guard and commit, in groups.
//!
//! One thread, because the guard's decision, the write and the release of a device's messages
//! must keep their order, and because one disk syncs one group at a time anyway. While a group
//! is being synced the next one gathers; so a quiet system pays one sync a message, and a busy
//! one shares it.

use super::Journal;
use super::describe::{self, Origin};
use crate::clock;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_broker::Disposition;
use tidegate_envelope::id::{DeviceId, DeviceIndex};
use tidegate_envelope::reason::Reason;
use tidegate_envelope::time::Timestamp;
use tidegate_store::error::StoreError;
use tidegate_store::writer::Store;
use tidegate_verify::guard::{Admission, Outcome, ReplayGuard};
use tidegate_verify::log::{Loaded, ReplayLog};
use tidegate_verify::registry::Registry;
use tidegate_verify::stage::{Fresh, Verified};
use tidegate_verify::verdict::Refusal;
use tidegate_verify::verifier::Message;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};

/// Messages in one transaction at most (VERIFY: one transaction).
const GROUP: usize = 512;
/// Messages looked at for one group at most: a flood of replays must not keep it from its commit.
const LOOKED_AT: usize = 4 * GROUP;
/// Messages whose devices' states are asked for together, before the first is decided.
const TOGETHER: usize = 64;
/// While the database refuses to write, the channel is looked at this often.
const GLANCE: Duration = Duration::from_millis(10);
/// After so many glances without a message, 200 ms, the database is tried all the same.
const GLANCES: u32 = 20;
/// Events that could be written end an outage only when no message has failed for so long: on a
/// disk that is nearly full, the few bytes of an event fit where messages do not. Longer than any
/// sender waits before it tries again.
const QUIET: Duration = Duration::from_millis(800);
/// After a failed commit, nothing is accepted for so long: it was on its way before its sender knew
/// of the failure. Accepting it would put it before what failed, and that would be out of order for
/// ever when it comes again. Shorter than the pause of any sender before it sends again.
const FENCE: Duration = Duration::from_millis(50);
/// While the database refuses to write, one event tells of all messages in so much time.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// What comes through the gate's channel.
#[expect(
    clippy::large_enum_variant,
    reason = "messages are the rule and wake-ups the exception"
)]
pub(super) enum Candidate {
    /// A verified message whose sender waits for an answer.
    Message {
        message: Verified<Message>,
        origin: Origin,
        answer: oneshot::Sender<Disposition>,
    },
    /// There are records to write.
    Wake,
    /// The registry is about to grow: `devices` are all of it. Says why the database does not take them.
    Register {
        devices: Vec<DeviceId>,
        answer: oneshot::Sender<Result<(), String>>,
    },
    /// Whatever comes from here on was verified by this registry.
    Adopt(Arc<Registry>),
}

impl Candidate {
    fn device(&self) -> Option<DeviceIndex> {
        match self {
            Self::Message { message, .. } => message.get().device,
            Self::Wake | Self::Register { .. } | Self::Adopt(_) => None,
        }
    }
}

/// What is on its way to detection.
#[expect(
    clippy::large_enum_variant,
    reason = "messages are the rule and registries the exception"
)]
pub(super) enum Released {
    /// A fresh and durable message.
    Message {
        admission: Fresh<Admission>,
        origin: Origin,
    },
    /// What follows may be of a device that only this registry knows.
    Registry(Arc<Registry>),
    /// A second has passed.
    Tick,
}

pub(super) struct Gate {
    pub(super) guard: ReplayGuard,
    pub(super) store: Store,
    pub(super) candidates: mpsc::Receiver<Candidate>,
    pub(super) released: mpsc::Sender<Released>,
    pub(super) journal: Journal,
    pub(super) registry: Arc<Registry>,
    /// States of devices that the next registry adds, once they are registered.
    pub(super) registered: Option<Loaded>,
    /// There is one while the database refuses to write.
    pub(super) outage: Option<Outage>,
    /// Set by a failed commit, for [`FENCE`].
    pub(super) fence: Option<Instant>,
}

/// A time in which the database could not be written.
pub(super) struct Outage {
    since: Timestamp,
    /// Messages that were not accepted since then.
    messages: usize,
    /// Those among them that no event has told of.
    untold: usize,
    told: Timestamp,
    /// When messages could not be written for the last time.
    failed: Option<Instant>,
}

/// Senders that wait for the group's commit.
#[derive(Default)]
struct Group {
    /// In the order of admission.
    admitted: Vec<(Origin, oneshot::Sender<Disposition>)>,
    /// Messages whose fate follows from one in this very group, perhaps: if that does not become
    /// durable, then neither has it been accepted before, nor has a later one.
    held: Vec<Held>,
}

/// A message that is not accepted, if the group is.
enum Held {
    /// A redelivery: acknowledged together with what it repeats.
    Duplicate(oneshot::Sender<Disposition>),
    /// A refusal, and when it was made.
    Refused(Refusal, Timestamp, Origin, oneshot::Sender<Disposition>),
}

impl Gate {
    /// Runs until every sender is gone; then gives the store back.
    pub(super) fn run(mut self) -> Store {
        let mut group = Group::default();
        let mut burst = Vec::with_capacity(TOGETHER);
        while let Some(first) = self.next() {
            burst.push(first);
            let mut looked_at = 0;
            while group.admitted.len() < GROUP && looked_at < LOOKED_AT {
                let room = (GROUP - group.admitted.len()).min(TOGETHER) - burst.len();
                burst.extend(std::iter::from_fn(|| self.candidates.try_recv().ok()).take(room));
                if burst.is_empty() {
                    break;
                }
                looked_at += burst.len();
                self.guard.fetch(burst.iter().filter_map(Candidate::device));
                for candidate in burst.drain(..) {
                    self.take(candidate, &mut group);
                }
            }
            self.close(&mut group);
        }
        self.flush();
        self.store
    }

    /// Waits for the next candidate; during an outage for some glances at most, and then it is a
    /// wake-up: the end of the outage must be seen although nobody sends anything.
    fn next(&mut self) -> Option<Candidate> {
        if self.outage.is_none() {
            return self.candidates.blocking_recv();
        }
        for _ in 0..GLANCES {
            match self.candidates.try_recv() {
                Ok(candidate) => return Some(candidate),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => std::thread::sleep(GLANCE),
            }
        }
        Some(Candidate::Wake)
    }

    fn take(&mut self, candidate: Candidate, group: &mut Group) {
        let (message, origin, answer) = match candidate {
            Candidate::Message {
                message,
                origin,
                answer,
            } => (message, origin, answer),
            Candidate::Wake => return,
            Candidate::Register { devices, answer } => {
                let _ = answer.send(self.register(&devices).map_err(|error| with_causes(&error)));
                return;
            }
            Candidate::Adopt(registry) => return self.adopt(registry),
        };
        // Where nobody waits any more, another broker's connection is gone: the same holds.
        if self.is_fenced() || origin.redelivered && answer.is_closed() {
            let _ = answer.send(Disposition::Unavailable);
            return;
        }
        let now = clock::now();
        match self.guard.admit(message, now) {
            Outcome::Admitted => group.admitted.push((origin, answer)),
            Outcome::Duplicate => group.held.push(Held::Duplicate(answer)),
            Outcome::Refused(refusal) => group.held.push(Held::Refused(refusal, now, origin, answer)),
        }
    }

    fn is_fenced(&mut self) -> bool {
        self.fence = self.fence.filter(|until| Instant::now() < *until);
        self.fence.is_some()
    }

    fn register(&mut self, devices: &[DeviceId]) -> Result<(), StoreError> {
        self.store.register(devices)?;
        self.registered = Some(self.store.load()?);
        Ok(())
    }

    fn adopt(&mut self, registry: Arc<Registry>) {
        let loaded = self.registered.take().unwrap_or_default();
        if let Err(error) = self.guard.adopt(&registry, loaded) {
            // Refused before it came here; the guard then knows fewer devices, and refuses those.
            tracing::error!(%error, "the replay guard did not take the registry");
        }
        self.registry = Arc::clone(&registry);
        // Fails only when detection has ended, which is at shutdown.
        drop(self.released.blocking_send(Released::Registry(registry)));
    }

    fn close(&mut self, group: &mut Group) {
        if group.admitted.is_empty() {
            self.settle_held(group, true);
            self.flush();
            return;
        }
        match self.guard.commit(&mut self.store) {
            Ok(admissions) => {
                self.wrote();
                self.settle_held(group, true);
                for (admission, (origin, answer)) in admissions.into_iter().zip(group.admitted.drain(..)) {
                    let _ = answer.send(Disposition::Deliver);
                    // Fails only when detection has ended, which is at shutdown.
                    drop(
                        self.released
                            .blocking_send(Released::Message { admission, origin }),
                    );
                }
            }
            Err(failed) => {
                self.fence = Some(Instant::now() + FENCE);
                self.settle_held(group, false);
                let origin = group.admitted.first().map(|(origin, _)| origin.clone());
                self.refused_to_write(&failed.error, group.admitted.len(), origin);
                for (_, answer) in group.admitted.drain(..) {
                    let _ = answer.send(Disposition::Unavailable);
                }
            }
        }
    }

    /// Says that nothing is accepted, once at the beginning and then once in a while.
    fn refused_to_write(&mut self, error: &impl Error, messages: usize, origin: Option<Origin>) {
        let now = clock::now();
        let error = with_causes(error);
        if self.outage.is_none() {
            tracing::error!(
                error,
                "the database cannot be written; nothing is accepted until it can"
            );
            self.journal.storage_available(false);
        }
        let outage = self.outage.get_or_insert(Outage {
            since: now,
            messages: 0,
            untold: 0,
            told: now.minus(TELL_EVERY),
            failed: None,
        });
        if messages > 0 {
            outage.failed = Some(Instant::now());
        }
        outage.messages += messages;
        outage.untold += messages;
        if outage.untold > 0 && now.since(outage.told) >= TELL_EVERY {
            let event = describe::storage_unavailable(outage.untold, &error, origin.as_ref(), now);
            outage.untold = 0;
            outage.told = now;
            self.journal.publish(event);
        }
    }

    /// The database was written.
    fn wrote(&mut self) {
        if let Some(outage) = self.outage.take() {
            let now = clock::now();
            let seconds = now.since(outage.since).as_secs_f64();
            tracing::warn!(
                messages = outage.messages,
                seconds,
                "the database can be written again; these messages were not accepted"
            );
            self.journal.storage_available(true);
            self.journal
                .publish(describe::storage_available(outage.messages, seconds, now));
        }
    }

    /// Answers those who are not accepted. A sender may be gone; its message is refused all the same.
    fn settle_held(&self, group: &mut Group, durable: bool) {
        for held in group.held.drain(..) {
            let (answer, disposition) = match held {
                // To be sent again: what it was measured by has been undone.
                Held::Duplicate(answer) | Held::Refused(_, _, _, answer) if !durable => {
                    (answer, Disposition::Unavailable)
                }
                Held::Duplicate(answer) => (answer, Disposition::Refused(Reason::Duplicate)),
                Held::Refused(refusal, at, origin, answer) => {
                    self.journal
                        .publish(describe::refused(&self.registry, &refusal, &origin, at));
                    (answer, Disposition::Refused(refusal.reason))
                }
            };
            let _ = answer.send(disposition);
        }
    }

    /// Writes the events that wait. During an outage there are some: those that tell of it.
    fn flush(&mut self) {
        match self.store.flush() {
            Ok(()) => {
                let failed = self.outage.as_ref().and_then(|outage| outage.failed);
                if failed.is_none_or(|failed| failed.elapsed() >= QUIET) {
                    self.wrote();
                }
            }
            Err(error) => self.refused_to_write(&error, 0, None),
        }
    }
}

/// An error with what caused it, as one line.
fn with_causes(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
