//! The older unsigned forms, taken at the levels that do not check signatures.

use crate::id::{Boot, MessageDeviceId, Sequence};
use crate::json::{Document, Member, Members};
use crate::json_v1::MAX_STATUS_BYTES;
use crate::reading::{Channels, MAX_CHANNEL_BYTES, MAX_CHANNELS, Reading};
use crate::time::Timestamp;
use alloc::vec::Vec;
use compact_str::CompactString;

/// Members that are not channels, whatever their type.
const NOT_CHANNELS: [&str; 8] = [
    "boot",
    "counter",
    "device_id",
    "kid",
    "sequence",
    "timestamp",
    "ts",
    "zone",
];
/// Longest zone text that is kept, in bytes.
const MAX_ZONE_BYTES: usize = 64;

/// A message that nobody has signed, as far as it can be understood.
#[derive(Debug, Clone, PartialEq)]
pub struct UnsignedReading {
    /// What it says.
    pub reading: Reading,
    /// The zone that it names, in its own spelling.
    pub zone: Option<CompactString>,
}

/// Reads a flat, wrapped, or json-v1-like message. Nothing is required: what is missing or of
/// another type is left out.
#[must_use]
pub fn reading(document: &Document<'_>) -> UnsignedReading {
    let top = document.members();
    let members = match top.find("payload") {
        Some(Member::Object(wrapped)) => wrapped,
        _ => top,
    };
    let values = match members.find("readings") {
        Some(Member::Object(readings)) => readings,
        _ => members,
    };
    let integer = |name: &str| match members.find(name) {
        Some(Member::Integer(number)) => Some(number),
        _ => None,
    };
    let time = text(members, "timestamp").or_else(|| text(members, "ts"));
    let status = text(members, "status")
        .or_else(|| text(members, "safety_status"))
        .unwrap_or_default();
    let sequence = integer("sequence").or_else(|| integer("counter"));
    UnsignedReading {
        reading: Reading {
            device: text(members, "device_id").and_then(|name| MessageDeviceId::new(name).ok()),
            timestamp: time.and_then(Timestamp::parse_rfc3339),
            sequence: sequence
                .and_then(|number| u64::try_from(number).ok())
                .and_then(Sequence::new),
            boot: integer("boot")
                .and_then(|number| u32::try_from(number).ok())
                .map(Boot),
            epoch: None,
            status: shortened(status, MAX_STATUS_BYTES),
            channels: channels(values),
        },
        zone: text(members, "zone").map(|zone| shortened(zone, MAX_ZONE_BYTES)),
    }
}

/// The name that json-v1 uses for a channel of an older form, so that readings can be shown together.
#[must_use]
pub fn canonical_channel(older: &str) -> &str {
    match older {
        "pressure_psi" => "pressure_upstream",
        "flow_rate_gpm" | "flow_rate_lpm" => "flow_rate",
        "valve_position" => "gate_a_position",
        other => other,
    }
}

fn text<'d>(members: Members<'d>, name: &str) -> Option<&'d str> {
    match members.find(name) {
        Some(Member::Text(text)) => Some(text),
        _ => None,
    }
}

fn shortened(text: &str, most: usize) -> CompactString {
    CompactString::new(&text[..text.floor_char_boundary(most)])
}

fn channels(members: Members<'_>) -> Channels {
    let mut values: Vec<(CompactString, f64)> = Vec::new();
    // A channel's own name outranks its older ones.
    let (own, older): (Vec<_>, Vec<_>) = members
        .iter()
        .filter(|(name, _)| !NOT_CHANNELS.contains(name))
        .filter_map(|(name, value)| Some((name, value.number()?)))
        .partition(|(name, _)| canonical_channel(name) == *name);
    for (name, number) in own.into_iter().chain(older) {
        let name = canonical_channel(name);
        let known = values.iter().any(|(other, _)| other == name);
        if !known && name.len() <= MAX_CHANNEL_BYTES && values.len() < MAX_CHANNELS {
            values.push((CompactString::new(name), number));
        }
    }
    Channels::new(values).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> UnsignedReading {
        reading(&Document::parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn flat_wrapped_and_unsigned_json_v1_are_understood() {
        let flat = parse(
            r#"{"device_id": "d1", "timestamp": "2026-01-01T00:00:00Z", "counter": 5, "pressure_upstream": 60.0, "flow_rate": 50}"#,
        );
        assert_eq!(flat.reading.sequence, Sequence::new(5));
        assert_eq!(flat.reading.channels.get("flow_rate"), Some(50.0));
        assert_eq!(flat.reading.channels.len(), 2);

        let wrapped = parse(
            r#"{"payload": {"device_id": "d2", "ts": "2026-01-01T00:00:00Z", "zone": "pool_spa", "pressure_psi": 61.5, "flow_rate_gpm": 40.0, "valve_position": 45, "safety_status": "ok"}}"#,
        );
        assert_eq!(wrapped.zone.as_deref(), Some("pool_spa"));
        assert_eq!(wrapped.reading.channels.get("pressure_upstream"), Some(61.5));
        assert_eq!(wrapped.reading.channels.get("gate_a_position"), Some(45.0));
        assert_eq!(wrapped.reading.status, "ok");

        let nested = parse(r#"{"device_id": "d3", "readings": {"flow_rate": 1.5, "note": "x"}}"#);
        assert_eq!(nested.reading.channels.get("flow_rate"), Some(1.5));
    }

    #[test]
    fn own_name_of_a_channel_outranks_its_older_ones() {
        let both = parse(r#"{"pressure_psi": 1, "pressure_upstream": 2, "flow_rate_lpm": 3}"#);
        assert_eq!(both.reading.channels.get("pressure_upstream"), Some(2.0));
        assert_eq!(both.reading.channels.get("flow_rate"), Some(3.0));
        assert_eq!(both.reading.channels.len(), 2);
    }

    #[test]
    fn channels_beyond_the_limits_are_left_out() {
        let members: Vec<_> = (0..100).map(|i| alloc::format!("\"c{i}\": {i}")).collect();
        let many = parse(&alloc::format!("{{{}}}", members.join(", ")));
        assert_eq!(many.reading.channels.len(), MAX_CHANNELS);
        let long = parse(&alloc::format!(
            "{{\"{}\": 1}}",
            "c".repeat(MAX_CHANNEL_BYTES + 1)
        ));
        assert!(long.reading.channels.is_empty());
    }

    #[test]
    fn members_of_wrong_type_are_left_out() {
        let odd = parse(
            r#"{"device_id": [1], "timestamp": 5, "sequence": "1", "status": null, "flow_rate": "fast"}"#,
        );
        assert_eq!(odd.reading.device, None);
        assert_eq!(odd.reading.sequence, None);
        assert!(odd.reading.channels.is_empty());
    }
}
