//! json-v1: the signed message format (docs/envelope.md).

use crate::id::{Boot, KeyEpoch, MessageDeviceId, Sequence};
use crate::json::{Document, Member, Members, write_float, write_text};
use crate::key::{MacKey, Tag};
use crate::reading::{Channels, MAX_CHANNEL_BYTES, MAX_CHANNELS, Reading};
use crate::reason::Reason;
use crate::time::Timestamp;
use alloc::string::String;
use alloc::vec::Vec;
use compact_str::CompactString;
use core::fmt::{self, Write};

/// Longest status text that is kept, in bytes.
pub const MAX_STATUS_BYTES: usize = 64;

/// Why a JSON object is not a json-v1 message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// A member that must be there is not.
    #[error("the member `{0}` is missing")]
    Missing(&'static str),
    /// A member has the wrong type or lies outside its range.
    #[error("the member `{0}` must be {1}")]
    Unfit(&'static str, &'static str),
    /// A sequence that other parsers could take for a number, or a time that is none.
    #[error("the member `{0}` must be {1}")]
    Ambiguous(&'static str, &'static str),
    /// Too many channels, or a name that is too long.
    #[error(
        "`readings` must hold at most {MAX_CHANNELS} finite numbers with names of at most {MAX_CHANNEL_BYTES} bytes"
    )]
    Channels,
}

impl SchemaError {
    /// `malformed` where parsers could differ about the message, else `bad_schema`.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::Ambiguous(..) => Reason::Malformed,
            Self::Missing(_) | Self::Unfit(..) | Self::Channels => Reason::BadSchema,
        }
    }
}

/// Reads a signed message. Its MAC is not checked here.
///
/// Ambiguities are found first, so that [`SchemaError::reason`] is `malformed` whatever else is wrong.
pub fn reading(document: &Document<'_>) -> Result<Reading, SchemaError> {
    let members = document.members();
    let timestamp = timestamp(members)?;
    let sequence = match members.find("sequence") {
        None => None,
        Some(Member::Integer(number)) => Some(number),
        Some(Member::LargeInteger) => Some(i64::MAX),
        Some(_) => return Err(SchemaError::Ambiguous("sequence", "an integer")),
    };
    let sequence = sequence.ok_or(SchemaError::Missing("sequence"))?;
    let sequence = u64::try_from(sequence).ok().and_then(Sequence::new);
    let sequence = sequence.ok_or(SchemaError::Unfit("sequence", "an integer from 1 to 2^53"))?;
    let device = match members
        .find("device_id")
        .ok_or(SchemaError::Missing("device_id"))?
    {
        Member::Text(text) => MessageDeviceId::new(text).ok(),
        _ => None,
    };
    let device = device.ok_or(SchemaError::Unfit(
        "device_id",
        "1 to 64 characters of A-Z a-z 0-9 . _ -",
    ))?;
    let channels = match members.find("readings").ok_or(SchemaError::Missing("readings"))? {
        Member::Object(readings) => channels(readings)?,
        _ => return Err(SchemaError::Unfit("readings", "an object")),
    };
    let boot = integer(members, "boot", "an integer of 32 bits")?.map(Boot);
    Ok(Reading {
        device: Some(device),
        timestamp: Some(timestamp.ok_or(SchemaError::Missing("timestamp"))?),
        sequence: Some(sequence),
        boot,
        epoch: epoch(document)?,
        status: status(members)?,
        channels,
    })
}

/// The key epoch that a message names, where it names one.
pub fn epoch(document: &Document<'_>) -> Result<Option<KeyEpoch>, SchemaError> {
    Ok(integer(document.members(), "kid", "an integer of 16 bits")?.map(KeyEpoch))
}

fn timestamp(members: Members<'_>) -> Result<Option<Timestamp>, SchemaError> {
    let ambiguous = SchemaError::Ambiguous("timestamp", "RFC 3339 text with Z or an offset");
    match members.find("timestamp") {
        None => Ok(None),
        Some(Member::Text(text)) => Timestamp::parse_rfc3339(text).map(Some).ok_or(ambiguous),
        Some(_) => Err(ambiguous),
    }
}

fn integer<T: TryFrom<i64>>(
    members: Members<'_>,
    name: &'static str,
    what: &'static str,
) -> Result<Option<T>, SchemaError> {
    match members.find(name) {
        None => Ok(None),
        Some(Member::Integer(number)) => T::try_from(number)
            .map(Some)
            .map_err(|_| SchemaError::Unfit(name, what)),
        Some(_) => Err(SchemaError::Unfit(name, what)),
    }
}

fn status(members: Members<'_>) -> Result<CompactString, SchemaError> {
    match members.find("status") {
        None => Ok(CompactString::default()),
        Some(Member::Text(text)) => Ok(CompactString::new(
            &text[..text.floor_char_boundary(MAX_STATUS_BYTES)],
        )),
        Some(_) => Err(SchemaError::Unfit("status", "text")),
    }
}

/// The numbers of an object, by name.
pub(crate) fn channels(readings: Members<'_>) -> Result<Channels, SchemaError> {
    let mut values = Vec::with_capacity(readings.iter().len().min(MAX_CHANNELS + 1));
    for (name, value) in readings.iter().take(MAX_CHANNELS + 1) {
        values.push((
            CompactString::new(name),
            value.number().ok_or(SchemaError::Channels)?,
        ));
    }
    Channels::new(values).ok_or(SchemaError::Channels)
}

/// A message to be signed.
#[derive(Debug, Clone, Copy)]
pub struct Draft<'a> {
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
    pub channels: &'a Channels,
}

/// Signs a message: its canonical form with the MAC as one more member.
#[must_use]
pub fn sign(draft: &Draft<'_>, key: &MacKey) -> Vec<u8> {
    let mut text = String::with_capacity(512);
    write_canonical(draft, &mut text).expect("a string takes everything");
    let tag = key.mac(text.as_bytes());
    text.pop();
    write!(text, ", \"hmac\": \"{tag}\"}}").expect("a string takes everything");
    text.into_bytes()
}

/// Writes the canonical form of a draft; members in the order of their names.
///
/// Needs no allocator, so a device may write into a fixed buffer.
pub fn write_canonical(draft: &Draft<'_>, out: &mut impl Write) -> fmt::Result {
    out.write_char('{')?;
    if let Some(Boot(boot)) = draft.boot {
        write!(out, "\"boot\": {boot}, ")?;
    }
    write!(out, "\"device_id\": \"{}\", ", draft.device)?;
    if let Some(KeyEpoch(epoch)) = draft.epoch {
        write!(out, "\"kid\": {epoch}, ")?;
    }
    out.write_str("\"readings\": {")?;
    for (position, (name, value)) in draft.channels.iter().enumerate() {
        if position > 0 {
            out.write_str(", ")?;
        }
        write_text(name, out)?;
        out.write_str(": ")?;
        write_float(value, out)?;
    }
    write!(out, "}}, \"sequence\": {}, \"status\": ", draft.sequence)?;
    write_text(draft.status, out)?;
    write!(out, ", \"timestamp\": \"{}\"}}", draft.timestamp)
}

/// The tag of a message that verifies under `key`, or `None`.
#[must_use]
pub fn verified_tag(document: &Document<'_>, key: &MacKey, canonical: &[u8]) -> Option<Tag> {
    key.verified(canonical, document.hmac()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn parse(text: &str) -> Result<Reading, SchemaError> {
        reading(&Document::parse(text.as_bytes()).unwrap())
    }

    const RIGHT: &str = r#"{"device_id": "d", "timestamp": "2026-01-01T00:00:00Z", "sequence": 1, "readings": {"flow_rate": 50}, "status": "operational"}"#;

    #[test]
    fn message_one_step_from_right_is_refused_with_its_reason() {
        assert!(parse(RIGHT).is_ok());
        for (from, to, reason) in [
            ("\"sequence\": 1", "\"sequence\": 1.0", Reason::Malformed),
            ("\"sequence\": 1", "\"sequence\": \"1\"", Reason::Malformed),
            ("\"sequence\": 1", "\"sequence\": true", Reason::Malformed),
            ("00Z", "00", Reason::Malformed),
            ("\"sequence\": 1", "\"sequence\": 0", Reason::BadSchema),
            (
                "\"sequence\": 1",
                "\"sequence\": 9007199254740993",
                Reason::BadSchema,
            ),
            (
                "\"sequence\": 1",
                "\"sequence\": 123456789012345678901234567890",
                Reason::BadSchema,
            ),
            ("\"sequence\": 1", "\"number\": 1", Reason::BadSchema),
            (
                "\"device_id\": \"d\"",
                "\"device_id\": \"<d>\"",
                Reason::BadSchema,
            ),
            ("\"device_id\": \"d\"", "\"device_id\": 1", Reason::BadSchema),
            ("50", "\"50\"", Reason::BadSchema),
            ("{\"flow_rate\": 50}", "[]", Reason::BadSchema),
            ("\"operational\"", "1", Reason::BadSchema),
            ("\"status\": \"operational\"", "\"boot\": -1", Reason::BadSchema),
            ("\"status\": \"operational\"", "\"kid\": 65536", Reason::BadSchema),
        ] {
            assert_eq!(
                parse(&RIGHT.replace(from, to)).map_err(SchemaError::reason),
                Err(reason),
                "{to}"
            );
        }
    }

    #[test]
    fn too_many_channels_are_refused() {
        let object = |count: usize| {
            let members: Vec<_> = (0..count).map(|i| alloc::format!("\"c{i}\": 1")).collect();
            RIGHT.replace("\"flow_rate\": 50", &members.join(", "))
        };
        assert!(parse(&object(MAX_CHANNELS)).is_ok());
        assert_eq!(parse(&object(MAX_CHANNELS + 1)), Err(SchemaError::Channels));
    }

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
}
