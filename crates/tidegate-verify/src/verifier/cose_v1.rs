//! Checks 5 to 8 of a cose-v1 device, with the payload inside the signature or beside it.
//!
//! The topic is part of what is signed, so check 8 has no identity to compare where the payload
//! names none.

use super::{Asked, Signed};
use crate::verdict::Refusal;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use compact_str::CompactString;
use tidegate_envelope::cose_v1::{MAX_DETACHED_BYTES, Mac0};
use tidegate_envelope::id::KeyEpoch;
use tidegate_envelope::json::{Document, Member, Members, Parser};
use tidegate_envelope::key::Tag;
use tidegate_envelope::reason::Reason;
use tidegate_envelope::unsigned;

/// Longest user property with a signature: 4 characters for 3 bytes, without padding.
const MAX_PROPERTY_CHARACTERS: usize = MAX_DETACHED_BYTES.div_ceil(3) * 4;

/// A message with its payload inside the signature.
pub(super) fn check(asked: &Asked<'_>, channels: &[CompactString]) -> Result<Signed, Refusal> {
    let mac0 = Mac0::parse(asked.delivery.payload)
        .map_err(|error| asked.refuse(Reason::Malformed, error.to_string()))?;
    let (epoch, tag) = signature(asked, &mac0)?;
    let reading = mac0.reading(channels).map_err(|error| {
        let mut refusal = asked.refuse(error.reason(), error.to_string());
        refusal.also.extend(asked.lateness(mac0.freshness().timestamp));
        refusal
    })?;
    Ok(Signed { reading, epoch, tag })
}

/// A message of any older form, with its signature in a user property.
///
/// A time, a number and an epoch that the payload may hold count for nothing: the signed header's do.
pub(super) fn check_detached(asked: &Asked<'_>, parser: &mut Parser) -> Result<Signed, Refusal> {
    let payload = asked.delivery.payload;
    let malformed = |detail: String| asked.refuse(Reason::Malformed, detail);
    let document = parser
        .parse(payload)
        .map_err(|error| malformed(error.to_string()))?;
    let property = asked
        .delivery
        .detached
        .ok_or_else(|| asked.refuse(Reason::MissingMac, "no user property with a signature"))?;
    let mut structure = [0; MAX_DETACHED_BYTES];
    let structure = decode(property, &mut structure).map_err(malformed)?;
    let mac0 = Mac0::parse_detached(structure, payload).map_err(|error| malformed(error.to_string()))?;
    let (epoch, tag) = signature(asked, &mac0)?;
    let freshness = mac0.freshness();
    if let Some(claimed) = foreign(&document, asked.device.message_id.as_str()) {
        let mut refusal = asked.foreign(claimed);
        refusal.also.extend(asked.lateness(freshness.timestamp));
        return Err(refusal);
    }
    let mut reading = unsigned::reading(&document).reading;
    reading.boot = Some(freshness.boot);
    reading.sequence = Some(freshness.sequence);
    reading.timestamp = Some(freshness.timestamp);
    reading.epoch = Some(epoch);
    Ok(Signed { reading, epoch, tag })
}

/// Checks 6 and 7.
fn signature(asked: &Asked<'_>, mac0: &Mac0<'_>) -> Result<(KeyEpoch, Tag), Refusal> {
    let epoch = mac0.epoch();
    let tag = mac0.verified(asked.key(epoch)?, asked.delivery.topic);
    Ok((epoch, tag.ok_or_else(|| asked.bad_mac())?))
}

/// The bytes of a user property, in a room that every signature fits into.
fn decode<'r>(property: &str, room: &'r mut [u8; MAX_DETACHED_BYTES]) -> Result<&'r [u8], String> {
    if property.len() > MAX_PROPERTY_CHARACTERS {
        let length = property.len();
        return Err(format!(
            "a user property of {length} characters, more than {MAX_PROPERTY_CHARACTERS}"
        ));
    }
    let length = URL_SAFE_NO_PAD
        .decode_slice(property, room)
        .map_err(|error| format!("the user property is not base64url without padding: {error}"))?;
    Ok(&room[..length])
}

/// A `device_id` that is not the device's, at either place where the older forms have one.
fn foreign<'d>(document: &'d Document<'_>, own: &str) -> Option<&'d str> {
    let top = document.members();
    let wrapped = match top.find("payload") {
        Some(Member::Object(wrapped)) => Some(wrapped),
        _ => None,
    };
    let claimed = |members: Members<'d>| match members.find("device_id")? {
        Member::Text(claimed) => Some(claimed).filter(|claimed| *claimed != own),
        _ => Some("no text"),
    };
    claimed(top).or_else(|| wrapped.and_then(claimed))
}
