//! Checks 9, 12 and 13: where a message stands relative to what its device sent before.

use super::{GuardPolicy, Slot};
use crate::registry::Window;
use crate::state::{DeviceState, Memory};
use crate::verdict::Notice;
use crate::verifier::Message;
use std::time::Duration;
use tidegate_envelope::id::Sequence;
use tidegate_envelope::reason::Reason;
use tidegate_envelope::time::Timestamp;

/// A sequence may always jump by this much: publishers reserve numbers in blocks.
const PLAUSIBLE_JUMP: u64 = 65_536;
/// Numbers that a publisher reserves at a time: what one start may leave unused.
const RESERVED: u64 = 1_024;
/// A broker's redelivery comes within this time of the first delivery,
const REDELIVERY: Duration = Duration::from_secs(10);
/// or within this time where the client has resumed its session meanwhile. Longer than any session
/// that a message is worth keeping for, and far below the 49 days after which ages repeat.
const RESUMED_REDELIVERY: Duration = Duration::from_secs(24 * 3_600);

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
    /// The publisher counts from a lower number: from the beginning without a boot counter, or back
    /// where it was before an outlier.
    Restart,
    /// The first message under a newer key, from the beginning: the device was enrolled again.
    NewKey,
    /// Nowhere good.
    Refused(Reason),
}

/// Check 9: the same message, from the same client, soon after or in a resumed session, and for the
/// first time again. Says where in the ring it is.
///
/// The third of its kind is a `replay` even in a resumed session: a broker that resumes twice
/// without an acknowledgement in between is rarer than somebody who repeats what was recorded, and
/// both are acknowledged and never accepted. A retained one never comes here, since check 2 has
/// refused it. Copies are noted in memory and reach the disk with the device's next message: losing
/// the note changes the name of a refusal, never an acceptance.
pub(super) fn redelivery(state: &DeviceState, asked: &Asked<'_>, policy: GuardPolicy) -> Option<usize> {
    let message = asked.message;
    if asked.sequence > state.mark || message.session != state.session {
        return None;
    }
    let Memory::SameTag(place) = state.recall(asked.sequence, &message.tag) else {
        return None;
    };
    let within = if message.resumed {
        RESUMED_REDELIVERY
    } else {
        REDELIVERY
    };
    // The age is known modulo 49 days only. What was accepted within that time was not stale then.
    let oldest = asked.now.minus(policy.window + within);
    let soon = u128::from(state.age_ms(place, asked.now)) <= within.as_millis();
    (soon && asked.timestamp >= oldest && !state.was_copied(place)).then_some(place)
}

/// Checks 12 and 13, and the rules for restarts.
///
/// A newer key epoch excuses a lower start counter, and a lower sequence where the timestamp is
/// newer than all before; it does not excuse a jump, or one message could lock the device out.
pub(super) fn place(state: &DeviceState, slot: &Slot, asked: &Asked<'_>) -> Place {
    let new_key = asked.message.epoch > state.epoch;
    if asked.sequence > state.mark {
        return above(state, slot, asked, new_key);
    }
    if !new_key {
        return at_or_below(state, slot, asked);
    }
    if asked.timestamp > state.newest {
        Place::NewKey
    } else {
        Place::Refused(Reason::Replay)
    }
}

fn above(state: &DeviceState, slot: &Slot, asked: &Asked<'_>, new_key: bool) -> Place {
    let boot = asked.message.reading.boot;
    // Numbers of an earlier start lie below the mark; above it, two publishers share one key.
    if !new_key && boot.is_some() && boot < state.boot {
        return Place::Refused(Reason::SeqConflict);
    }
    let since = |later: Timestamp| later.since(state.newest).as_secs();
    let elapsed_s = since(asked.timestamp).max(since(asked.now));
    let plausible = elapsed_s
        .saturating_mul(u64::from(slot.rate_per_s))
        .max(PLAUSIBLE_JUMP);
    if asked.sequence.get() - state.mark.get() > plausible {
        return Place::Refused(Reason::SeqJump);
    }
    Place::Above
}

fn at_or_below(state: &DeviceState, slot: &Slot, asked: &Asked<'_>) -> Place {
    let behind = state.mark.get() - asked.sequence.get();
    let in_window = slot.window == Window::SixtyFour && behind < 64;
    if in_window && state.window >> behind & 1 == 0 {
        return Place::Within;
    }
    // A device that starts to send a boot counter is strict from that message on. If it begins
    // again at a low sequence then, it needs a new key epoch.
    let counts_boots = state.boot.is_some() || asked.message.reading.boot.is_some();
    let may_restart = !slot.strict && !counts_boots;
    if (may_restart || outlier(state, behind)) && asked.timestamp > state.newest {
        return Place::Restart;
    }
    Place::Refused(match state.recall(asked.sequence, &asked.message.tag) {
        Memory::OtherTag => Reason::SeqConflict,
        Memory::Unseen => Reason::OutOfOrder,
        Memory::SameTag(_) | Memory::TooOld => Reason::Replay,
    })
}

/// Whether the mark, and not the message that far below it, is what went wrong.
///
/// Check 13 needs something to compare with. A device's first message has nothing before it, and
/// after a long silence a wide jump is plausible: there one wrong number could set a mark that a
/// strict device never reaches again. No bound on the first number would do. One below 2^53 leaves
/// marks that are out of reach all the same; and an honest device whose state was lost here may be
/// anywhere, since each of its starts uses up a block of numbers and some publishers number by the
/// clock. So the number is taken, and is unproven until the device goes on from it: if the next
/// message lies further below than a jump may reach, the device counts down there. A wrong yes
/// accepts nothing twice, because the timestamp must be newer than all before, and all before is
/// closed by the floor; a wrong no locks a device out until its key is renewed.
fn outlier(state: &DeviceState, behind: u64) -> bool {
    state.unproven && behind > PLAUSIBLE_JUMP
}

/// Moves the mark up; says how many numbers were passed over.
pub(super) fn rise(state: &mut DeviceState, asked: &Asked<'_>) -> Option<Notice> {
    let step = asked.sequence.get() - state.mark.get();
    let missing = (step - 1).saturating_sub(left_unused(state, asked));
    state.window = if step < 64 { state.window << step } else { 0 };
    state.mark = asked.sequence;
    state.unproven = step > PLAUSIBLE_JUMP;
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

/// Puts an admitted message into its device's state.
pub(super) fn settle(state: &mut DeviceState, asked: &Asked<'_>) {
    let message = asked.message;
    // At the mark, or within the window below it.
    let behind = state.mark.get() - asked.sequence.get();
    state.window |= 1 << behind;
    state.newest = state.newest.max(asked.timestamp);
    state.session = message.session;
    if message.epoch > state.epoch {
        state.forget_boots();
    }
    // A late message of an earlier start does not take the counter back.
    state.boot = state.boot.max(message.reading.boot);
    state.epoch = message.epoch;
    state.remember(asked.sequence, &message.tag, asked.now);
}
