//! The levels without signatures: whatever can be read is taken, since nothing proves who wrote it.

use super::{Message, Protection, shown};
use crate::delivery::Delivery;
use crate::registry::{Format, Registry};
use crate::verdict::Refusal;
use compact_str::CompactString;
use tidegate_envelope::cose_v1::Mac0;
use tidegate_envelope::id::{KeyEpoch, ZoneId};
use tidegate_envelope::json::Document;
use tidegate_envelope::key::Tag;
use tidegate_envelope::reason::Reason;
use tidegate_envelope::time::Timestamp;
use tidegate_envelope::unsigned::{self, UnsignedReading};

/// A message of any older form, on a telemetry topic or one of theirs; and on the topic of a
/// cose-v1 device what such a device sends, as a signed json-v1 message is one of the older forms too.
pub(super) fn read(registry: &Registry, delivery: &Delivery<'_>, now: Timestamp) -> Result<Message, Refusal> {
    let by_topic = registry.by_topic(delivery.topic);
    let older_zone = registry.topics().older_zone(delivery.topic);
    if by_topic == Err(Reason::TopicInvalid) && older_zone.is_none() {
        let detail = format!("topic {}", shown(delivery.topic));
        return Err(Refusal::new(Reason::TopicInvalid, None, detail));
    }
    let said = match by_topic.map(|index| &registry.device(index).format) {
        Ok(Format::CoseV1 { channels }) => cose_v1(delivery.payload, channels),
        _ => Document::parse(delivery.payload)
            .map(|document| unsigned::reading(&document))
            .map_err(|error| (Reason::Malformed, error.to_string())),
    };
    let said = said.map_err(|(reason, detail)| Refusal::new(reason, by_topic.ok(), detail))?;
    let by_message = || {
        let id = said.reading.device.as_ref()?;
        registry.by_message_id(id)
    };
    let device = by_topic.ok().or_else(by_message);
    let zone = match device {
        Some(index) => Some(registry.device(index).zone.clone()),
        None => older_zone
            .or(said.zone.as_deref())
            .and_then(|zone| ZoneId::new(zone).ok()),
    };
    Ok(Message {
        device,
        zone,
        reading: said.reading,
        tag: Tag([0; 32]),
        epoch: KeyEpoch(0),
        session: delivery.session,
        resumed: delivery.resumed,
        received_at: now,
        protection: Protection::Unprotected,
    })
}

/// A message whose signature goes unchecked.
fn cose_v1(payload: &[u8], channels: &[CompactString]) -> Result<UnsignedReading, (Reason, String)> {
    let mac0 = Mac0::parse(payload).map_err(|error| (error.reason(), error.to_string()))?;
    let reading = mac0
        .reading(channels)
        .map_err(|error| (error.reason(), error.to_string()))?;
    Ok(UnsignedReading { reading, zone: None })
}
