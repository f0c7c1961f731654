//! The replay guard: checks 9 to 15. Was this accepted before, and is it from now?
//!
//! A wrong yes lets an attacker repeat an old reading; a wrong no loses a genuine one. Where the
//! two must be weighed the guard says no, and the device sends a newer reading soon.

mod alike;
mod clock;
mod placing;

use crate::log::{Loaded, ReplayLog};
use crate::registry::{Entry, NotAContinuation, Registry, Window};
use crate::stage::{Fresh, Verified};
use crate::state::DeviceState;
use crate::verdict::{Notice, Refusal};
use crate::verifier::{Message, Protection};
use clock::Clock;
use placing::{Asked, Place, place, redelivery, rise, settle};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;
use tidegate_envelope::id::DeviceIndex;
use tidegate_envelope::reason::Reason;
use tidegate_envelope::time::Timestamp;

/// Most messages that may wait for one commit; further ones are `storage_unavailable`.
pub const MAX_BATCH: usize = 4_096;

/// The guard's limits.
#[derive(Debug, Clone, Copy)]
pub struct GuardPolicy {
    /// Oldest accepted timestamp, before now.
    pub window: Duration,
    /// Newest accepted timestamp, after now.
    pub skew: Duration,
}

impl Default for GuardPolicy {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(30),
            skew: Duration::from_secs(5),
        }
    }
}

impl GuardPolicy {
    /// Check 10: `stale` or `future`, where `timestamp` is not from now. Both ends belong to now.
    pub(crate) fn lateness(&self, timestamp: Timestamp, now: Timestamp) -> Option<Reason> {
        if timestamp < now.minus(self.window) {
            Some(Reason::Stale)
        } else if timestamp > now.plus(self.skew) {
            Some(Reason::Future)
        } else {
            None
        }
    }
}

/// A message that will be accepted once it is durable.
#[derive(Debug, Clone)]
pub struct Admission {
    /// The message.
    pub message: Message,
    /// Its device's state after it; none at the levels that do not check.
    pub state: Option<DeviceState>,
    /// What is worth showing about it.
    pub notices: Vec<Notice>,
}

/// The guard's decision about one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It waits for [`ReplayGuard::commit`].
    Admitted,
    /// The broker delivered an accepted message again: acknowledge it, and do nothing else.
    ///
    /// What it repeats may still wait for a commit, and acknowledging says "durable": so
    /// acknowledge it after the next [`ReplayGuard::commit`], and not if that fails.
    Duplicate,
    /// It is refused, and nothing has changed.
    Refused(Refusal),
}

/// The log refused a batch: nothing of it is accepted, and the guard is as it was before it.
#[derive(Debug, thiserror::Error)]
#[error("{refused} messages could not be made durable: {error}")]
pub struct CommitFailed<E> {
    /// How many messages the batch held.
    pub refused: usize,
    /// What the log said.
    pub error: E,
}

/// The state of every registered device.
#[derive(Debug, Clone)]
pub struct ReplayGuard {
    policy: GuardPolicy,
    registry: Arc<Registry>,
    devices: Vec<Slot>,
    /// Admitted since the last commit, in order; at most [`MAX_BATCH`].
    batch: Vec<Admission>,
    /// State of the devices in `batch` before each admission, in the same order.
    undo: Vec<(DeviceIndex, Option<DeviceState>)>,
    clock: Clock,
}

/// What a decision about one device needs, in three lines of a processor's cache.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
struct Slot {
    state: Option<DeviceState>,
    rate_per_s: u32,
    strict: bool,
    window: Window,
}

impl Slot {
    fn new(state: Option<DeviceState>, device: &Entry) -> Self {
        Self {
            state,
            rate_per_s: device.quota_per_s,
            strict: device.strict_sequence,
            window: device.window,
        }
    }

    /// Asks for its three lines, by reading something of each.
    fn fetch(&self) {
        let state = self.state.as_ref();
        black_box((
            state.map(DeviceState::mark),
            state.map(DeviceState::middle),
            self.rate_per_s,
        ));
    }
}

impl ReplayGuard {
    /// Bytes of memory that a registered device takes here, before and after its first message.
    pub const BYTES_PER_DEVICE: usize = size_of::<Slot>();

    /// A guard that goes on from what the log held at `started`.
    ///
    /// States of devices that the registry does not hold are left out.
    #[must_use]
    pub fn new(registry: &Arc<Registry>, policy: GuardPolicy, loaded: Loaded, started: Timestamp) -> Self {
        let mut guard = Self {
            policy,
            registry: Arc::clone(registry),
            devices: Vec::new(),
            batch: Vec::new(),
            undo: Vec::new(),
            clock: Clock::new(loaded.floor, started),
        };
        guard.append(registry, loaded);
        guard
    }

    /// Goes on with a changed registry: other keys, strictness, windows, quotas and formats, and
    /// further devices at the end. Every state stays, and so does what waits for a commit.
    ///
    /// `loaded` is what the log holds now. Only the states of appended devices are taken from it: a
    /// device that was registered before comes back where it was.
    ///
    /// # Errors
    /// See [`Registry::continues`]; nothing has changed then.
    pub fn adopt(&mut self, registry: &Arc<Registry>, loaded: Loaded) -> Result<(), NotAContinuation> {
        registry.continues(&self.registry)?;
        for (slot, device) in self.devices.iter_mut().zip(registry.devices()) {
            *slot = Slot::new(slot.state.take(), device);
        }
        self.append(registry, loaded);
        self.registry = Arc::clone(registry);
        Ok(())
    }

    /// Slots for the devices that have none yet, with the states that were loaded for them.
    fn append(&mut self, registry: &Registry, loaded: Loaded) {
        let known = self.devices.len();
        let new = registry.devices().iter().skip(known);
        self.devices.extend(new.map(|device| Slot::new(None, device)));
        for (index, state) in loaded.devices {
            let place = index.0 as usize;
            if let Some(slot) = self.devices.get_mut(place).filter(|_| place >= known) {
                slot.state = Some(state);
            }
        }
    }

    /// Has the processor fetch the states of these devices, all of them at once.
    ///
    /// With a million devices each state comes from far away: a group that is fetched together
    /// waits for memory once, and one that is not waits once a message. Decides about nothing, and
    /// is worth calling for the messages of one group, before the first is admitted.
    pub fn fetch(&self, devices: impl IntoIterator<Item = DeviceIndex>) {
        for index in devices {
            if let Some(slot) = self.devices.get(index.0 as usize) {
                slot.fetch();
            }
        }
    }

    /// Decides about one message; messages of one device must come in their order of arrival.
    ///
    /// Only an admission changes what later messages are compared with, and a failed commit takes
    /// that back.
    pub fn admit(&mut self, message: Verified<Message>, now: Timestamp) -> Outcome {
        let message = message.into_inner();
        if self.batch.len() >= MAX_BATCH {
            let detail = format!("{MAX_BATCH} messages wait to become durable");
            return Outcome::Refused(Refusal::new(Reason::StorageUnavailable, message.device, detail));
        }
        let now = self.clock.read(now);
        match message.protection {
            Protection::Unprotected => self.pass(message, now),
            Protection::Signed => self.check(message, now),
        }
    }

    /// The levels without signatures: everything passes, and nothing is remembered.
    fn pass(&mut self, message: Message, now: Timestamp) -> Outcome {
        let said = message.reading.timestamp;
        if said.is_some_and(|timestamp| self.policy.lateness(timestamp, now).is_none()) {
            self.clock.confirm(now);
        }
        let notices = self.clock.rollback_notice().into_iter().collect();
        self.batch.push(Admission {
            message,
            state: None,
            notices,
        });
        Outcome::Admitted
    }

    fn check(&mut self, message: Message, now: Timestamp) -> Outcome {
        let (Some(index), Some(sequence), Some(timestamp)) = (
            message.device,
            message.reading.sequence,
            message.reading.timestamp,
        ) else {
            let detail = "a signed message needs a device, a sequence and a timestamp";
            return Outcome::Refused(Refusal::new(Reason::BadSchema, message.device, detail));
        };
        let Some(slot) = self.devices.get_mut(index.0 as usize) else {
            let detail = format!("device {} of a registry of {}", index.0, self.devices.len());
            return Outcome::Refused(Refusal::new(Reason::UnknownDevice, None, detail));
        };
        let asked = Asked {
            message: &message,
            sequence,
            timestamp,
            now,
        };

        let state = slot.state.as_ref();
        let retired = state.is_some_and(|state| message.epoch < state.epoch);
        let again = state
            .filter(|_| !retired)
            .and_then(|state| redelivery(state, &asked, self.policy));
        if let (Some(place), Some(state)) = (again, &mut slot.state) {
            state.note_copy(place);
            return Outcome::Duplicate;
        }
        let mut reasons = Reasons::default();
        let mut notices = Vec::new();
        reasons.check(retired, Reason::KeyRetired);
        reasons.extend(self.policy.lateness(timestamp, now));
        let mut next = match &slot.state {
            None => {
                let earliest = self.clock.started().minus(self.policy.skew);
                reasons.check(timestamp < earliest, Reason::ColdStart);
                // What came before may have been accepted by a gateway whose state was lost.
                let floor = earliest.minus(Duration::from_micros(1));
                DeviceState::first(sequence, timestamp, floor, message.session)
            }
            Some(state) => {
                let mut next = state.clone();
                let floored = timestamp <= state.floor;
                reasons.check(floored, Reason::Replay);
                match place(state, slot, &asked) {
                    Place::Above => notices.extend(rise(&mut next, &asked)),
                    Place::Within => {}
                    Place::Restart => {
                        next.restart(sequence);
                        notices.push(Notice::PublisherRestart);
                    }
                    Place::NewKey => next.restart(sequence),
                    // Below the floor check 12 has its answer already; 13 is another check.
                    Place::Refused(reason) => reasons.check(!floored || reason == Reason::SeqJump, reason),
                }
                next
            }
        };
        if !reasons.0.is_empty() {
            reasons.check(self.clock.is_rolled_back(), Reason::ClockRollback);
            return Outcome::Refused(reasons.refusal(&asked));
        }
        notices.extend(self.clock.rollback_notice());
        settle(&mut next, &asked);
        self.clock.confirm(now);
        self.undo.push((index, slot.state.replace(next.clone())));
        self.batch.push(Admission {
            message,
            state: Some(next),
            notices,
        });
        Outcome::Admitted
    }

    /// Makes everything admitted since the last commit durable, and only then fresh; in the order
    /// of admission.
    ///
    /// # Errors
    /// The log could not write: every message of the batch is `storage_unavailable`, and the
    /// guard is as it was after the last commit that did not fail.
    pub fn commit<L: ReplayLog>(
        &mut self,
        log: &mut L,
    ) -> Result<Vec<Fresh<Admission>>, CommitFailed<L::Error>> {
        let room = Vec::with_capacity(self.batch.len());
        let batch = std::mem::replace(&mut self.batch, room);
        match log.commit(&batch, self.clock.floor()) {
            Ok(()) => {
                self.undo.clear();
                self.clock.commit();
                Ok(batch.into_iter().map(Fresh::attest).collect())
            }
            Err(error) => {
                for (index, state) in self.undo.drain(..).rev() {
                    self.devices[index.0 as usize].state = state;
                }
                self.clock.undo();
                Err(CommitFailed {
                    refused: batch.len(),
                    error,
                })
            }
        }
    }
}

/// Failing checks in order.
#[derive(Default)]
struct Reasons(Vec<Reason>);

impl Reasons {
    fn check(&mut self, fails: bool, reason: Reason) {
        self.extend(fails.then_some(reason));
    }

    fn extend(&mut self, reason: Option<Reason>) {
        self.0.extend(reason);
    }

    fn refusal(mut self, asked: &Asked<'_>) -> Refusal {
        let reason = self.0.remove(0);
        let detail = match reason {
            Reason::KeyRetired => {
                format!("key epoch {}; a newer one is in use", asked.message.epoch)
            }
            Reason::Stale | Reason::ColdStart => {
                format!("{:.1} s old", asked.now.since(asked.timestamp).as_secs_f64())
            }
            Reason::Future => {
                format!("{:.1} s ahead", asked.timestamp.since(asked.now).as_secs_f64())
            }
            _ => format!("sequence {}", asked.sequence),
        };
        Refusal {
            reason,
            also: self.0,
            device: asked.message.device,
            detail,
        }
    }
}

#[cfg(test)]
mod tests;
