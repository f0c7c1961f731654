//! Rows as they are written, one function per table.

use crate::channels::{self, Layouts};
use crate::event::{self, Event, Outcome};
use crate::opening::Registered;
use crate::seal::Sealed;
use rusqlite::{Transaction, params};
use tidegate_envelope::id::{DeviceId, Sequence, ZoneId};
use tidegate_envelope::reason::Reason;
use tidegate_envelope::time::Timestamp;
use tidegate_verify::guard::Admission;
use tidegate_verify::verifier::Protection;

const INSERT_READING: &str = "INSERT INTO readings
    (id, device, zone, timestamp, received, boot, sequence, protected, status, layout, channels, checksum)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";

/// A number twice would be our own mistake; it must not keep readings from being committed.
const INSERT_EVENT: &str = "INSERT OR IGNORE INTO events
    (id, at, outcome, reason, also, device, zone, topic, source, detail, score, sequence, boot, timestamp,
     status, channels, raw, protected, expected)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)";

/// Working space of [`write_readings`].
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    text: String,
    bytes: Vec<u8>,
}

/// Where the rows of a batch go on from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LastReading {
    /// Number of the last reading.
    pub(crate) id: i64,
    /// Its arrival, microseconds since 1970: `received` never falls.
    pub(crate) received: i64,
}

/// Writes the readings of `batch`, numbered on from `last`.
pub(crate) fn write_readings(
    transaction: &Transaction<'_>,
    batch: &[Admission],
    devices: &[Registered],
    identity: i64,
    layouts: &mut Layouts,
    buffers: &mut Buffers,
    mut last: LastReading,
) -> rusqlite::Result<LastReading> {
    let Buffers { text, bytes } = buffers;
    let mut insert = transaction.prepare_cached(INSERT_READING)?;
    for admission in batch {
        let message = &admission.message;
        let reading = &message.reading;
        last.id += 1;
        last.received = last.received.max(message.received_at.as_micros());
        let device = message.device.map(|index| &devices[index.0 as usize]);
        let layout = layouts.encode(transaction, &reading.channels, text)?;
        let row = Sealed {
            id: last.id,
            device: device.map(|device| device.id.as_str()),
            // A registered device's zone stands in the registry.
            zone: message
                .zone
                .as_ref()
                .filter(|_| device.is_none())
                .map(ZoneId::as_str),
            timestamp: reading.timestamp.map(Timestamp::as_micros),
            received: last.received,
            boot: reading.boot.map(|boot| boot.0),
            sequence: reading.sequence.map(number),
            protected: message.protection == Protection::Signed,
            status: reading.status.as_str(),
            names: layout.map(|(_, names)| names),
            channels: text,
        };
        let checksum = row.checksum(identity, bytes);
        insert.execute(params![
            row.id,
            device.map(|device| device.number),
            row.zone,
            row.timestamp,
            row.received,
            row.boot,
            row.sequence,
            row.protected,
            row.status,
            layout.map(|(number, _)| number),
            row.channels,
            checksum,
        ])?;
    }
    Ok(last)
}

/// Writes an event that has its number and is clean.
pub(crate) fn write_event(
    transaction: &Transaction<'_>,
    event: &Event,
    buffers: &mut Buffers,
) -> rusqlite::Result<()> {
    let text = &mut buffers.text;
    channels::object(&event.channels, text);
    transaction.prepare_cached(INSERT_EVENT)?.execute(params![
        event.id,
        event.at.as_micros(),
        event.outcome.as_str(),
        event.reason.map(Reason::as_str),
        event::join_reasons(&event.also).as_str(),
        event.device.as_ref().map(DeviceId::as_str),
        event.zone.as_ref().map(ZoneId::as_str),
        event.topic,
        event.source,
        event.detail,
        event.score,
        // A number beyond the database's range is one that no device of ours sends.
        event.sequence.and_then(|sequence| i64::try_from(sequence).ok()),
        event.boot.map(|boot| boot.0),
        event.timestamp.map(Timestamp::as_micros),
        event.status,
        &*text,
        event.raw,
        event.protected,
        event.expected,
    ])?;
    Ok(())
}

/// Adds to a count.
pub(crate) fn add_total(
    transaction: &Transaction<'_>,
    outcome: Outcome,
    reason: Option<Reason>,
    count: u64,
) -> rusqlite::Result<()> {
    if count == 0 {
        return Ok(());
    }
    transaction
        .prepare_cached(
            "INSERT INTO totals (outcome, reason, count) VALUES (?1, ?2, ?3)
             ON CONFLICT (outcome, reason) DO UPDATE SET count = count + excluded.count",
        )?
        .execute(params![
            outcome.as_str(),
            reason.map_or("", Reason::as_str),
            i64::try_from(count).unwrap_or(i64::MAX)
        ])?;
    Ok(())
}

/// Sequence numbers end at 2^53, far inside the database's range.
fn number(sequence: Sequence) -> i64 {
    i64::try_from(sequence.get()).unwrap_or(i64::MAX)
}
