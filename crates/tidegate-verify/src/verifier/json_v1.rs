//! Checks 5 to 8 of a json-v1 device.

use super::{Asked, Scratch, Signed};
use crate::verdict::Refusal;
use tidegate_envelope::id::KeyEpoch;
use tidegate_envelope::json::{Document, Member};
use tidegate_envelope::json_v1;
use tidegate_envelope::key::Tag;
use tidegate_envelope::reason::Reason;
use tidegate_envelope::time::Timestamp;

pub(super) fn check(
    asked: &Asked<'_>,
    Scratch { parser, canonical }: &mut Scratch,
) -> Result<Signed, Refusal> {
    let document = parser
        .parse(asked.delivery.payload)
        .map_err(|error| asked.refuse(Reason::Malformed, error.to_string()))?;
    let reading = match json_v1::reading(&document) {
        Err(error) if error.reason() == Reason::Malformed => {
            return Err(asked.refuse(Reason::Malformed, error.to_string()));
        }
        reading => reading,
    };
    let (epoch, tag) = signature(asked, &document, canonical)?;
    // Read from the document, since a message that fails its schema has no reading.
    let claimed = match document.members().find("device_id") {
        Some(Member::Text(claimed)) => Some(claimed),
        _ => None,
    };
    let lateness = || asked.lateness(timestamp(&document)?);
    if let Some(claimed) = claimed.filter(|claimed| *claimed != asked.device.message_id.as_str()) {
        let mut refusal = asked.foreign(claimed);
        refusal.also.extend(reading.err().map(|error| error.reason()));
        refusal.also.extend(lateness());
        return Err(refusal);
    }
    let reading = reading.map_err(|error| {
        let mut refusal = asked.refuse(error.reason(), error.to_string());
        refusal.also.extend(lateness());
        refusal
    })?;
    Ok(Signed { reading, epoch, tag })
}

/// Checks 6 and 7: which of the device's keys signed this?
fn signature(
    asked: &Asked<'_>,
    document: &Document<'_>,
    canonical: &mut Vec<u8>,
) -> Result<(KeyEpoch, Tag), Refusal> {
    let epoch =
        json_v1::epoch(document).map_err(|error| asked.refuse(Reason::UnknownKey, error.to_string()))?;
    let named = epoch.map(|epoch| Ok((epoch, asked.key(epoch)?))).transpose()?;
    let hmac = document
        .hmac()
        .ok_or_else(|| asked.refuse(Reason::MissingMac, "no member `hmac`"))?;
    canonical.clear();
    document.canonical(canonical);
    let signed = match named {
        Some((epoch, key)) => key.verified(canonical, hmac).map(|tag| (epoch, tag)),
        None => asked.device.keys.any(|key| key.verified(canonical, hmac)),
    };
    signed.ok_or_else(|| asked.bad_mac())
}

/// When the message was made, whatever else is wrong with it.
fn timestamp(document: &Document<'_>) -> Option<Timestamp> {
    match document.members().find("timestamp") {
        Some(Member::Text(text)) => Timestamp::parse_rfc3339(text),
        _ => None,
    }
}
