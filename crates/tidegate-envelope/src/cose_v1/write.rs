//! Signing: writes a COSE_Mac0 into the caller's buffer, without an allocator.

use super::item::{ARRAY, BYTES, EMPTY_MAP, FLOAT, FLOAT_BYTES, FRESHNESS_LABEL, Head, NULL, UNSIGNED};
use super::{Freshness, TagLength, mac};
#[cfg(feature = "alloc")]
use super::{MAX_DETACHED_BYTES, MAX_MESSAGE_BYTES};
use crate::id::{Boot, KeyEpoch, Sequence};
use crate::key::MacKey;
use crate::reading::MAX_CHANNELS;
use crate::time::Timestamp;
#[cfg(feature = "alloc")]
use alloc::vec::Vec;

/// A message to be signed, in the attached form.
#[derive(Debug, Clone, Copy)]
pub struct Draft<'a> {
    /// Which of the device's keys signs.
    pub epoch: KeyEpoch,
    /// How often the publisher has started.
    pub boot: Boot,
    /// Above every number the device has used.
    pub sequence: Sequence,
    /// When it measured. Carried in milliseconds: what lies below is cut off.
    pub timestamp: Timestamp,
    /// See [`status_byte`](super::status_byte).
    pub status: u8,
    /// The measured values, in the order of the channels in the device's registry entry; at most
    /// [`MAX_CHANNELS`].
    pub values: &'a [f32],
}

/// Signs a message into `out`, and gives its length. [`MAX_MESSAGE_BYTES`] are always room enough.
///
/// `None` when `out` is too small, when there are too many values or one is not finite, or when
/// the time lies before 1970.
#[must_use]
pub fn sign_into(
    draft: &Draft<'_>,
    length: TagLength,
    key: &MacKey,
    topic: &str,
    out: &mut [u8],
) -> Option<usize> {
    if draft.values.len() > MAX_CHANNELS || !draft.values.iter().all(|value| value.is_finite()) {
        return None;
    }
    let numbers = numbers(draft.boot, draft.sequence, draft.timestamp)?;
    let status = Head::new(UNSIGNED, draft.status.into());
    let count = Head::new(ARRAY, draft.values.len() as u64);
    let payload_bytes = 1
        + numbers.iter().map(Head::len).sum::<usize>()
        + status.len()
        + count.len()
        + draft.values.len() * FLOAT_BYTES;

    let mut writer = Writer { out, used: 0 };
    writer.put(&[0x84, 0x47])?;
    let protected = writer.used;
    writer.protected(2, length, draft.epoch)?;
    let protected = protected..writer.used;
    writer.put(&[EMPTY_MAP])?;
    writer.put(Head::new(BYTES, payload_bytes as u64).as_bytes())?;
    let payload = writer.used;
    writer.put(&[0x85])?;
    writer.heads(&numbers)?;
    writer.heads(&[status, count])?;
    for value in draft.values {
        writer.put(&[FLOAT])?;
        writer.put(&value.to_be_bytes())?;
    }
    let payload = payload..writer.used;
    let tag = mac::tag(key, length, &writer.out[protected], topic, &writer.out[payload]);
    writer.tag(length, &tag.0)
}

/// Signs `payload`, which stays as it is, for the user property
/// [`DETACHED_PROPERTY`](super::DETACHED_PROPERTY): writes the COSE_Mac0 into `out`, and gives its
/// length. [`MAX_DETACHED_BYTES`] are always room enough.
///
/// `None` when `out` is too small, or when the time lies before 1970.
#[must_use]
pub fn sign_detached_into(
    freshness: Freshness,
    epoch: KeyEpoch,
    length: TagLength,
    key: &MacKey,
    topic: &str,
    payload: &[u8],
    out: &mut [u8],
) -> Option<usize> {
    let numbers = numbers(freshness.boot, freshness.sequence, freshness.timestamp)?;
    let protected_bytes = 7 + FRESHNESS_LABEL.len() + 1 + numbers.iter().map(Head::len).sum::<usize>();
    let mut writer = Writer { out, used: 0 };
    writer.put(&[0x84])?;
    writer.put(Head::new(BYTES, protected_bytes as u64).as_bytes())?;
    let protected = writer.used;
    writer.protected(3, length, epoch)?;
    writer.put(&FRESHNESS_LABEL)?;
    writer.put(&[0x83])?;
    writer.heads(&numbers)?;
    let protected = protected..writer.used;
    writer.put(&[EMPTY_MAP, NULL])?;
    let tag = mac::tag(key, length, &writer.out[protected], topic, payload);
    writer.tag(length, &tag.0)
}

/// As [`sign_into`]; the buffer is always large enough.
#[cfg(feature = "alloc")]
#[must_use]
pub fn sign(draft: &Draft<'_>, length: TagLength, key: &MacKey, topic: &str) -> Option<Vec<u8>> {
    let mut out = [0; MAX_MESSAGE_BYTES];
    let used = sign_into(draft, length, key, topic, &mut out)?;
    Some(out[..used].into())
}

/// As [`sign_detached_into`]; the buffer is always large enough.
#[cfg(feature = "alloc")]
#[must_use]
pub fn sign_detached(
    freshness: Freshness,
    epoch: KeyEpoch,
    length: TagLength,
    key: &MacKey,
    topic: &str,
    payload: &[u8],
) -> Option<Vec<u8>> {
    let mut out = [0; MAX_DETACHED_BYTES];
    let used = sign_detached_into(freshness, epoch, length, key, topic, payload, &mut out)?;
    Some(out[..used].into())
}

/// Boot, sequence and milliseconds as they are encoded in both forms.
fn numbers(boot: Boot, sequence: Sequence, timestamp: Timestamp) -> Option<[Head; 3]> {
    let timestamp_ms = u64::try_from(timestamp.as_millis()).ok()?;
    Some([boot.0.into(), sequence.get(), timestamp_ms].map(|number| Head::new(UNSIGNED, number)))
}

struct Writer<'o> {
    out: &'o mut [u8],
    used: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.used + bytes.len();
        self.out.get_mut(self.used..end)?.copy_from_slice(bytes);
        self.used = end;
        Some(())
    }

    fn heads(&mut self, heads: &[Head]) -> Option<()> {
        heads.iter().try_for_each(|head| self.put(head.as_bytes()))
    }

    /// A map of `members`, with the two that both forms have.
    fn protected(&mut self, members: u8, length: TagLength, epoch: KeyEpoch) -> Option<()> {
        let [high, low] = epoch.0.to_be_bytes();
        self.put(&[0xa0 | members, 0x01, length.algorithm(), 0x04, 0x42, high, low])
    }

    /// The tag, and the length of the whole.
    fn tag(&mut self, length: TagLength, tag: &[u8; 32]) -> Option<usize> {
        self.put(Head::new(BYTES, length.bytes() as u64).as_bytes())?;
        self.put(&tag[..length.bytes()])?;
        Some(self.used)
    }
}
