//! The judge: compares the database with the ledger, row by row and both ways.

use super::ledger::{Id, Ledger, Message, STATUS, name, values};
use super::site::{Broker, Site};
use anyhow::Result;
use rusqlite::{Connection, OpenFlags};
use std::collections::HashSet;
use std::ops::ControlFlow;
use tidegate_store::reader::{Reader, ReadingQuery, ReadingRow};

/// Compares; what does not fit becomes a violation. The gateway must not run, or must be idle.
///
/// From Mosquitto's acknowledgements follows only that the gateway gets a message some time, so
/// there the messages before `settled`, an id, must be in the database: all up to it have been
/// through. The embedded broker's acknowledgement is itself the promise.
pub(crate) fn compare(site: &Site, ledger: &mut Ledger, settled: Id) -> Result<()> {
    let connection = Connection::open_with_flags(site.database(), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut found = HashSet::new();
    let mut wrong = Vec::new();
    let (mut twice_accepted, mut missing) = (0, 0);
    let read = Reader::open(&site.database()).and_then(|mut reader| {
        reader.readings(&ReadingQuery::default(), |row| {
            match matching(site, ledger, &row) {
                // Twice in the database is twice accepted, whatever the guard believed.
                Ok(id) if !found.insert(id) => {
                    twice_accepted += 1;
                    wrong.push(format!("{} was accepted twice", name(ledger.message(id))));
                }
                Ok(_) => {}
                Err(text) => wrong.push(text),
            }
            ControlFlow::Continue(())
        })
    });
    if let Err(error) = read {
        ledger
            .counts
            .violation(format!("the database cannot be read: {error}"));
        return Ok(());
    }
    let rows = found.len() as u64;
    let embedded = site.broker() == Broker::Embedded;
    for (id, message) in ledger.messages() {
        let promised = message.delivered || message.acknowledged && (embedded || id < settled);
        if promised && !message.outdated && !found.contains(&id) {
            missing += 1;
            wrong.push(format!("{} was acknowledged and is missing", name(message)));
        }
        if message.outdated && found.contains(&id) {
            wrong.push(format!("{} was accepted although it was too old", name(message)));
        }
    }
    wrong.extend(twice(&connection)?);
    wrong.extend(unsound(&connection, rows)?);
    ledger.counts.add("accepted twice", twice_accepted);
    ledger.counts.add("acknowledged and missing", missing);
    ledger.counts.add("comparisons of database and ledger", 1);
    ledger.counts.add("database rows compared", rows);
    for text in wrong {
        ledger.counts.violation(text);
    }
    Ok(())
}

/// How many rows there are, and whether the newest message of every device is among them.
pub(crate) fn has_newest(site: &Site, ledger: &Ledger) -> Result<bool> {
    let connection = Connection::open_with_flags(site.database(), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut statement = connection.prepare(
        "SELECT sequence FROM readings WHERE id =
         (SELECT max(readings.id) FROM readings JOIN devices ON devices.number = device WHERE devices.id = ?1)",
    )?;
    for (device, message) in ledger.newest() {
        let newest: Option<i64> =
            match statement.query_row([site.devices[device].id.as_str()], |row| row.get(0)) {
                Err(rusqlite::Error::QueryReturnedNoRows) => None,
                other => Some(other?),
            };
        if newest.and_then(|number| u64::try_from(number).ok()) != Some(message.sequence) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Messages that were too old when the gateway got them: each must be among the events as `stale`.
pub(crate) fn outdated_are_events(site: &Site, ledger: &mut Ledger) -> Result<()> {
    let connection = Connection::open_with_flags(site.database(), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut statement = connection
        .prepare("SELECT count(*) FROM events WHERE reason = 'stale' AND outcome = 'blocked' AND raw = ?1")?;
    let (mut told, mut untold) = (0, Vec::new());
    for (_, message) in ledger.messages().filter(|(_, message)| message.outdated) {
        let events: i64 = statement.query_row([&message.payload[..]], |row| row.get(0))?;
        if events > 0 {
            told += 1;
        } else {
            untold.push(format!("{} was too old, and no event says so", name(message)));
        }
    }
    ledger.counts.add(
        "messages too old when the gateway got them, each told as stale",
        told,
    );
    for text in untold {
        ledger.counts.violation(text);
    }
    Ok(())
}

/// Messages that the gateway has refused, by reason, as far as its counts were durable.
pub(crate) fn refusals(site: &Site) -> Result<Vec<(String, u64)>> {
    let connection = Connection::open_with_flags(site.database(), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut statement = connection.prepare("SELECT reason, count FROM totals WHERE outcome = 'blocked'")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The message that a row is, when every column is as it was sent.
fn matching(site: &Site, ledger: &Ledger, row: &ReadingRow) -> Result<Id, String> {
    let device = site
        .devices
        .iter()
        .position(|device| Some(&device.id) == row.device.as_ref());
    let id = device
        .zip(row.sequence)
        .and_then(|(device, sequence)| ledger.find(device, sequence));
    let Some(id) = id else {
        return Err(format!("row {} is nothing that was ever sent", row.id));
    };
    let message = ledger.message(id);
    if is_same(row, message) {
        Ok(id)
    } else {
        Err(format!("row {} is not what {} said", row.id, name(message)))
    }
}

fn is_same(row: &ReadingRow, message: &Message) -> bool {
    row.boot == Some(message.boot)
        && row.timestamp == Some(message.timestamp)
        && row.status == STATUS
        && row.protected
        && row.channels == values(message.device, message.sequence)
}

/// The database's own view of what is there twice, independent of the ledger and the reader.
fn twice(connection: &Connection) -> Result<Vec<String>> {
    let mut statement = connection.prepare(
        "SELECT device, sequence, count(*) FROM readings GROUP BY device, sequence HAVING count(*) > 1 LIMIT 100",
    )?;
    let rows = statement.query_map([], |row| {
        let (device, sequence, count): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(format!(
            "device number {device} has sequence {sequence} {count} times"
        ))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// SQLite's check of the whole file, and the total beside the rows, which nothing may tear apart.
fn unsound(connection: &Connection, rows: u64) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let verdict: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        wrong.push(format!("integrity_check: {verdict}"));
    }
    let total: Option<i64> = connection.query_row(
        "SELECT sum(count) FROM totals WHERE outcome = 'accepted'",
        [],
        |row| row.get(0),
    )?;
    let total = total.unwrap_or(0).unsigned_abs();
    if total != rows {
        wrong.push(format!("{rows} readings, and a total of {total} accepted"));
    }
    Ok(wrong)
}
