//! What a signed JSON object says, and whether it is a json-v1 message at all.

use super::MAX_STATUS_BYTES;
use crate::id::{Boot, KeyEpoch, MessageDeviceId, Sequence};
use crate::json::{Document, Member, Members};
use crate::reading::{Channels, MAX_CHANNEL_BYTES, MAX_CHANNELS, Reading};
use crate::reason::Reason;
use crate::time::Timestamp;
use alloc::vec::Vec;
use compact_str::CompactString;

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
/// Ambiguities are found first, so that [`SchemaError::reason`] is `malformed` whatever else is
/// wrong. A verifier asks before it checks the MAC: `malformed` refuses the message at once,
/// `bad_schema` only once the MAC has held.
pub fn reading(document: &Document<'_>) -> Result<Reading, SchemaError> {
    let said = Said::of(document.members());
    let timestamp = timestamp(said.timestamp)?;
    let sequence = sequence(said.sequence)?;
    let device = match said.device_id.ok_or(SchemaError::Missing("device_id"))? {
        Member::Text(text) => MessageDeviceId::new(text).ok(),
        _ => None,
    };
    let device = device.ok_or(SchemaError::Unfit(
        "device_id",
        "1 to 64 characters of A-Z a-z 0-9 . _ -",
    ))?;
    let channels = match said.readings.ok_or(SchemaError::Missing("readings"))? {
        Member::Object(readings) => channels(readings)?,
        _ => return Err(SchemaError::Unfit("readings", "an object")),
    };
    Ok(Reading {
        device: Some(device),
        timestamp: Some(timestamp.ok_or(SchemaError::Missing("timestamp"))?),
        sequence: Some(sequence.ok_or(SchemaError::Missing("sequence"))??),
        boot: integer(said.boot, "boot", "an integer of 32 bits")?.map(Boot),
        epoch: integer(said.kid, "kid", EPOCH)?.map(KeyEpoch),
        status: status(said.status)?,
        channels,
    })
}

/// The key epoch that a message names, where it names one.
///
/// A `kid` that is no epoch names a key that cannot exist.
pub fn epoch(document: &Document<'_>) -> Result<Option<KeyEpoch>, SchemaError> {
    Ok(integer(document.members().find("kid"), "kid", EPOCH)?.map(KeyEpoch))
}

const EPOCH: &str = "an integer of 16 bits";

/// The members that json-v1 knows, found in one walk over all of them.
#[derive(Default)]
struct Said<'d> {
    boot: Option<Member<'d>>,
    device_id: Option<Member<'d>>,
    kid: Option<Member<'d>>,
    readings: Option<Member<'d>>,
    sequence: Option<Member<'d>>,
    status: Option<Member<'d>>,
    timestamp: Option<Member<'d>>,
}

impl<'d> Said<'d> {
    fn of(members: Members<'d>) -> Self {
        let mut said = Self::default();
        for (name, member) in members.iter() {
            let place = match name {
                "boot" => &mut said.boot,
                "device_id" => &mut said.device_id,
                "kid" => &mut said.kid,
                "readings" => &mut said.readings,
                "sequence" => &mut said.sequence,
                "status" => &mut said.status,
                "timestamp" => &mut said.timestamp,
                _ => continue,
            };
            *place = Some(member);
        }
        said
    }
}

fn timestamp(member: Option<Member<'_>>) -> Result<Option<Timestamp>, SchemaError> {
    let ambiguous = SchemaError::Ambiguous("timestamp", "RFC 3339 text with Z or an offset");
    match member {
        None => Ok(None),
        Some(Member::Text(text)) => Timestamp::parse_rfc3339(text).map(Some).ok_or(ambiguous),
        Some(_) => Err(ambiguous),
    }
}

/// The outer error is for what is no integer, the inner for an integer out of range.
fn sequence(member: Option<Member<'_>>) -> Result<Option<Result<Sequence, SchemaError>>, SchemaError> {
    let number = match member {
        None => return Ok(None),
        Some(Member::Integer(number)) => u64::try_from(number).ok().and_then(Sequence::new),
        Some(Member::LargeInteger(_)) => None,
        Some(_) => return Err(SchemaError::Ambiguous("sequence", "an integer")),
    };
    Ok(Some(number.ok_or(SchemaError::Unfit(
        "sequence",
        "an integer from 1 to 2^53",
    ))))
}

fn integer<T: TryFrom<i64>>(
    member: Option<Member<'_>>,
    name: &'static str,
    what: &'static str,
) -> Result<Option<T>, SchemaError> {
    match member {
        None => Ok(None),
        Some(Member::Integer(number)) => T::try_from(number)
            .map(Some)
            .map_err(|_| SchemaError::Unfit(name, what)),
        Some(_) => Err(SchemaError::Unfit(name, what)),
    }
}

fn status(member: Option<Member<'_>>) -> Result<CompactString, SchemaError> {
    match member {
        None => Ok(CompactString::default()),
        Some(Member::Text(text)) => Ok(CompactString::new(
            &text[..text.floor_char_boundary(MAX_STATUS_BYTES)],
        )),
        Some(_) => Err(SchemaError::Unfit("status", "text")),
    }
}

/// The numbers of an object, by name.
fn channels(readings: Members<'_>) -> Result<Channels, SchemaError> {
    let mut values = Vec::with_capacity(readings.iter().len().min(MAX_CHANNELS + 1));
    for (name, value) in readings.iter().take(MAX_CHANNELS + 1) {
        values.push((
            CompactString::new(name),
            value.number().ok_or(SchemaError::Channels)?,
        ));
    }
    Channels::new(values).ok_or(SchemaError::Channels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Reading, SchemaError> {
        reading(&Document::parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn epoch_is_the_one_that_a_message_names() {
        let named = |text: &str| epoch(&Document::parse(text.as_bytes()).unwrap());
        assert_eq!(named(r#"{"kid": 3}"#).unwrap(), Some(KeyEpoch(3)));
        assert_eq!(named(r#"{"kid": 65535}"#).unwrap(), Some(KeyEpoch(65_535)));
        assert_eq!(named("{}").unwrap(), None);
        for wrong in [r#"{"kid": 65536}"#, r#"{"kid": -1}"#, r#"{"kid": "3"}"#] {
            assert!(named(wrong).is_err(), "{wrong}");
        }
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
            ("\"2026-01-01T00:00:00Z\"", "1767225600", Reason::Malformed),
            ("\"timestamp\"", "\"time\"", Reason::BadSchema),
            ("\"readings\"", "\"values\"", Reason::BadSchema),
            ("50", "1e308, \"x\": null", Reason::BadSchema),
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
    fn ambiguity_outweighs_whatever_else_is_wrong() {
        let both = RIGHT
            .replace("\"d\"", "1")
            .replace("\"sequence\": 1", "\"sequence\": 1.0");
        assert_eq!(parse(&both).map_err(SchemaError::reason), Err(Reason::Malformed));
    }

    #[test]
    fn integers_of_any_size_are_readings_while_a_double_holds_them() {
        let big = |digits: usize| RIGHT.replace("50", &"9".repeat(digits));
        assert_eq!(parse(&big(30)).unwrap().channels.get("flow_rate"), Some(1e30));
        assert!(parse(&big(308)).is_ok());
        assert_eq!(parse(&big(309)), Err(SchemaError::Channels));
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
}
