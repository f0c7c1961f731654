//! How an event and the defence layers look to people.

use crate::protocol::{EventOutcome, EventView};
use crate::text::plain;
use tidegate_envelope::reading::Channels;
use tidegate_envelope::reason::Layer;
use tidegate_store::event::{Event, Outcome};

/// Longest device, topic or source in a view, in characters.
const MAX_NAME: usize = 120;
/// Longest sentence in a view, in characters.
const MAX_SENTENCE: usize = 500;

/// The raw message in the stream, in characters; the API shows [`RAW_IN_API`].
pub(crate) const RAW_IN_STREAM: usize = 512;
/// The raw message in an answer of the API, in characters.
pub(crate) const RAW_IN_API: usize = 1_024;

/// A layer's id, name and meaning.
pub(crate) struct LayerText {
    pub(crate) layer: Layer,
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
    pub(crate) explains: &'static str,
}

/// The layers in the order in which a message meets them.
pub(crate) const LAYERS: [LayerText; 10] = [
    text(
        Layer::Tls,
        "tls",
        "Encrypted link",
        "Nobody reads along or changes bytes on the way, and devices know that the broker is ours",
    ),
    text(
        Layer::Identity,
        "identity",
        "Device certificates",
        "Only registered devices connect, and each may use its own topic alone",
    ),
    text(
        Layer::Limits,
        "limits",
        "Limits",
        "No sender can flood the system with size, rate or broken packets",
    ),
    text(
        Layer::Format,
        "format",
        "Strict format",
        "A message has exactly the agreed form, or it is refused",
    ),
    text(
        Layer::Signature,
        "signature",
        "Signature",
        "Each message is signed with its device's key: changed or invented ones do not match",
    ),
    text(
        Layer::Freshness,
        "freshness",
        "Time window",
        "A message must be only seconds old",
    ),
    text(
        Layer::Sequence,
        "sequence",
        "Sequence",
        "Every number is accepted once, so a recorded message cannot be played again",
    ),
    text(
        Layer::Durability,
        "durability",
        "Durable record",
        "Nothing is accepted before it is on disk, so a restart forgets nothing",
    ),
    text(
        Layer::Detection,
        "detection",
        "Anomaly detection",
        "Readings that do not fit the device's normal behaviour are flagged",
    ),
    text(
        Layer::Dashboard,
        "dashboard",
        "Web doors",
        "Pages of other origins get no data",
    ),
];

const fn text(layer: Layer, id: &'static str, name: &'static str, explains: &'static str) -> LayerText {
    LayerText {
        layer,
        id,
        name,
        explains,
    }
}

/// The position of a layer in [`LAYERS`].
pub(crate) fn layer_index(layer: Layer) -> usize {
    // The table is in the order of the enum; a test holds the two together.
    layer as usize
}

/// Whether an attack got in: an accepted message that names the check which it would have failed.
pub(crate) fn got_in(event: &Event) -> bool {
    event.outcome == Outcome::Accepted && event.reason.is_some()
}

/// The page's view of an event.
pub(crate) fn event_view(event: &Event, max_raw: usize) -> EventView {
    let some = |text: &str| (!text.is_empty()).then(|| plain(text, MAX_NAME));
    EventView {
        id: event.id,
        t_ms: event.at.as_millis(),
        outcome: match event.outcome {
            Outcome::Accepted => EventOutcome::Accepted,
            Outcome::Flagged => EventOutcome::Flagged,
            Outcome::Blocked => EventOutcome::Blocked,
            Outcome::Notice => EventOutcome::Notice,
        },
        got_in: got_in(event),
        reason: event.reason.map_or("", |reason| reason.as_str()),
        also: event.also.iter().map(|reason| reason.as_str()).collect(),
        sentence: sentence(event),
        detail: plain(&event.detail, MAX_SENTENCE),
        device: event.device.as_ref().map(ToString::to_string),
        zone: event.zone.as_ref().map(ToString::to_string),
        topic: some(&event.topic),
        source: some(&event.source),
        sequence: event.sequence,
        score: event.score,
        channels: channels(&event.channels),
        layer: event.reason.map(|reason| LAYERS[layer_index(reason.layer())].id),
        raw: event.raw.as_deref().map(|raw| raw_text(raw, max_raw)),
        protected: event.protected,
        expected: event
            .expected
            .as_deref()
            .map(|expected| plain(expected, MAX_SENTENCE)),
    }
}

fn sentence(event: &Event) -> String {
    let Some(reason) = event.reason else {
        return match event.outcome {
            Outcome::Accepted => "The reading was accepted".to_owned(),
            Outcome::Flagged => "The reading was flagged".to_owned(),
            Outcome::Blocked => "The message was blocked".to_owned(),
            Outcome::Notice => "Worth knowing".to_owned(),
        };
    };
    if got_in(event) {
        return format!(
            "It got in, because the layer that stops it is off: {}",
            reason.sentence()
        );
    }
    reason.sentence().to_owned()
}

fn channels(channels: &Channels) -> std::collections::BTreeMap<String, f64> {
    channels
        .iter()
        .map(|(name, value)| (plain(name, MAX_NAME), value))
        .collect()
}

fn raw_text(raw: &[u8], max: usize) -> String {
    // A character has at most four bytes; what lies beyond is not even looked at.
    let start = &raw[..raw.len().min(max * 4 + 4)];
    plain(&String::from_utf8_lossy(start), max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_envelope::reason::Reason;
    use tidegate_envelope::time::Timestamp;

    #[test]
    fn layers_stand_at_their_index() {
        for (index, text) in LAYERS.iter().enumerate() {
            assert_eq!(layer_index(text.layer), index, "{}", text.id);
        }
        for reason in Reason::ALL {
            assert_eq!(LAYERS[layer_index(reason.layer())].layer, reason.layer());
        }
    }

    #[test]
    fn accepted_with_a_reason_got_in_and_blocked_did_not() {
        let mut event = Event::new(Timestamp::from_micros(0), Outcome::Accepted, None);
        assert!(!got_in(&event));
        event.reason = Some(Reason::Replay);
        assert!(event_view(&event, 10).got_in);
        event.outcome = Outcome::Blocked;
        assert!(!event_view(&event, 10).got_in);
    }

    #[test]
    fn raw_bytes_become_bounded_text() {
        let mut event = Event::new(Timestamp::from_micros(0), Outcome::Blocked, None);
        event.raw = Some([b"{\"a\":\xff\0".as_slice(), &[b'x'; 5_000]].concat());
        let raw = event_view(&event, 16).raw.unwrap();
        assert_eq!(raw, "{\"a\":\u{fffd} xxxxxxxxx…");
    }
}
