//! The replay guard: checks 9 to 15. Was this accepted before, and is it from now?
//!
//! A wrong yes lets an attacker repeat an old reading; a wrong no loses a genuine one. Where the
//! two must be weighed the guard says no, and the device sends a newer reading soon.

use crate::log::{Loaded, ReplayLog};
use crate::registry::{Registry, Window};
use crate::stage::{Fresh, Verified};
use crate::state::{DeviceState, Memory};
use crate::verdict::{Notice, Refusal};
use crate::verifier::{Message, Protection};
use std::time::Duration;
use tidegate_envelope::id::{DeviceIndex, Sequence};
use tidegate_envelope::reason::Reason;
use tidegate_envelope::time::Timestamp;

/// A sequence may always jump by this much: publishers reserve numbers in blocks.
const PLAUSIBLE_JUMP: u64 = 65_536;
/// A broker's redelivery comes within this time of the first delivery.
const REDELIVERY: Duration = Duration::from_secs(10);
/// From the third copy on it is no longer a broker that repeats itself.
const MOST_COPIES: u8 = 2;
/// Clock corrections of this size are everyday, and no rollback.
const EVERYDAY_CORRECTION: Duration = Duration::from_secs(1);

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
#[derive(Debug)]
pub struct ReplayGuard {
    policy: GuardPolicy,
    devices: Vec<Device>,
    /// Admitted since the last commit, in order.
    batch: Vec<Admission>,
    /// State of each admitted device before its admission, in the same order.
    undo: Vec<(DeviceIndex, Option<DeviceState>)>,
    started: Timestamp,
    /// The latest time that was ever seen here: time does not go back behind it.
    floor: Timestamp,
    rolled_back: bool,
}

#[derive(Debug)]
struct Device {
    state: Option<DeviceState>,
    strict: bool,
    window: Window,
    rate_per_s: u32,
}

impl ReplayGuard {
    /// A guard that goes on from what the log held at `started`.
    #[must_use]
    pub fn new(registry: &Registry, policy: GuardPolicy, loaded: Loaded, started: Timestamp) -> Self {
        let mut devices: Vec<_> = registry
            .devices()
            .iter()
            .map(|device| Device {
                state: None,
                strict: device.strict_sequence,
                window: device.window,
                rate_per_s: device.quota_per_s,
            })
            .collect();
        for (index, state) in loaded.devices {
            if let Some(device) = devices.get_mut(index.0 as usize) {
                device.state = Some(state);
            }
        }
        let floor = loaded.floor.unwrap_or(started).max(started);
        let rolled_back = false;
        Self {
            policy,
            devices,
            batch: Vec::new(),
            undo: Vec::new(),
            started,
            floor,
            rolled_back,
        }
    }

    /// Decides about one message; messages of one device must come in their order of arrival.
    pub fn admit(&mut self, message: Verified<Message>, now: Timestamp) -> Outcome {
        let message = message.into_inner();
        let rollback = self.pass_time(now);
        let mut notices: Vec<Notice> = rollback.into_iter().collect();
        let (Protection::Signed, Some(index), Some(sequence), Some(timestamp)) = (
            message.protection,
            message.device,
            message.reading.sequence,
            message.reading.timestamp,
        ) else {
            self.batch.push(Admission {
                message,
                state: None,
                notices,
            });
            return Outcome::Admitted;
        };
        let now = self.floor;
        let started = self.started;
        let policy = self.policy;
        let device = &mut self.devices[index.0 as usize];
        let asked = Asked {
            message: &message,
            sequence,
            timestamp,
            now,
        };

        if let Some(state) = &mut device.state
            && is_redelivery(state, &asked)
        {
            return Outcome::Duplicate;
        }
        let mut reasons = Reasons::default();
        reasons.check(timestamp < now.minus(policy.window), Reason::Stale);
        reasons.check(timestamp > now.plus(policy.skew), Reason::Future);
        let state = match &device.state {
            None => {
                reasons.check(timestamp < started.minus(policy.skew), Reason::ColdStart);
                DeviceState::first(sequence, timestamp, message.session)
            }
            Some(state) => {
                let mut next = state.clone();
                match place(state, device, &asked) {
                    Place::Above => notices.extend(rise(&mut next, &asked)),
                    Place::Within => {}
                    Place::Restart => {
                        next.restart(sequence);
                        notices.push(Notice::PublisherRestart);
                    }
                    Place::NewKey => next.restart(sequence),
                    Place::Refused(reason) => reasons.check(true, reason),
                }
                next
            }
        };
        if let Some(refusal) = reasons.refusal(&asked) {
            return Outcome::Refused(refusal);
        }
        let state = settled(state, &asked);
        self.undo.push((index, device.state.replace(state.clone())));
        self.batch.push(Admission {
            message,
            state: Some(state),
            notices,
        });
        Outcome::Admitted
    }

    /// Makes everything admitted since the last commit durable, and only then fresh.
    pub fn commit<L: ReplayLog>(
        &mut self,
        log: &mut L,
    ) -> Result<Vec<Fresh<Admission>>, CommitFailed<L::Error>> {
        let batch = std::mem::take(&mut self.batch);
        match log.commit(&batch, self.floor) {
            Ok(()) => {
                self.undo.clear();
                Ok(batch.into_iter().map(Fresh::attest).collect())
            }
            Err(error) => {
                for (index, state) in self.undo.drain(..).rev() {
                    self.devices[index.0 as usize].state = state;
                }
                Err(CommitFailed {
                    refused: batch.len(),
                    error,
                })
            }
        }
    }

    /// Moves the clock floor; says so once when the clock has gone back behind it.
    fn pass_time(&mut self, now: Timestamp) -> Option<Notice> {
        if now >= self.floor {
            self.floor = now;
            self.rolled_back = false;
            return None;
        }
        let back = self.floor.since(now);
        if self.rolled_back || back <= EVERYDAY_CORRECTION {
            return None;
        }
        self.rolled_back = true;
        Some(Notice::ClockRollback {
            by_ms: u64::try_from(back.as_millis()).unwrap_or(u64::MAX),
        })
    }
}

/// What is being decided about.
struct Asked<'m> {
    message: &'m Message,
    sequence: Sequence,
    timestamp: Timestamp,
    now: Timestamp,
}

/// Where a message stands relative to its device's state.
enum Place {
    /// Above the mark.
    Above,
    /// Below the mark, inside the window, not seen.
    Within,
    /// A publisher without boot counter counts from the beginning.
    Restart,
    /// The first message under a newer key: the device was enrolled again.
    NewKey,
    /// Nowhere good.
    Refused(Reason),
}

/// Check 9: the same message, from the same client, soon after, and not for the third time.
fn is_redelivery(state: &mut DeviceState, asked: &Asked<'_>) -> bool {
    if asked.sequence > state.mark || asked.message.session != state.session {
        return false;
    }
    let Memory::SameTag(recent) = state.recall(asked.sequence, &asked.message.tag) else {
        return false;
    };
    let now_s = u32::try_from(asked.now.as_millis() / 1_000).unwrap_or(0);
    let accepted = state.accepted(recent);
    let soon = u64::from(now_s.saturating_sub(accepted.at_s)) <= REDELIVERY.as_secs();
    accepted.copies = accepted.copies.saturating_add(1);
    soon && accepted.copies < MOST_COPIES
}

/// Checks 12 and 13, and the rules for restarts.
fn place(state: &DeviceState, device: &Device, asked: &Asked<'_>) -> Place {
    let reading = &asked.message.reading;
    if asked.message.epoch < state.epoch {
        return Place::Refused(Reason::KeyRetired);
    }
    if asked.timestamp <= state.floor {
        return Place::Refused(Reason::Replay);
    }
    if asked.message.epoch > state.epoch {
        let newer = asked.timestamp > state.newest || asked.sequence > state.mark;
        return if newer {
            Place::NewKey
        } else {
            Place::Refused(Reason::Replay)
        };
    }
    if asked.sequence <= state.mark {
        return at_or_below(state, device, asked);
    }
    // Numbers of an earlier start lie below the mark; above it, two publishers share one key.
    if reading
        .boot
        .is_some_and(|boot| state.boot.is_some_and(|newest| boot < newest))
    {
        return Place::Refused(Reason::SeqConflict);
    }
    let elapsed_s = asked
        .timestamp
        .since(state.newest)
        .max(asked.now.since(state.newest))
        .as_secs();
    let plausible = elapsed_s
        .saturating_mul(u64::from(device.rate_per_s))
        .max(PLAUSIBLE_JUMP);
    if asked.sequence.get() - state.mark.get() > plausible {
        return Place::Refused(Reason::SeqJump);
    }
    Place::Above
}

fn at_or_below(state: &DeviceState, device: &Device, asked: &Asked<'_>) -> Place {
    let behind = state.mark.get() - asked.sequence.get();
    let in_window = device.window == Window::SixtyFour && behind < 64;
    if in_window && state.window >> behind & 1 == 0 {
        return Place::Within;
    }
    let counts_boots = state.boot.is_some() || asked.message.reading.boot.is_some();
    if !device.strict && !counts_boots && asked.timestamp > state.newest {
        return Place::Restart;
    }
    Place::Refused(match state.recall(asked.sequence, &asked.message.tag) {
        Memory::OtherTag => Reason::SeqConflict,
        Memory::Unseen => Reason::OutOfOrder,
        Memory::SameTag(_) | Memory::TooOld => Reason::Replay,
    })
}

/// Moves the mark up; says how many numbers were passed over.
fn rise(state: &mut DeviceState, asked: &Asked<'_>) -> Option<Notice> {
    let step = asked.sequence.get() - state.mark.get();
    state.window = if step < 64 { state.window << step } else { 0 };
    state.mark = asked.sequence;
    // A start leaves the rest of its reserved block unused.
    let new_start = asked.message.reading.boot != state.boot;
    (step > 1 && !new_start).then_some(Notice::Gap { missing: step - 1 })
}

/// The state with an admitted message in it.
fn settled(mut state: DeviceState, asked: &Asked<'_>) -> DeviceState {
    let message = asked.message;
    let behind = state.mark.get() - asked.sequence.get();
    state.window |= 1 << behind.min(63);
    state.newest = state.newest.max(asked.timestamp);
    state.session = message.session;
    state.epoch = message.epoch;
    state.boot = message.reading.boot.or(state.boot);
    state.remember(asked.sequence, &message.tag, asked.now);
    state
}

/// Failing checks in order.
#[derive(Default)]
struct Reasons(Vec<Reason>);

impl Reasons {
    fn check(&mut self, fails: bool, reason: Reason) {
        if fails {
            self.0.push(reason);
        }
    }

    fn refusal(mut self, asked: &Asked<'_>) -> Option<Refusal> {
        if self.0.is_empty() {
            return None;
        }
        let reason = self.0.remove(0);
        let detail = match reason {
            Reason::Stale | Reason::ColdStart => {
                format!("{:.1} s old", asked.now.since(asked.timestamp).as_secs_f64())
            }
            Reason::Future => {
                format!("{:.1} s ahead", asked.timestamp.since(asked.now).as_secs_f64())
            }
            _ => format!("sequence {}", asked.sequence),
        };
        Some(Refusal {
            reason,
            also: self.0,
            device: asked.message.device,
            detail,
        })
    }
}

#[cfg(test)]
mod tests;
