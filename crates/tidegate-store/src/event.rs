//! What is shown and kept of one message or connection: bounded, and free of control characters.

use compact_str::CompactString;
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tidegate_envelope::id::{Boot, DeviceId, ZoneId};
use tidegate_envelope::reading::Channels;
use tidegate_envelope::reason::Reason;
use tidegate_envelope::time::Timestamp;

/// Most bytes kept of a topic.
pub const MAX_TOPIC_BYTES: usize = 256;
/// Most bytes kept of a source.
pub const MAX_SOURCE_BYTES: usize = 128;
/// Most bytes kept of a detail, and of what was expected.
pub const MAX_DETAIL_BYTES: usize = 512;
/// Most bytes kept of a status.
pub const MAX_STATUS_BYTES: usize = 64;
/// Most bytes kept of a raw message.
pub const MAX_RAW_BYTES: usize = 1_024;
/// Most further reasons kept.
pub const MAX_FURTHER_REASONS: usize = 16;

/// What became of a message or a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// Accepted, and unremarkable.
    Accepted,
    /// Accepted, and it does not fit the device's normal behaviour.
    Flagged,
    /// Refused.
    Blocked,
    /// Nothing was refused, but somebody should know: a gap, a restart, a clock set back.
    Notice,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 4] = [Self::Accepted, Self::Flagged, Self::Blocked, Self::Notice];

    /// The name in the database and in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Flagged => "flagged",
            Self::Blocked => "blocked",
            Self::Notice => "notice",
        }
    }

    /// The outcome with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == name)
    }
}

/// One event. All text from outside is bounded and cleaned by [`Event::clean`], which
/// [`Recorder::record`](crate::recorder::Recorder::record) applies as well.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its number, rising; 0 for accepted messages, which are kept as readings only.
    pub id: i64,
    /// When the gateway saw it.
    pub at: Timestamp,
    /// What became of it.
    pub outcome: Outcome,
    /// Why, where there is a reason.
    pub reason: Option<Reason>,
    /// Further checks that failed; at most [`MAX_FURTHER_REASONS`].
    pub also: Vec<Reason>,
    /// The registered device that it concerns.
    pub device: Option<DeviceId>,
    /// That device's zone.
    pub zone: Option<ZoneId>,
    /// The topic, empty where there is none; at most [`MAX_TOPIC_BYTES`].
    pub topic: String,
    /// Client id, peer address or principal; at most [`MAX_SOURCE_BYTES`].
    pub source: String,
    /// What exactly was found; at most [`MAX_DETAIL_BYTES`].
    pub detail: String,
    /// The detector's score, where it has one: lower is more anomalous.
    pub score: Option<f32>,
    /// The message's sequence number.
    pub sequence: Option<u64>,
    /// The publisher's start counter.
    pub boot: Option<Boot>,
    /// When the device measured, as it says.
    pub timestamp: Option<Timestamp>,
    /// The message's status text; at most [`MAX_STATUS_BYTES`].
    pub status: String,
    /// The measured values, where the message was understood.
    pub channels: Channels,
    /// The message's first [`MAX_RAW_BYTES`] bytes, as they came.
    pub raw: Option<Vec<u8>>,
    /// Whether the message's signature and freshness were checked.
    pub protected: bool,
    /// What an exercise said in advance should become of it; at most [`MAX_DETAIL_BYTES`].
    pub expected: Option<String>,
}

impl Event {
    /// An event with nothing but time, outcome and reason; fill in the rest with `..`.
    #[must_use]
    pub fn new(at: Timestamp, outcome: Outcome, reason: Option<Reason>) -> Self {
        Self {
            id: 0,
            at,
            outcome,
            reason,
            also: Vec::new(),
            device: None,
            zone: None,
            topic: String::new(),
            source: String::new(),
            detail: String::new(),
            score: None,
            sequence: None,
            boot: None,
            timestamp: None,
            status: String::new(),
            channels: Channels::default(),
            raw: None,
            protected: false,
            expected: None,
        }
    }

    /// Cuts every text to its limit at a character's edge, and replaces control characters and
    /// the marks that change the direction of text, which could disguise what stands beside them.
    #[must_use]
    pub fn clean(mut self) -> Self {
        clean_text(&mut self.topic, MAX_TOPIC_BYTES);
        clean_text(&mut self.source, MAX_SOURCE_BYTES);
        clean_text(&mut self.detail, MAX_DETAIL_BYTES);
        clean_text(&mut self.status, MAX_STATUS_BYTES);
        if let Some(expected) = &mut self.expected {
            clean_text(expected, MAX_DETAIL_BYTES);
        }
        if let Some(raw) = &mut self.raw {
            raw.truncate(MAX_RAW_BYTES);
        }
        self.also.truncate(MAX_FURTHER_REASONS);
        self.score = self.score.filter(|score| score.is_finite());
        self
    }
}

/// Makes the numbers of events. Clones share one counter, so an event can be shown under its
/// number before it is written.
///
/// After a crash the numbers go on above every number that may have been shown, with a hole.
#[derive(Debug, Clone)]
pub struct EventIds(Arc<AtomicI64>);

impl EventIds {
    pub(crate) fn starting_at(first: i64) -> Self {
        Self(Arc::new(AtomicI64::new(first)))
    }

    /// The next number; never 0.
    #[must_use]
    pub fn next(&self) -> i64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    /// The number that comes next, without taking it.
    #[must_use]
    pub fn peek(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

fn clean_text(text: &mut String, max_bytes: usize) {
    if text.len() > max_bytes {
        text.truncate(text.floor_char_boundary(max_bytes));
    }
    if text.chars().any(is_disguising) {
        // The replacement is one byte, so the text cannot grow past its limit.
        *text = text
            .chars()
            .map(|character| if is_disguising(character) { '?' } else { character })
            .collect();
    }
}

/// Control characters, line and paragraph separators, and Unicode's invisible and bidirectional
/// formatting marks (UAX #9).
fn is_disguising(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{61c}')
}

/// As the API and exports show it: names for ids and reasons, microseconds for times, and the raw
/// message as text with replacement characters where it is not UTF-8. Absent members are left out.
impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &self.id)?;
        map.serialize_entry("at_us", &self.at.as_micros())?;
        map.serialize_entry("outcome", self.outcome.as_str())?;
        entry(&mut map, "reason", self.reason.map(Reason::as_str))?;
        if !self.also.is_empty() {
            let also: Vec<&str> = self.also.iter().map(|reason| reason.as_str()).collect();
            map.serialize_entry("also", &also)?;
        }
        entry(&mut map, "device", self.device.as_ref().map(DeviceId::as_str))?;
        entry(&mut map, "zone", self.zone.as_ref().map(ZoneId::as_str))?;
        map.serialize_entry("topic", &self.topic)?;
        map.serialize_entry("source", &self.source)?;
        map.serialize_entry("detail", &self.detail)?;
        entry(&mut map, "score", self.score)?;
        entry(&mut map, "sequence", self.sequence)?;
        entry(&mut map, "boot", self.boot.map(|boot| boot.0))?;
        entry(&mut map, "timestamp_us", self.timestamp.map(Timestamp::as_micros))?;
        map.serialize_entry("status", &self.status)?;
        map.serialize_entry("channels", &ChannelMap(&self.channels))?;
        entry(&mut map, "raw", self.raw.as_deref().map(String::from_utf8_lossy))?;
        map.serialize_entry("protected", &self.protected)?;
        entry(&mut map, "expected", self.expected.as_deref())?;
        map.end()
    }
}

pub(crate) fn entry<M: SerializeMap>(
    map: &mut M,
    name: &str,
    value: Option<impl Serialize>,
) -> Result<(), M::Error> {
    value.map_or(Ok(()), |value| map.serialize_entry(name, &value))
}

/// Channels as a JSON object in the order of their names.
pub(crate) struct ChannelMap<'a>(pub(crate) &'a Channels);

impl Serialize for ChannelMap<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter())
    }
}

/// Reasons as the database keeps them: wire names with a comma between them.
pub(crate) fn join_reasons(reasons: &[Reason]) -> CompactString {
    let mut text = CompactString::default();
    for reason in reasons {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(reason.as_str());
    }
    text
}

/// The reverse of [`join_reasons`]; names that this version does not know are left out.
pub(crate) fn split_reasons(text: &str) -> Vec<Reason> {
    text.split(',').filter_map(Reason::from_name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event::new(Timestamp::from_micros(1), Outcome::Blocked, Some(Reason::BadMac))
    }

    #[test]
    fn long_text_is_cut_at_a_character() {
        let cleaned = Event {
            topic: "é".repeat(MAX_TOPIC_BYTES),
            raw: Some(vec![7; MAX_RAW_BYTES + 1]),
            source: format!("a{}", "é".repeat(MAX_SOURCE_BYTES)),
            ..event()
        }
        .clean();
        assert_eq!(cleaned.topic, "é".repeat(MAX_TOPIC_BYTES / 2));
        assert_eq!(cleaned.source.len(), MAX_SOURCE_BYTES - 1);
        assert_eq!(cleaned.raw.unwrap().len(), MAX_RAW_BYTES);
    }

    #[test]
    fn control_and_direction_marks_are_replaced_and_other_text_is_kept() {
        let cleaned = Event {
            source: "a\u{1b}[2J\u{202e}b\0\n".to_owned(),
            detail: "Zürich <b> 水".to_owned(),
            score: Some(f32::NAN),
            ..event()
        }
        .clean();
        assert_eq!(cleaned.source, "a?[2J?b??");
        assert_eq!(cleaned.detail, "Zürich <b> 水");
        assert_eq!(cleaned.score, None);
    }

    #[test]
    fn reasons_survive_joining() {
        let reasons = vec![Reason::Stale, Reason::Replay];
        assert_eq!(split_reasons(&join_reasons(&reasons)), reasons);
        assert_eq!(split_reasons(""), []);
    }

    #[test]
    fn serialised_event_leaves_out_what_is_absent() {
        let text = serde_json::to_string(&event()).unwrap();
        assert!(
            text.starts_with(r#"{"id":0,"at_us":1,"outcome":"blocked","reason":"bad_mac","topic":"""#),
            "{text}"
        );
        assert!(!text.contains("score") && !text.contains("null"), "{text}");
    }
}
