//! What the page receives: the messages of its stream and the answers of its API, version 2.
//!
//! The TypeScript side, `web/src/lib/protocol.ts`, is written from these types
//! (`make protocol`), and a test fails when it is stale.
//!
//! Over `/api/v1/stream` the server sends one [`Hello`] that holds the whole state, and after it
//! a [`Frame`] every 100 ms. Counters in frames are absolute, so applying a frame twice is
//! harmless and a lost one costs nothing. A reader that is too slow for the frames gets a new
//! [`Hello`] in place of those it missed. Times are milliseconds since 1970, UTC.

mod identity;

pub use identity::{
    Alarm, AlarmSeverity, CertificateCounts, CertificateRole, CertificateRow, CertificateState,
    CertificatesView, IdentityChange, IdentityView, RevocationList, RevocationView, SessionRow, SessionTls,
    SessionsView,
};

use serde::Serialize;
use std::collections::BTreeMap;
use ts_rs::{Config, TS};

/// The version of this protocol; the page reloads itself when it meets another one.
pub const VERSION: u32 = 2;

/// One text frame of the page's stream.
#[derive(Debug, Clone, Serialize, TS)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ServerMessage {
    /// The whole state: first, and again whenever the reader fell behind.
    Hello(Box<Hello>),
    /// What changed since the frame before.
    Frame(Frame),
}

/// The whole state, as of one moment.
#[derive(Debug, Clone, Serialize, TS)]
pub struct Hello {
    /// The protocol's version.
    pub version: u32,
    /// How much protection is on: plain, tls, mtls, signed, dashboard or ai.
    pub level: String,
    /// Whether the devices are simulated.
    pub demo: bool,
    /// The name of the place.
    pub site: String,
    /// The server's clock now.
    pub server_time_ms: i64,
    /// When the server started.
    pub started_ms: i64,
    /// The defence layers, in the order in which a message meets them.
    pub layers: Vec<LayerView>,
    /// The zones, in the registry's order.
    pub zones: Vec<ZoneView>,
    /// Counts since the database began.
    pub totals: Totals,
    /// The last 120 seconds, oldest first, without holes.
    pub seconds: Vec<SecondView>,
    /// Recent events, newest last: with `?after=`, all that came after that event and are still at hand.
    pub events: Vec<EventView>,
    /// At most so many events after `?after=` are not in `events`, because they were too many to
    /// send at once; `/api/v1/events` has them.
    pub missed: u64,
    /// The last event id so far. Pass the last one that you have as `?after=` when you connect again.
    pub resume_from: i64,
    /// How many devices are registered.
    pub device_count: u32,
    /// Whether readings arrive without a signature at this level.
    pub unprotected: bool,
    /// Lasting warnings for everybody who looks, such as a legacy secret in use.
    pub notes: Vec<String>,
    /// Certificates, sessions, revocation lists and alarms.
    pub identity: IdentityView,
}

/// What changed within 100 ms.
#[derive(Debug, Clone, Serialize, TS)]
pub struct Frame {
    /// The server's clock.
    pub t_ms: i64,
    /// Accepted messages per second, flagged ones included, over the last few seconds.
    pub rate: f64,
    /// The longest time from a message's arrival to here among this frame's messages.
    pub behind_ms: u32,
    /// Counts since the database began.
    pub totals: Totals,
    /// The seconds whose counts changed, oldest first; the last one is still running.
    pub seconds: Vec<SecondView>,
    /// The zones that changed, whole.
    pub zones: Vec<ZoneView>,
    /// The layers that stopped something.
    pub layers: Vec<LayerCount>,
    /// Flagged, blocked and got-in events and notices, their ids ascending from frame to frame,
    /// and a sample of accepted readings.
    pub events: Vec<EventView>,
    /// Flagged, blocked and notice events left out of `events` because they were too many;
    /// `/api/v1/events` has them.
    pub dropped: u32,
    /// What changed of certificates, sessions, revocation lists and alarms; null where nothing did.
    pub identity: Option<IdentityChange>,
}

/// Messages and connections by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, TS)]
pub struct Totals {
    /// Accepted and not flagged.
    pub accepted: u64,
    /// Accepted, but unlike the device's normal behaviour.
    pub flagged: u64,
    /// Refused.
    pub blocked: u64,
    /// Attacks among the accepted, let in because a layer is off. Always 0 when all are on.
    pub got_in: u64,
}

/// The counts of one second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, TS)]
pub struct SecondView {
    /// The second, since 1970.
    pub t: i64,
    /// Accepted and not flagged.
    pub accepted: u32,
    /// Accepted, but unlike the device's normal behaviour.
    pub flagged: u32,
    /// Refused.
    pub blocked: u32,
    /// Attacks among the accepted.
    pub got_in: u32,
}

/// One defence layer.
#[derive(Debug, Clone, Serialize, TS)]
pub struct LayerView {
    /// Its name for programs, such as `signature`.
    pub id: &'static str,
    /// Its name for people.
    pub name: &'static str,
    /// What it stops, in one sentence.
    pub explains: &'static str,
    /// Whether it is on at this level.
    pub on: bool,
    /// How much it stopped since the server started.
    pub stopped: u64,
}

/// A layer's new count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, TS)]
pub struct LayerCount {
    /// Its name for programs.
    pub id: &'static str,
    /// How much it stopped since the server started.
    pub stopped: u64,
}

/// How a zone is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, TS)]
#[serde(rename_all = "lowercase")]
pub enum ZoneStatus {
    /// Readings come in, and nothing is unusual.
    Normal,
    /// Something was flagged or noticed within the last minute.
    Attention,
    /// Something was blocked, or got in, within the last minute.
    Attack,
    /// Readings came once, and have stopped.
    Silent,
    /// No reading since the server started.
    Waiting,
}

/// A zone of the building.
#[derive(Debug, Clone, PartialEq, Serialize, TS)]
pub struct ZoneView {
    /// Its id in the registry.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// How many devices are registered in it.
    pub devices: u32,
    /// How many of them sent a reading within the last 30 seconds.
    pub active: u32,
    /// How it is.
    pub status: ZoneStatus,
    /// The same in words.
    pub sentence: String,
    /// The mean of the active devices' latest readings, by channel.
    #[ts(type = "Record<string, ChannelView>")]
    pub channels: BTreeMap<&'static str, ChannelView>,
    /// Accepted and not flagged within the last minute.
    pub accepted: u32,
    /// Flagged within the last minute.
    pub flagged: u32,
    /// Blocked within the last minute.
    pub blocked: u32,
}

/// A value with its unit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, TS)]
pub struct ChannelView {
    /// The value.
    pub value: f64,
    /// `PSI`, `L/min` or `%`; empty where none is known.
    pub unit: &'static str,
}

/// What became of a message or a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, TS)]
#[serde(rename_all = "lowercase")]
pub enum EventOutcome {
    /// Accepted.
    Accepted,
    /// Accepted, but unlike the device's normal behaviour.
    Flagged,
    /// Refused.
    Blocked,
    /// Worth knowing, and nothing was refused.
    Notice,
}

/// One event. All texts are plain text, cleaned of control characters, and never markup.
#[derive(Debug, Clone, PartialEq, Serialize, TS)]
pub struct EventView {
    /// Its number, ascending; 0 for accepted readings, which are not numbered.
    pub id: i64,
    /// When the server received it.
    pub t_ms: i64,
    /// What became of it.
    pub outcome: EventOutcome,
    /// An attack that was accepted because the layer that stops it is off.
    pub got_in: bool,
    /// The first failing check, such as `bad_mac`; empty where nothing is wrong.
    pub reason: &'static str,
    /// Further checks that fail too.
    pub also: Vec<&'static str>,
    /// What happened, as a sentence for people.
    pub sentence: String,
    /// What exactly was wrong; empty where the sentence says it all.
    pub detail: String,
    /// The device, where known.
    pub device: Option<String>,
    /// The zone, where known.
    pub zone: Option<String>,
    /// The MQTT topic, where there is one.
    pub topic: Option<String>,
    /// Who sent it: client id and address, where known.
    pub source: Option<String>,
    /// The message's sequence number.
    pub sequence: Option<u64>,
    /// The forest's score: below 0 is flagged, lower is more anomalous.
    pub score: Option<f32>,
    /// The reading's values by channel; empty where nothing was accepted.
    #[ts(type = "Record<string, number>")]
    pub channels: BTreeMap<String, f64>,
    /// The layer that stopped or flagged it, by id.
    pub layer: Option<&'static str>,
    /// The start of the raw message, with what is not text replaced.
    pub raw: Option<String>,
    /// Whether the reading was protected by a signature.
    pub protected: bool,
    /// What would have been normal, where detection says so.
    pub expected: Option<String>,
}

/// The answer of `/api/v1/summary`: the state in one small object.
#[derive(Debug, Clone, Serialize, TS)]
pub struct Summary {
    /// The protocol's version.
    pub version: u32,
    /// The name of the place.
    pub site: String,
    /// How much protection is on.
    pub level: String,
    /// Whether the devices are simulated.
    pub demo: bool,
    /// The server's clock now.
    pub server_time_ms: i64,
    /// When the server started.
    pub started_ms: i64,
    /// Counts since the database began.
    pub totals: Totals,
    /// The defence layers.
    pub layers: Vec<LayerView>,
    /// The zones.
    pub zones: Vec<ZoneView>,
    /// How many devices are registered.
    pub device_count: u32,
    /// Lasting warnings.
    pub notes: Vec<String>,
}

/// The answer of `/api/v1/events`: newest first.
#[derive(Debug, Clone, Serialize, TS)]
pub struct EventPage {
    /// The events, newest first.
    pub events: Vec<EventView>,
    /// Pass it as `before` for the next page; null when there is none.
    pub next_before: Option<i64>,
}

/// One registered device, as seen since the server started.
#[derive(Debug, Clone, PartialEq, Serialize, TS)]
pub struct DeviceView {
    /// Its id in the registry.
    pub id: String,
    /// Its zone.
    pub zone: String,
    /// When its last accepted reading arrived.
    pub last_seen_ms: Option<i64>,
    /// The sequence number of its last accepted reading.
    pub sequence: Option<u64>,
    /// The forest's score of its last reading.
    pub score: Option<f32>,
    /// Accepted and not flagged.
    pub accepted: u64,
    /// Flagged.
    pub flagged: u64,
    /// Blocked.
    pub blocked: u64,
    /// Its latest readings.
    #[ts(type = "Record<string, ChannelView>")]
    pub channels: BTreeMap<&'static str, ChannelView>,
}

/// The answer of `/api/v1/devices`: in the registry's order.
#[derive(Debug, Clone, Serialize, TS)]
pub struct DevicePage {
    /// The devices.
    pub devices: Vec<DeviceView>,
    /// How many there are in all.
    pub total: u32,
    /// Pass it as `offset` for the next page; null when there is none.
    pub next_offset: Option<u32>,
}

/// The whole of `web/src/lib/protocol.ts`.
#[must_use]
pub fn typescript() -> String {
    let config = Config::new().with_large_int("number");
    let mut text = String::from(
        "// Written by tidegate-serve from src/protocol.rs; do not edit.\n\
         // To write it anew: make protocol\n",
    );
    declare::<ServerMessage>(&mut text, &config);
    declare::<Hello>(&mut text, &config);
    declare::<Frame>(&mut text, &config);
    declare::<Totals>(&mut text, &config);
    declare::<SecondView>(&mut text, &config);
    declare::<LayerView>(&mut text, &config);
    declare::<LayerCount>(&mut text, &config);
    declare::<ZoneStatus>(&mut text, &config);
    declare::<ZoneView>(&mut text, &config);
    declare::<ChannelView>(&mut text, &config);
    declare::<EventOutcome>(&mut text, &config);
    declare::<EventView>(&mut text, &config);
    declare::<IdentityView>(&mut text, &config);
    declare::<IdentityChange>(&mut text, &config);
    declare::<CertificatesView>(&mut text, &config);
    declare::<CertificateCounts>(&mut text, &config);
    declare::<CertificateRow>(&mut text, &config);
    declare::<CertificateRole>(&mut text, &config);
    declare::<CertificateState>(&mut text, &config);
    declare::<SessionsView>(&mut text, &config);
    declare::<SessionRow>(&mut text, &config);
    declare::<SessionTls>(&mut text, &config);
    declare::<RevocationView>(&mut text, &config);
    declare::<RevocationList>(&mut text, &config);
    declare::<Alarm>(&mut text, &config);
    declare::<AlarmSeverity>(&mut text, &config);
    declare::<Summary>(&mut text, &config);
    declare::<EventPage>(&mut text, &config);
    declare::<DeviceView>(&mut text, &config);
    declare::<DevicePage>(&mut text, &config);
    text.push_str(&format!("\nexport const PROTOCOL_VERSION = {VERSION};\n"));
    // One line for a comment of one line.
    text.replace("/**\n * ", "/** ")
        .replace("\n */\n", " */\n")
        .replace(", \n", ",\n")
        .replace("{ \n", "{\n")
}

fn declare<T: TS>(text: &mut String, config: &Config) {
    text.push('\n');
    text.push_str(&T::docs().unwrap_or_default());
    text.push_str("export ");
    text.push_str(&T::decl(config));
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../web/src/lib/protocol.ts");

    #[test]
    fn committed_typescript_is_what_the_types_say() {
        let committed = std::fs::read_to_string(FILE).unwrap();
        assert_eq!(committed, typescript(), "stale: run `make protocol`");
    }
}
