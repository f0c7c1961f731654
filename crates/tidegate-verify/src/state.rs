//! What the replay guard remembers of one device: below 200 bytes, and only of registered ones.

use crate::delivery::SessionId;
use tidegate_envelope::id::{Boot, KeyEpoch, Sequence};
use tidegate_envelope::key::Tag;
use tidegate_envelope::time::Timestamp;

/// Accepted messages that are remembered one by one, so that a redelivery, a replay and a clone
/// can be told apart. Older ones are known to be at or below the mark, which is enough to refuse them.
pub(crate) const RECENT: usize = 10;
/// Version of the bytes that [`DeviceState::to_bytes`] writes.
const LAYOUT: u8 = 1;

/// A device's replay state. Laid out in this order, so that the guard can fetch it by its ends and
/// its middle.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct DeviceState {
    /// The highest accepted sequence: the window's right edge (RFC 4303 §3.4.3).
    pub(crate) mark: Sequence,
    /// The newest accepted timestamp.
    pub(crate) newest: Timestamp,
    /// Every message at or before this time is a replay: set when a publisher starts again.
    pub(crate) floor: Timestamp,
    /// Bit i is set when `mark - i` was accepted; used with a window of 64.
    pub(crate) window: u64,
    /// The client session that the newest message came through.
    pub(crate) session: SessionId,
    /// The newest boot counter seen; a device that has one is strict for ever.
    pub(crate) boot: Option<Boot>,
    /// The newest accepted key epoch; older ones are retired by it.
    pub(crate) epoch: KeyEpoch,
    /// Whether the mark was reached out of nowhere, by a first message or a far jump, and nothing
    /// above it has been accepted since.
    pub(crate) unproven: bool,
    /// The last accepted messages, in a ring.
    recent: [Accepted; RECENT],
    /// Bit i is set when a copy of `recent[i]` has come. Here and not in it, to save the padding.
    copied: u16,
    /// Where the next one goes.
    next: u8,
}

/// One accepted message, as far as it is needed to know it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Accepted {
    /// The lower half of its sequence; 0 with `tag` 0 marks an unused place.
    sequence_low: u32,
    /// The first bytes of its MAC.
    tag: u32,
    /// When it was accepted: the lower half of the milliseconds since 1970.
    at_ms: u32,
}

/// What is known about a sequence number at or below the mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Accepted with this very tag; its place in the ring.
    SameTag(usize),
    /// Accepted with another tag.
    OtherTag,
    /// Passed over: a lower number was accepted, and this one was not.
    Unseen,
    /// Accepted with a tag that is forgotten, or too old to tell.
    TooOld,
}

impl DeviceState {
    /// The state after a device's first message.
    ///
    /// `floor` keeps out what an earlier installation whose state was lost may have accepted.
    pub(crate) fn first(mark: Sequence, newest: Timestamp, floor: Timestamp, session: SessionId) -> Self {
        Self {
            mark,
            newest,
            floor,
            window: 0,
            session,
            boot: None,
            epoch: KeyEpoch(0),
            unproven: true,
            recent: [Accepted::default(); RECENT],
            copied: 0,
            next: 0,
        }
    }

    /// Forgets the single messages: the publisher counts from the beginning.
    ///
    /// The floor is what keeps them out from now on; it never falls.
    pub(crate) fn restart(&mut self, mark: Sequence) {
        self.floor = self.floor.max(self.newest);
        self.mark = mark;
        self.window = 0;
        self.forget_boots();
        self.unproven = true;
        self.recent = [Accepted::default(); RECENT];
        self.copied = 0;
        self.next = 0;
    }

    /// The starts are counted anew. A device that has ever counted them stays strict.
    pub(crate) fn forget_boots(&mut self) {
        self.boot = self.boot.map(|_| Boot(0));
    }

    /// Remembers an accepted message.
    pub(crate) fn remember(&mut self, sequence: Sequence, tag: &Tag, at: Timestamp) {
        let place = usize::from(self.next);
        self.recent[place] = Accepted {
            sequence_low: low(sequence),
            tag: short(tag),
            at_ms: milliseconds(at),
        };
        self.copied &= !(1 << place);
        self.next = ((place + 1) % RECENT) as u8;
    }

    /// What is known about a sequence number at or below the mark.
    pub(crate) fn recall(&self, sequence: Sequence, tag: &Tag) -> Memory {
        let used = || {
            self.recent
                .iter()
                .enumerate()
                .filter(|(_, accepted)| **accepted != Accepted::default())
        };
        if let Some((place, accepted)) = used().find(|(_, accepted)| accepted.sequence_low == low(sequence)) {
            return if accepted.tag == short(tag) {
                Memory::SameTag(place)
            } else {
                Memory::OtherTag
            };
        }
        let distance = self.mark.get() - sequence.get();
        // The window remembers more than the ring, though not with which tag.
        let lower_in_window = match self.window.checked_shr(distance.try_into().unwrap_or(u32::MAX)) {
            Some(from_here) if from_here & 1 == 1 => return Memory::TooOld,
            Some(from_here) => from_here != 0,
            None => false,
        };
        // Distances below the mark, since only the lower halves are kept.
        let behind = |low_half: u32| low(self.mark).wrapping_sub(low_half);
        let oldest = used().map(|(_, accepted)| behind(accepted.sequence_low)).max();
        if lower_in_window || oldest.is_some_and(|oldest| distance < u64::from(oldest)) {
            Memory::Unseen
        } else {
            Memory::TooOld
        }
    }

    /// Whether a copy of the message at `place` in the ring has come already.
    pub(crate) fn was_copied(&self, place: usize) -> bool {
        self.copied >> place & 1 == 1
    }

    /// A copy of the message at `place` in the ring has come.
    pub(crate) fn note_copy(&mut self, place: usize) {
        self.copied |= 1 << place;
    }

    /// Milliseconds from the acceptance of the message at `place` in the ring to `now`, modulo
    /// 2^32 (49 days).
    pub(crate) fn age_ms(&self, place: usize, now: Timestamp) -> u32 {
        milliseconds(now).wrapping_sub(self.recent[place].at_ms)
    }

    /// Something from the middle of the bytes that the state takes.
    pub(crate) fn middle(&self) -> u32 {
        self.recent[RECENT / 2].at_ms
    }

    /// The highest accepted sequence.
    #[must_use]
    pub fn mark(&self) -> Sequence {
        self.mark
    }

    /// The newest accepted key epoch.
    #[must_use]
    pub fn epoch(&self) -> KeyEpoch {
        self.epoch
    }

    /// The newest accepted timestamp.
    #[must_use]
    pub fn newest(&self) -> Timestamp {
        self.newest
    }

    /// The state as if no copy of a message had come. Copies name a refusal and decide about
    /// nothing, so they are not durable by themselves: a state in memory and on disk are equal but
    /// for them.
    #[must_use]
    pub fn without_copies(&self) -> Self {
        Self {
            copied: 0,
            ..self.clone()
        }
    }

    /// The state as bytes, for a database. All numbers little-endian:
    ///
    /// | bytes | what |
    /// |---|---|
    /// | 0 | layout, 1 |
    /// | 1 to 8 | mark |
    /// | 9 to 16, 17 to 24 | newest timestamp, floor, microseconds since 1970 |
    /// | 25 to 32 | window |
    /// | 33 to 40 | session |
    /// | 41 | 1 with a boot counter, plus 2 when the mark is unproven |
    /// | 42 to 45 | the boot counter |
    /// | 46, 47 | key epoch |
    /// | 48 | place of the next recent message |
    /// | 49 on | ten times: lower half of the sequence, start of the tag, lower half of the milliseconds since 1970 at acceptance (4 bytes each), not 0 when a copy has come (1 byte) |
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(49 + RECENT * 13);
        bytes.push(LAYOUT);
        bytes.extend(self.mark.get().to_le_bytes());
        bytes.extend(self.newest.as_micros().to_le_bytes());
        bytes.extend(self.floor.as_micros().to_le_bytes());
        bytes.extend(self.window.to_le_bytes());
        bytes.extend(self.session.0.to_le_bytes());
        bytes.push(u8::from(self.boot.is_some()) | u8::from(self.unproven) << 1);
        bytes.extend(self.boot.map_or(0, |boot| boot.0).to_le_bytes());
        bytes.extend(self.epoch.0.to_le_bytes());
        bytes.push(self.next);
        for (place, accepted) in self.recent.iter().enumerate() {
            bytes.extend(accepted.sequence_low.to_le_bytes());
            bytes.extend(accepted.tag.to_le_bytes());
            bytes.extend(accepted.at_ms.to_le_bytes());
            bytes.push(self.was_copied(place).into());
        }
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote; `None` for anything else.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        if take::<1>(&mut rest)? != [LAYOUT] {
            return None;
        }
        let mark = Sequence::new(u64::from_le_bytes(take(&mut rest)?))?;
        let newest = Timestamp::from_micros(i64::from_le_bytes(take(&mut rest)?));
        let floor = Timestamp::from_micros(i64::from_le_bytes(take(&mut rest)?));
        let window = u64::from_le_bytes(take(&mut rest)?);
        let session = SessionId(u64::from_le_bytes(take(&mut rest)?));
        let [flags] = take(&mut rest)?;
        let boot = Boot(u32::from_le_bytes(take(&mut rest)?));
        let epoch = KeyEpoch(u16::from_le_bytes(take(&mut rest)?));
        let [next] = take(&mut rest)?;
        let mut recent = [Accepted::default(); RECENT];
        let mut copied = 0;
        for (place, accepted) in recent.iter_mut().enumerate() {
            accepted.sequence_low = u32::from_le_bytes(take(&mut rest)?);
            accepted.tag = u32::from_le_bytes(take(&mut rest)?);
            accepted.at_ms = u32::from_le_bytes(take(&mut rest)?);
            let [was_copied] = take(&mut rest)?;
            copied |= u16::from(was_copied != 0) << place;
        }
        let sound = rest.is_empty() && flags <= 3 && usize::from(next) < RECENT;
        sound.then_some(Self {
            mark,
            newest,
            floor,
            window,
            session,
            boot: (flags & 1 == 1).then_some(boot),
            epoch,
            unproven: flags & 2 == 2,
            recent,
            copied,
            next,
        })
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is kept")]
fn low(sequence: Sequence) -> u32 {
    sequence.get() as u32
}

/// Enough of a MAC to know a message again. Whether a message is genuine is never decided by it.
fn short(tag: &Tag) -> u32 {
    let [a, b, c, d, ..] = tag.0;
    u32::from_le_bytes([a, b, c, d])
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "differences of lower halves are exact up to 49 days, before 1970 too"
)]
fn milliseconds(time: Timestamp) -> u32 {
    time.as_millis() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::NOW;

    const NEVER: Timestamp = Timestamp::from_micros(i64::MIN);

    #[test]
    fn state_is_small_and_survives_its_bytes() {
        assert_eq!(size_of::<DeviceState>(), 176);
        assert_eq!(size_of::<Option<DeviceState>>(), size_of::<DeviceState>());
        let mut state = DeviceState::first(Sequence::new(1 << 40).unwrap(), NOW, NEVER, SessionId(7));
        assert!(state.to_bytes().len() <= 200);
        state.boot = Some(Boot(3));
        state.remember(state.mark, &Tag([5; 32]), NOW);
        assert_eq!(DeviceState::from_bytes(&state.to_bytes()), Some(state.clone()));
        let bytes = state.to_bytes();
        assert_eq!(DeviceState::from_bytes(&bytes[1..]), None);
        assert_eq!(DeviceState::from_bytes(&bytes[..bytes.len() - 1]), None);
        assert_eq!(DeviceState::from_bytes(&[&bytes[..], &[0]].concat()), None);
        for (place, wrong) in [(0, 2), (41, 4), (48, RECENT as u8)] {
            let mut bytes = bytes.clone();
            bytes[place] = wrong;
            assert_eq!(DeviceState::from_bytes(&bytes), None, "byte {place}");
        }
    }

    #[test]
    fn place_that_is_used_again_has_not_been_copied() {
        let mut state = DeviceState::first(Sequence::new(1).unwrap(), NOW, NEVER, SessionId(7));
        for number in 1..=RECENT as u64 {
            state.remember(Sequence::new(number).unwrap(), &Tag([1; 32]), NOW);
        }
        for place in 0..RECENT {
            state.note_copy(place);
        }
        for place in 0..RECENT {
            state.remember(Sequence::new(100 + place as u64).unwrap(), &Tag([2; 32]), NOW);
            let copied: Vec<_> = (0..RECENT).filter(|place| state.was_copied(*place)).collect();
            assert_eq!(copied, (place + 1..RECENT).collect::<Vec<_>>());
        }
    }

    #[test]
    fn bytes_of_layout_1_are_these() {
        let mut state = DeviceState::first(
            Sequence::new(0x0102_0304_0506).unwrap(),
            Timestamp::from_micros(0x1112_1314_1516_1718),
            Timestamp::from_micros(0x2122_2324_2526_2728),
            SessionId(0x4142_4344_4546_4748),
        );
        state.window = 0x3132_3334_3536_3738;
        state.boot = Some(Boot(0x5152_5354));
        state.epoch = KeyEpoch(0x6162);
        assert_eq!(state.epoch(), KeyEpoch(0x6162));
        state.remember(
            state.mark,
            &Tag([0x71; 32]),
            Timestamp::from_micros(0x8182_8384 * 1_000),
        );
        state.note_copy(0);
        let hex: String = state
            .to_bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let head = "01 0605040302010000 1817161514131211 2827262524232221 3837363534333231 \
                    4847464544434241 03 54535251 6261 01 06050403 71717171 84838281 01";
        assert_eq!(hex, head.replace(' ', "") + &"00".repeat(9 * 13));
        assert_eq!(DeviceState::from_bytes(&state.to_bytes()), Some(state));
    }

    #[test]
    fn each_flag_and_each_copy_survives_its_bytes_by_itself() {
        let first = DeviceState::first(Sequence::new(9).unwrap(), NOW, NEVER, SessionId(7));
        let survives = |change: &dyn Fn(&mut DeviceState)| {
            let mut state = first.clone();
            change(&mut state);
            assert_ne!(state, first);
            assert_eq!(DeviceState::from_bytes(&state.to_bytes()), Some(state));
        };
        survives(&|state| state.boot = Some(Boot(0)));
        survives(&|state| state.unproven = false);
        survives(&|state| {
            state.unproven = false;
            state.boot = Some(Boot(0));
        });
        for place in 0..RECENT {
            survives(&|state| {
                assert!(!state.was_copied(place));
                state.note_copy(place);
                state.note_copy(place);
                let copied: Vec<_> = (0..RECENT).filter(|place| state.was_copied(*place)).collect();
                assert_eq!(copied, [place]);
            });
        }
        // Earlier versions counted copies.
        let mut counted = first.to_bytes();
        counted[49 + 12] = 5;
        let read = DeviceState::from_bytes(&counted).unwrap();
        assert!(read.was_copied(0));
        assert_eq!(read.without_copies(), first);
    }

    #[test]
    fn ring_forgets_the_oldest_message_and_its_copy() {
        let at = |number: u64| Sequence::new(number).unwrap();
        let mut state = DeviceState::first(at(1), NOW, NEVER, SessionId(7));
        for number in 1..=RECENT as u64 {
            state.mark = at(number);
            state.remember(at(number), &Tag([number as u8; 32]), NOW);
            state.note_copy(number as usize - 1);
        }
        let next = RECENT as u64 + 1;
        state.mark = at(next);
        assert_eq!(state.recall(at(1), &Tag([1; 32])), Memory::SameTag(0));
        state.remember(at(next), &Tag([next as u8; 32]), NOW);
        assert_eq!(state.recall(at(next), &Tag([next as u8; 32])), Memory::SameTag(0));
        assert_eq!(state.recall(at(1), &Tag([1; 32])), Memory::TooOld);
        assert_eq!(state.recall(at(2), &Tag([2; 32])), Memory::SameTag(1));
        assert!(!state.was_copied(0) && state.was_copied(1));
    }

    #[test]
    fn recent_messages_are_told_from_unseen_and_from_old_ones() {
        let at = |number: u64| Sequence::new(number).unwrap();
        let mut state = DeviceState::first(at(100), NOW, NEVER, SessionId(7));
        for number in (100..=140).step_by(2) {
            state.mark = at(number);
            state.remember(at(number), &Tag([number as u8; 32]), NOW);
        }
        assert!(matches!(
            state.recall(at(140), &Tag([140; 32])),
            Memory::SameTag(_)
        ));
        assert!(matches!(
            state.recall(at(122), &Tag([122; 32])),
            Memory::SameTag(_)
        ));
        assert_eq!(state.recall(at(140), &Tag([1; 32])), Memory::OtherTag);
        assert_eq!(state.recall(at(139), &Tag([1; 32])), Memory::Unseen);
        assert_eq!(state.recall(at(120), &Tag([120; 32])), Memory::TooOld);
    }

    #[test]
    fn window_tells_passed_over_from_accepted_where_the_ring_no_longer_does() {
        let at = |number: u64| Sequence::new(number).unwrap();
        let mut state = DeviceState::first(at(100), NOW, NEVER, SessionId(7));
        state.window = 1 << 40 | 1 << 42 | 1;
        state.remember(at(100), &Tag([1; 32]), NOW);
        let recall = |number| state.recall(at(number), &Tag([2; 32]));
        assert_eq!(recall(100), Memory::OtherTag);
        assert_eq!(recall(59), Memory::Unseen);
        assert_eq!(recall(60), Memory::TooOld);
        assert_eq!(recall(58), Memory::TooOld);
        assert_eq!(recall(57), Memory::TooOld);
        assert_eq!(recall(36), Memory::TooOld);
    }
}
