//! Rows of the database as structs.

use crate::channels;
use crate::error::StoreError;
use crate::event::{ChannelMap, Event, Outcome, entry, split_reasons};
use compact_str::CompactString;
use rusqlite::Row;
use rusqlite::types::FromSql;
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::path::Path;
use tidegate_envelope::id::{Boot, DeviceId, ZoneId};
use tidegate_envelope::reading::Channels;
use tidegate_envelope::reason::Reason;
use tidegate_envelope::time::Timestamp;

/// One accepted reading.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadingRow {
    /// Rises with the order of arrival.
    pub id: i64,
    /// Whose it is; absent for an unsigned message of nobody registered.
    pub device: Option<DeviceId>,
    /// The zone that such a message named. A registered device's zone stands in the registry.
    pub zone: Option<ZoneId>,
    /// When the device measured, as it says.
    pub timestamp: Option<Timestamp>,
    /// When it came; never earlier than the reading before it.
    pub received: Timestamp,
    /// The publisher's start counter.
    pub boot: Option<Boot>,
    /// Its sequence number.
    pub sequence: Option<u64>,
    /// Whether signature and freshness were checked.
    pub protected: bool,
    /// The status text.
    pub status: CompactString,
    /// The measured values.
    pub channels: Channels,
}

/// Names for ids, and microseconds since 1970 for times; absent members are left out.
impl Serialize for ReadingRow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &self.id)?;
        entry(&mut map, "device", self.device.as_ref().map(DeviceId::as_str))?;
        entry(&mut map, "zone", self.zone.as_ref().map(ZoneId::as_str))?;
        entry(&mut map, "timestamp_us", self.timestamp.map(Timestamp::as_micros))?;
        map.serialize_entry("received_us", &self.received.as_micros())?;
        entry(&mut map, "boot", self.boot.map(|boot| boot.0))?;
        entry(&mut map, "sequence", self.sequence)?;
        map.serialize_entry("protected", &self.protected)?;
        map.serialize_entry("status", self.status.as_str())?;
        map.serialize_entry("channels", &ChannelMap(&self.channels))?;
        map.end()
    }
}

/// A value that the writer never writes: the file was changed by somebody, or is damaged.
pub(crate) struct Fault {
    pub(crate) id: i64,
    pub(crate) column: &'static str,
}

impl Fault {
    pub(crate) fn into_error(self, path: &Path, row: &str) -> StoreError {
        let Self { id, column } = self;
        StoreError::damaged(path, format!("{row} {id} has no valid {column}"))
    }
}

pub(crate) const READING_COLUMNS: &str =
    "id, device, zone, timestamp, received, boot, sequence, protected, status, layout, channels, checksum";

pub(crate) struct RawReading {
    pub(crate) id: i64,
    pub(crate) device: Option<i64>,
    pub(crate) zone: Option<String>,
    pub(crate) timestamp: Option<i64>,
    pub(crate) received: i64,
    pub(crate) boot: Option<u32>,
    pub(crate) sequence: Option<i64>,
    pub(crate) protected: bool,
    pub(crate) status: String,
    pub(crate) layout: Option<i64>,
    pub(crate) channels: String,
    pub(crate) checksum: Option<i32>,
}

pub(crate) fn raw_reading(row: &Row<'_>) -> rusqlite::Result<RawReading> {
    Ok(RawReading {
        id: row.get(0)?,
        device: row.get(1)?,
        zone: row.get(2)?,
        timestamp: row.get(3)?,
        received: row.get(4)?,
        boot: row.get(5)?,
        sequence: row.get(6)?,
        protected: row.get(7)?,
        status: row.get(8)?,
        layout: row.get(9)?,
        channels: row.get(10)?,
        checksum: row.get(11)?,
    })
}

pub(crate) const EVENT_COLUMNS: &str =
    "id, at, outcome, reason, also, device, zone, topic, source, detail, score, sequence,
    boot, timestamp, status, channels, raw, protected, expected";

pub(crate) fn event(row: &Row<'_>) -> Result<Event, Fault> {
    let id = column(row, 0, 0, "id")?;
    let text = |position, name| column::<Option<String>>(row, id, position, name);
    let fault = |column| Fault { id, column };
    let reason = text(3, "reason")?.and_then(|name| Reason::from_name(&name));
    let outcome =
        Outcome::from_name(&column::<String>(row, id, 2, "outcome")?).ok_or_else(|| fault("outcome"))?;
    let at = Timestamp::from_micros(column(row, id, 1, "at")?);
    Ok(Event {
        id,
        also: split_reasons(&column::<String>(row, id, 4, "also")?),
        device: text(5, "device")?
            .map(|name| DeviceId::new(&name).map_err(|_| fault("device")))
            .transpose()?,
        zone: text(6, "zone")?
            .map(|name| ZoneId::new(&name).map_err(|_| fault("zone")))
            .transpose()?,
        topic: column(row, id, 7, "topic")?,
        source: column(row, id, 8, "source")?,
        detail: column(row, id, 9, "detail")?,
        score: column(row, id, 10, "score")?,
        sequence: column::<Option<i64>>(row, id, 11, "sequence")?
            .and_then(|number| u64::try_from(number).ok()),
        boot: column::<Option<u32>>(row, id, 12, "boot")?.map(Boot),
        timestamp: column::<Option<i64>>(row, id, 13, "timestamp")?.map(Timestamp::from_micros),
        status: column(row, id, 14, "status")?,
        channels: channels::decode_object(&column::<String>(row, id, 15, "channels")?)
            .ok_or_else(|| fault("channels"))?,
        raw: column(row, id, 16, "raw")?,
        protected: column(row, id, 17, "protected")?,
        expected: column(row, id, 18, "expected")?,
        ..Event::new(at, outcome, reason)
    })
}

fn column<T: FromSql>(row: &Row<'_>, id: i64, position: usize, column: &'static str) -> Result<T, Fault> {
    row.get(position).map_err(|_| Fault { id, column })
}
