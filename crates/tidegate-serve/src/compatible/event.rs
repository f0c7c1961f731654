//! The compatible events, member for member.
//!
//! Decisions where the contract leaves room: `timestamp` is the time of arrival in UTC;
//! `device_id` is the name that the device's messages carry, from the registry; a channel that a
//! reading lacks is 0, because older pages format every number unasked.

use crate::protocol::Totals;
use crate::roster::Roster;
use crate::text::without_markup;
use crate::zones::value;
use axum::extract::ws::Utf8Bytes;
use serde::Serialize;
use tidegate_envelope::reason::Reason;
use tidegate_envelope::time::Timestamp;
use tidegate_store::event::{Event, Outcome};

/// The answer to `{"type":"ping"}`.
pub(super) const PONG: &str = r#"{"type":"pong"}"#;

/// Longest topic or name, in characters: with it an event stays below about 2 KiB.
const MAX_NAME: usize = 160;
/// Longest description, in characters.
const MAX_SENTENCE: usize = 400;
/// The zone of a reading whose device is in none: older pages know three zones and no other.
const DEFAULT_ZONE: &str = "main_building";
/// "Below 0 is flagged": the score of what a rule flagged and the forest did not.
const HIGHEST_FLAGGED_SCORE: f64 = -0.001;

#[derive(Serialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
enum CompatibleEvent<'a> {
    StatsUpdate(Stats),
    ValidMessage(Reading<'a>),
    AiAnomaly(Reading<'a>),
    Attack(Attack),
}

#[derive(Serialize)]
struct Stats {
    total: u64,
    valid: u64,
    rejected: u64,
    ai_anomalies: u64,
}

#[derive(Serialize)]
struct Reading<'a> {
    device_id: &'a str,
    topic: String,
    timestamp: String,
    pressure_psi: f64,
    flow_rate_lpm: f64,
    flow_rate_gpm: f64,
    valve_position: f64,
    zone: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ai_score: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    anomaly_description: Option<String>,
}

#[derive(Serialize)]
struct Attack {
    attack_type: &'static str,
    source: String,
    topic: String,
    reasons: Vec<String>,
    timestamp: String,
    description: String,
}

/// `stats_update`.
pub(crate) fn stats(totals: &Totals) -> Utf8Bytes {
    let valid = totals.accepted + totals.flagged;
    text(&CompatibleEvent::StatsUpdate(Stats {
        total: valid + totals.blocked,
        valid,
        rejected: totals.blocked,
        ai_anomalies: totals.flagged,
    }))
}

/// The event of one message or connection; `None` for notices, which the contract does not know.
pub(crate) fn event(roster: &Roster, event: &Event) -> Option<Utf8Bytes> {
    Some(text(&match event.outcome {
        Outcome::Accepted => CompatibleEvent::ValidMessage(reading(roster, event)),
        Outcome::Flagged => {
            let score = event.score.map_or(HIGHEST_FLAGGED_SCORE, |score| {
                (f64::from(score) * 1e3).round() / 1e3
            });
            let mut reading = reading(roster, event);
            reading.ai_score = Some(score.min(HIGHEST_FLAGGED_SCORE));
            reading.anomaly_description = Some(sentence(event));
            CompatibleEvent::AiAnomaly(reading)
        }
        Outcome::Blocked => CompatibleEvent::Attack(attack(roster, event)),
        Outcome::Notice => return None,
    }))
}

fn reading<'a>(roster: &'a Roster, event: &'a Event) -> Reading<'a> {
    let number = |name| value(&event.channels, name).unwrap_or(0.0);
    let flow_rate = number("flow_rate");
    let zone = roster.zone(event, roster.device(event));
    Reading {
        device_id: device(roster, event).unwrap_or("unknown"),
        topic: without_markup(&event.topic, MAX_NAME),
        timestamp: clock_time(event.at),
        pressure_psi: number("pressure_upstream"),
        flow_rate_lpm: flow_rate,
        flow_rate_gpm: flow_rate,
        valve_position: number("gate_a_position"),
        zone: zone.map_or(DEFAULT_ZONE, |index| roster.zones[index].id.as_str()),
        ai_score: None,
        anomaly_description: None,
    }
}

fn attack(roster: &Roster, event: &Event) -> Attack {
    let source = device(roster, event).or((!event.source.is_empty()).then_some(event.source.as_str()));
    let reasons = event.reason.iter().chain(&event.also);
    Attack {
        attack_type: event.reason.map_or("Security Violation", attack_type),
        source: without_markup(source.unwrap_or("unknown"), MAX_NAME),
        topic: without_markup(&event.topic, MAX_NAME),
        reasons: reasons
            .map(|reason| without_markup(reason.sentence(), MAX_SENTENCE))
            .collect(),
        timestamp: clock_time(event.at),
        description: sentence(event),
    }
}

/// The name that the device's messages carry; the registry's own name where only that is known.
fn device<'a>(roster: &'a Roster, event: &'a Event) -> Option<&'a str> {
    match roster.device(event) {
        Some(index) => Some(roster.devices[index].message_id.as_str()),
        None => event.device.as_ref().map(|id| id.as_str()),
    }
}

fn sentence(event: &Event) -> String {
    let reason = event
        .reason
        .map_or("The message was not as expected", Reason::sentence);
    if event.detail.is_empty() {
        return without_markup(reason, MAX_SENTENCE);
    }
    without_markup(&format!("{reason}: {}", event.detail), MAX_SENTENCE)
}

const fn attack_type(reason: Reason) -> &'static str {
    match reason {
        Reason::BadMac | Reason::MissingMac => "Message Tampering",
        Reason::Replay | Reason::SeqConflict | Reason::OutOfOrder => "Replay Attack",
        Reason::Stale | Reason::Future | Reason::ColdStart => "Stale Message",
        Reason::Malformed | Reason::BadSchema => "Missing Fields",
        _ => "Security Violation",
    }
}

/// "HH:MM:SS" in UTC.
fn clock_time(at: Timestamp) -> String {
    let seconds = at.as_millis().div_euclid(1_000).rem_euclid(86_400);
    format!(
        "{:02}:{:02}:{:02}",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60
    )
}

fn text(event: &CompatibleEvent<'_>) -> Utf8Bytes {
    serde_json::to_string(event)
        .expect("compatible events hold text and numbers alone")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_time_is_utc_of_the_day() {
        assert_eq!(
            clock_time(Timestamp::from_micros(1_800_000_000_999_999)),
            "08:00:00"
        );
        assert_eq!(clock_time(Timestamp::from_micros(-1)), "23:59:59");
    }

    #[test]
    fn attack_types_are_those_of_the_contract() {
        let of = |name: &str| attack_type(Reason::from_name(name).unwrap());
        assert_eq!(of("bad_mac"), "Message Tampering");
        assert_eq!(of("missing_mac"), "Message Tampering");
        assert_eq!(of("replay"), "Replay Attack");
        assert_eq!(of("seq_conflict"), "Replay Attack");
        assert_eq!(of("out_of_order"), "Replay Attack");
        assert_eq!(of("stale"), "Stale Message");
        assert_eq!(of("future"), "Stale Message");
        assert_eq!(of("cold_start"), "Stale Message");
        assert_eq!(of("malformed"), "Missing Fields");
        assert_eq!(of("bad_schema"), "Missing Fields");
        assert_eq!(of("unknown_device"), "Security Violation");
    }
}
