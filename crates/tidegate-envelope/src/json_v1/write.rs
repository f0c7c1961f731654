//! Signing: writes a message in its canonical form. Needs no allocator.

use crate::id::{Boot, KeyEpoch, MessageDeviceId, Sequence};
use crate::json::{write_float, write_text};
use crate::key::{MacKey, RunningMac};
use crate::reading::{Channels, SortedChannels};
use crate::time::Timestamp;
#[cfg(feature = "alloc")]
use alloc::{string::String, vec::Vec};
use core::fmt::{self, Write};

/// A message to be signed.
///
/// The measured values may lie in any [`SortedChannels`]: [`Channels`], or without an allocator a
/// [`ChannelSlice`](crate::reading::ChannelSlice).
#[derive(Debug)]
pub struct Draft<'a, C = Channels> {
    /// The device's message id.
    pub device: &'a MessageDeviceId,
    /// When it measured.
    pub timestamp: Timestamp,
    /// Above every number the device has used.
    pub sequence: Sequence,
    /// How often the publisher has started.
    pub boot: Option<Boot>,
    /// The key epoch; needed only when it is not the first.
    pub epoch: Option<KeyEpoch>,
    /// For example `operational`.
    pub status: &'a str,
    /// The measured values.
    pub channels: &'a C,
}

// Derived, they would ask the same of the channels, which are only borrowed.
impl<C> Copy for Draft<'_, C> {}
impl<C> Clone for Draft<'_, C> {
    fn clone(&self) -> Self {
        *self
    }
}

/// Signs a message: its canonical form with the MAC as one more member.
#[cfg(feature = "alloc")]
#[must_use]
pub fn sign<C: SortedChannels>(draft: &Draft<'_, C>, key: &MacKey) -> Vec<u8> {
    let mut text = String::with_capacity(512);
    sign_into(draft, key, &mut text).expect("a string takes everything");
    text.into_bytes()
}

/// Signs a message into a sink. Needs no allocator, so a device may write into a fixed buffer.
///
/// An error is the sink's: it has no more room.
pub fn sign_into<C: SortedChannels>(draft: &Draft<'_, C>, key: &MacKey, out: &mut impl Write) -> fmt::Result {
    let mut signed = Signed {
        out,
        mac: key.start(),
    };
    write_members(draft, &mut signed)?;
    // The brace is part of what is signed, but the MAC goes before it.
    signed.mac.update(b"}");
    let tag = signed.mac.finish();
    write!(out, ", \"hmac\": \"{tag}\"}}")
}

/// Passes everything on, and signs it.
struct Signed<'o, W> {
    out: &'o mut W,
    mac: RunningMac,
}

impl<W: Write> Write for Signed<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.mac.update(text.as_bytes());
        self.out.write_str(text)
    }
}

/// Writes the canonical form of a draft up to its last brace; members in the order of their names.
fn write_members<C: SortedChannels>(draft: &Draft<'_, C>, out: &mut impl Write) -> fmt::Result {
    out.write_char('{')?;
    if let Some(Boot(boot)) = draft.boot {
        write!(out, "\"boot\": {boot}, ")?;
    }
    write!(out, "\"device_id\": \"{}\", ", draft.device)?;
    if let Some(KeyEpoch(epoch)) = draft.epoch {
        write!(out, "\"kid\": {epoch}, ")?;
    }
    out.write_str("\"readings\": {")?;
    for (position, (name, value)) in draft.channels.sorted().enumerate() {
        if position > 0 {
            out.write_str(", ")?;
        }
        write_text(name, out)?;
        out.write_str(": ")?;
        write_float(value, out)?;
    }
    write!(out, "}}, \"sequence\": {}, \"status\": ", draft.sequence)?;
    write_text(draft.status, out)?;
    write!(out, ", \"timestamp\": \"{}\"", draft.timestamp)
}

#[cfg(test)]
#[cfg(feature = "alloc")]
mod tests {
    use super::super::reading;
    use super::*;
    use crate::json::Document;
    use crate::reading::ChannelSlice;
    use crate::sink::SliceSink;
    use alloc::vec;

    #[test]
    fn signed_draft_reads_back_and_verifies_under_its_key_only() {
        let device = MessageDeviceId::new("HYDROLOGIC-Device-001").unwrap();
        let channels = Channels::new(vec![
            ("b\u{e9}".into(), 1e-7),
            ("a".into(), 60.0),
            ("c\"".into(), -0.5),
        ])
        .unwrap();
        let draft = Draft {
            device: &device,
            timestamp: Timestamp::from_micros(1_771_472_105_551_904),
            sequence: Sequence::new(7).unwrap(),
            boot: Some(Boot(3)),
            epoch: Some(KeyEpoch(1)),
            status: "operational \u{1f600}",
            channels: &channels,
        };
        let key = MacKey::from_bytes(b"key");
        let payload = sign(&draft, &key);
        let mut buffer = [0; 512];
        let mut sink = SliceSink::new(&mut buffer[..payload.len()]);
        sign_into(&draft, &key, &mut sink).unwrap();
        assert_eq!(sink.written(), payload);
        let mut sink = SliceSink::new(&mut buffer[..payload.len() - 1]);
        assert_eq!(sign_into(&draft, &key, &mut sink), Err(fmt::Error));
        let document = Document::parse(&payload).unwrap();
        let mut canonical = Vec::new();
        document.canonical(&mut canonical);
        assert!(key.check(&canonical, document.hmac().unwrap()));
        assert!(!MacKey::from_bytes(b"kez").check(&canonical, document.hmac().unwrap()));
        let read = reading(&document).unwrap();
        assert_eq!(
            (read.boot, read.epoch, read.sequence),
            (draft.boot, draft.epoch, Some(draft.sequence))
        );
        assert_eq!((read.timestamp, read.channels), (Some(draft.timestamp), channels));
    }

    #[test]
    fn draft_over_a_slice_is_signed_as_one_over_channels() {
        let device = MessageDeviceId::new("d").unwrap();
        let mut values = [("flow_rate", 50.0), ("a", 1.5), ("b", -0.0)];
        let owned = values.map(|(name, value)| (name.into(), value)).into();
        let draft = Draft {
            device: &device,
            timestamp: Timestamp::from_micros(0),
            sequence: Sequence::MAX,
            boot: None,
            epoch: None,
            status: "",
            channels: &Channels::new(owned).unwrap(),
        };
        let key = MacKey::from_bytes(b"key");
        let sliced = Draft {
            device: draft.device,
            timestamp: draft.timestamp,
            sequence: draft.sequence,
            boot: draft.boot,
            epoch: draft.epoch,
            status: draft.status,
            channels: &ChannelSlice::new(&mut values).unwrap(),
        };
        assert_eq!(sign(&sliced, &key), sign(&draft, &key));
    }
}
