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

/// A device's replay state.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// The last accepted messages, in a ring.
    recent: [Accepted; RECENT],
    /// Where the next one goes.
    next: u8,
}

/// One accepted message, as far as it is needed to know it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Accepted {
    /// The lower half of its sequence; 0 with `tag` 0 marks an unused place.
    sequence_low: u32,
    /// The first bytes of its MAC.
    tag: u32,
    /// When it was accepted, seconds since 1970.
    pub(crate) at_s: u32,
    /// How often it came again since.
    pub(crate) copies: u8,
}

/// What is known about a sequence number at or below the mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Accepted with this very tag; its place in the ring.
    SameTag(usize),
    /// Accepted with another tag.
    OtherTag,
    /// Younger than the oldest remembered, and not among them.
    Unseen,
    /// Too old to tell.
    TooOld,
}

impl DeviceState {
    /// The state after a device's first message.
    pub(crate) fn first(mark: Sequence, newest: Timestamp, session: SessionId) -> Self {
        Self {
            mark,
            newest,
            floor: Timestamp::from_micros(i64::MIN),
            window: 0,
            session,
            boot: None,
            epoch: KeyEpoch(0),
            recent: [Accepted::default(); RECENT],
            next: 0,
        }
    }

    /// Forgets the single messages: the publisher counts from the beginning.
    pub(crate) fn restart(&mut self, mark: Sequence) {
        self.floor = self.newest;
        self.mark = mark;
        self.window = 0;
        self.recent = [Accepted::default(); RECENT];
        self.next = 0;
    }

    /// Remembers an accepted message.
    pub(crate) fn remember(&mut self, sequence: Sequence, tag: &Tag, at: Timestamp) {
        let at_s = u32::try_from(at.as_millis() / 1_000).unwrap_or(0);
        let place = usize::from(self.next) % RECENT;
        self.recent[place] = Accepted {
            sequence_low: low(sequence),
            tag: short(tag),
            at_s,
            copies: 0,
        };
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
        // Distances below the mark, since only the lower halves are kept.
        let behind = |low_half: u32| low(self.mark).wrapping_sub(low_half);
        let oldest = used().map(|(_, accepted)| behind(accepted.sequence_low)).max();
        let distance = self.mark.get() - sequence.get();
        if oldest.is_some_and(|oldest| distance < u64::from(oldest)) {
            Memory::Unseen
        } else {
            Memory::TooOld
        }
    }

    pub(crate) fn accepted(&mut self, place: usize) -> &mut Accepted {
        &mut self.recent[place]
    }

    /// The highest accepted sequence.
    #[must_use]
    pub fn mark(&self) -> Sequence {
        self.mark
    }

    /// The newest accepted timestamp.
    #[must_use]
    pub fn newest(&self) -> Timestamp {
        self.newest
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
    /// | 41, 42 to 45 | 1 with a boot counter else 0; the counter |
    /// | 46, 47 | key epoch |
    /// | 48 | place of the next recent message |
    /// | 49 on | ten times: lower half of the sequence, tag, seconds since 1970 (4 bytes each), copies (1 byte) |
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(49 + RECENT * 13);
        bytes.push(LAYOUT);
        bytes.extend(self.mark.get().to_le_bytes());
        bytes.extend(self.newest.as_micros().to_le_bytes());
        bytes.extend(self.floor.as_micros().to_le_bytes());
        bytes.extend(self.window.to_le_bytes());
        bytes.extend(self.session.0.to_le_bytes());
        bytes.push(u8::from(self.boot.is_some()));
        bytes.extend(self.boot.map_or(0, |boot| boot.0).to_le_bytes());
        bytes.extend(self.epoch.0.to_le_bytes());
        bytes.push(self.next);
        for accepted in &self.recent {
            bytes.extend(accepted.sequence_low.to_le_bytes());
            bytes.extend(accepted.tag.to_le_bytes());
            bytes.extend(accepted.at_s.to_le_bytes());
            bytes.push(accepted.copies);
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
        let has_boot = take::<1>(&mut rest)? == [1];
        let boot = Boot(u32::from_le_bytes(take(&mut rest)?));
        let epoch = KeyEpoch(u16::from_le_bytes(take(&mut rest)?));
        let [next] = take(&mut rest)?;
        let mut recent = [Accepted::default(); RECENT];
        for accepted in &mut recent {
            accepted.sequence_low = u32::from_le_bytes(take(&mut rest)?);
            accepted.tag = u32::from_le_bytes(take(&mut rest)?);
            accepted.at_s = u32::from_le_bytes(take(&mut rest)?);
            [accepted.copies] = take(&mut rest)?;
        }
        rest.is_empty().then_some(Self {
            mark,
            newest,
            floor,
            window,
            session,
            boot: has_boot.then_some(boot),
            epoch,
            recent,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::NOW;

    #[test]
    fn state_is_small_and_survives_its_bytes() {
        assert!(size_of::<DeviceState>() <= 256, "{}", size_of::<DeviceState>());
        let mut state = DeviceState::first(Sequence::new(1 << 40).unwrap(), NOW, SessionId(7));
        assert!(state.to_bytes().len() <= 200);
        state.boot = Some(Boot(3));
        state.remember(state.mark, &Tag([5; 32]), NOW);
        assert_eq!(DeviceState::from_bytes(&state.to_bytes()), Some(state.clone()));
        let bytes = state.to_bytes();
        assert_eq!(DeviceState::from_bytes(&bytes[1..]), None);
        assert_eq!(DeviceState::from_bytes(&bytes[..bytes.len() - 1]), None);
        assert_eq!(DeviceState::from_bytes(&[&bytes[..], &[0]].concat()), None);
    }

    #[test]
    fn recent_messages_are_told_from_unseen_and_from_old_ones() {
        let at = |number: u64| Sequence::new(number).unwrap();
        let mut state = DeviceState::first(at(100), NOW, SessionId(7));
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
}
