//! Checks 9, 12 and 13: where a message stands relative to what its device sent before.

use super::{Device, GuardPolicy};
use crate::registry::Window;
use crate::state::{DeviceState, Memory};
use crate::verdict::Notice;
use crate::verifier::Message;
use std::time::Duration;
use tidegate_envelope::id::{Boot, Sequence};
use tidegate_envelope::reason::Reason;
use tidegate_envelope::time::Timestamp;

/// A sequence may always jump by this much: publishers reserve numbers in blocks.
const PLAUSIBLE_JUMP: u64 = 65_536;
/// Numbers that a publisher reserves at a time: what one start may leave unused.
const RESERVED: u64 = 1_024;
/// A broker's redelivery comes within this time of the first delivery.
const REDELIVERY: Duration = Duration::from_secs(10);
/// From the third copy on it is no longer a broker that repeats itself.
const MOST_COPIES: u8 = 2;

/// What is being decided about.
pub(super) struct Asked<'m> {
    pub(super) message: &'m Message,
    pub(super) sequence: Sequence,
    pub(super) timestamp: Timestamp,
    pub(super) now: Timestamp,
}

/// Where a message stands relative to its device's state.
pub(super) enum Place {
    /// Above the mark.
    Above,
    /// Below the mark, inside the window, not seen.
    Within,
    /// A publisher without boot counter counts from the beginning.
    Restart,
    /// The first message under a newer key, from the beginning: the device was enrolled again.
    NewKey,
    /// Nowhere good.
    Refused(Reason),
}

/// Check 9: the same message, from the same client, soon after, and not for the third time.
///
/// A retained one never comes here, since check 2 has refused it. The copies are counted in memory
/// and reach the disk with the device's next message: losing the count changes the name of a
/// refusal, never an acceptance.
pub(super) fn is_redelivery(state: &mut DeviceState, asked: &Asked<'_>, policy: GuardPolicy) -> bool {
    if asked.sequence > state.mark || asked.message.session != state.session {
        return false;
    }
    let Memory::SameTag(recent) = state.recall(asked.sequence, &asked.message.tag) else {
        return false;
    };
    let copies = state.count_copy(recent);
    // The age is known modulo 49 days only. What was accepted in the last 10 s was not stale then.
    let oldest = asked.now.minus(policy.window + REDELIVERY);
    let soon = u128::from(state.age_ms(recent, asked.now)) <= REDELIVERY.as_millis();
    soon && asked.timestamp >= oldest && copies < MOST_COPIES
}

/// Checks 12 and 13, and the rules for restarts.
///
/// A newer key epoch excuses a lower start counter, and a lower sequence where the timestamp is
/// newer than all before; it does not excuse a jump, or one message could lock the device out.
pub(super) fn place(state: &DeviceState, device: &Device, asked: &Asked<'_>) -> Place {
    if asked.timestamp <= state.floor {
        return Place::Refused(Reason::Replay);
    }
    let new_key = asked.message.epoch > state.epoch;
    if asked.sequence > state.mark {
        return above(state, device, asked, new_key);
    }
    if !new_key {
        return at_or_below(state, device, asked);
    }
    if asked.timestamp > state.newest {
        Place::NewKey
    } else {
        Place::Refused(Reason::Replay)
    }
}

fn above(state: &DeviceState, device: &Device, asked: &Asked<'_>, new_key: bool) -> Place {
    let boot = asked.message.reading.boot;
    // Numbers of an earlier start lie below the mark; above it, two publishers share one key.
    if !new_key && boot.is_some() && boot < state.boot {
        return Place::Refused(Reason::SeqConflict);
    }
    let since = |later: Timestamp| later.since(state.newest).as_secs();
    let elapsed_s = since(asked.timestamp).max(since(asked.now));
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
    // A device that starts to send a boot counter is strict from that message on. If it begins
    // again at a low sequence then, it needs a new key epoch.
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
pub(super) fn rise(state: &mut DeviceState, asked: &Asked<'_>) -> Option<Notice> {
    let step = asked.sequence.get() - state.mark.get();
    let missing = (step - 1).saturating_sub(left_unused(state, asked));
    state.window = if step < 64 { state.window << step } else { 0 };
    state.mark = asked.sequence;
    (missing > 0).then_some(Notice::Gap { missing })
}

/// How many numbers the starts since the last message may have left unused.
fn left_unused(state: &DeviceState, asked: &Asked<'_>) -> u64 {
    match (state.boot, asked.message.reading.boot) {
        (Some(before), Some(now)) if now > before => u64::from(now.0 - before.0) * RESERVED,
        (before, Some(now)) if before != Some(now) => RESERVED,
        _ => 0,
    }
}

/// The state with an admitted message in it.
pub(super) fn settled(mut state: DeviceState, asked: &Asked<'_>) -> DeviceState {
    let message = asked.message;
    let behind = state.mark.get() - asked.sequence.get();
    if behind < 64 {
        state.window |= 1 << behind;
    }
    state.newest = state.newest.max(asked.timestamp);
    state.session = message.session;
    state.boot = if message.epoch > state.epoch {
        // Counts anew, and stays strict if it ever counted.
        message.reading.boot.or(state.boot.map(|_| Boot(0)))
    } else {
        // A late message of an earlier start does not take the counter back.
        state.boot.max(message.reading.boot)
    };
    state.epoch = message.epoch;
    state.remember(asked.sequence, &message.tag, asked.now);
    state
}
