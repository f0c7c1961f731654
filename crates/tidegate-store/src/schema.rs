//! The tables, their versions, and the refusal of files that are not ours.

use crate::error::StoreError;
use crate::ledger;
use rusqlite::{Connection, TransactionBehavior};
use std::collections::BTreeMap;
use std::path::Path;

/// At the place that SQLite's file format keeps for it: "Tide".
const APPLICATION_ID: i32 = 0x5469_6465;

/// One script per version, each leading from the version before it. Never changed once released.
const MIGRATIONS: &[&str] = &[VERSION_1, VERSION_2];
/// The version with which the ledger came.
const WITH_LEDGER: usize = 2;

/// The version that this program writes.
pub(crate) const CURRENT: i32 = MIGRATIONS.len() as i32;

/// Tables that replay protection stands on; small, and checked at every opening.
pub(crate) const SAFETY_TABLES: [&str; 3] = ["replay_state", "marks", "devices"];

/// All times are microseconds since 1970. `received` never falls from one reading to the next, so
/// a time leads to an id by bisection, and the id is the one order of readings.
const VERSION_1: &str = "
CREATE TABLE devices (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE
) STRICT;

-- The names of the numbers in readings.channels, as a JSON array.
CREATE TABLE layouts (
    number INTEGER PRIMARY KEY,
    names TEXT NOT NULL UNIQUE
) STRICT;

-- channels is a JSON array where layout names its members, and else a JSON object. device is
-- absent for an unsigned message of nobody registered, and only then may zone be there.
CREATE TABLE readings (
    id INTEGER PRIMARY KEY,
    device INTEGER REFERENCES devices (number),
    zone TEXT,
    timestamp INTEGER,
    received INTEGER NOT NULL,
    boot INTEGER,
    sequence INTEGER,
    protected INTEGER NOT NULL,
    status TEXT NOT NULL,
    layout INTEGER REFERENCES layouts (number),
    channels TEXT NOT NULL
) STRICT;
-- Ends in the id, as every index does: one device's readings in order of arrival.
CREATE INDEX readings_by_device ON readings (device);

CREATE VIEW reading_values AS
SELECT readings.id, devices.id AS device, zone, timestamp, received, boot, sequence, protected, status,
       CASE WHEN layout IS NULL THEN entry.key
            ELSE json_extract(names, '$[' || entry.key || ']') END AS channel,
       entry.value AS value
FROM readings
LEFT JOIN devices ON devices.number = readings.device
LEFT JOIN layouts ON layouts.number = readings.layout
JOIN json_each(channels) AS entry;

-- What the replay guard knows of a device, with a checksum over its id and the bytes.
CREATE TABLE replay_state (
    device INTEGER PRIMARY KEY REFERENCES devices (number),
    state BLOB NOT NULL,
    checksum BLOB NOT NULL
) STRICT;

-- Numbers that only rise: the clock floor, and event numbers that may be in use.
CREATE TABLE marks (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL,
    checksum BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Accepted messages are readings; here is everything else, and what was flagged.
CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT,
    also TEXT NOT NULL,
    device TEXT,
    zone TEXT,
    topic TEXT NOT NULL,
    source TEXT NOT NULL,
    detail TEXT NOT NULL,
    score REAL,
    sequence INTEGER,
    boot INTEGER,
    timestamp INTEGER,
    status TEXT NOT NULL,
    channels TEXT NOT NULL,
    raw BLOB,
    protected INTEGER NOT NULL,
    expected TEXT
) STRICT;
CREATE INDEX events_by_time ON events (at);
CREATE INDEX events_by_device ON events (device);
CREATE INDEX events_by_outcome ON events (outcome, reason);

-- reason is empty for outcomes without one.
CREATE TABLE totals (
    outcome TEXT NOT NULL,
    reason TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (outcome, reason)
) STRICT, WITHOUT ROWID;
";

/// A checksum of each reading (see `seal`), absent in those written before, and the ledger's marks.
const VERSION_2: &str = "ALTER TABLE readings ADD COLUMN checksum INTEGER";

/// Whether the file is ours, and of which version; 0 for an empty file.
fn version(connection: &Connection, path: &Path) -> Result<i32, StoreError> {
    let failed = |source| StoreError::sqlite(path, "read the version", source);
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let application_id = pragma("application_id").map_err(failed)?;
    let version = pragma("user_version").map_err(failed)?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(failed)?;
    if application_id == APPLICATION_ID {
        if version > CURRENT {
            return Err(StoreError::NewerSchema {
                path: path.to_owned(),
                found: version,
                supported: CURRENT,
            });
        }
        if version < 1 || tables == 0 {
            return Err(StoreError::damaged(
                path,
                format!("schema version {version} with {tables} tables"),
            ));
        }
        return Ok(version);
    }
    if application_id != 0 || version != 0 || tables > 0 {
        return Err(StoreError::Foreign {
            path: path.to_owned(),
            application_id,
        });
    }
    Ok(0)
}

/// Brings an empty or older database to the current version, in one transaction per version.
pub(crate) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let found = version(connection, path)?;
    let failed = |source| StoreError::sqlite(path, "migrate the schema", source);
    if found == 0 {
        // Both take effect only before the first table is written.
        connection
            .pragma_update(None, "auto_vacuum", "INCREMENTAL")
            .map_err(failed)?;
    }
    for (step, script) in MIGRATIONS.iter().enumerate().skip(found as usize) {
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        transaction.execute_batch(script).map_err(failed)?;
        transaction
            .pragma_update(None, "application_id", APPLICATION_ID)
            .map_err(failed)?;
        transaction
            .pragma_update(None, "user_version", step as i32 + 1)
            .map_err(failed)?;
        if step + 1 == WITH_LEDGER {
            ledger::begin(&transaction).map_err(failed)?;
        }
        transaction.commit().map_err(failed)?;
    }
    Ok(())
}

/// Refuses, for a reader, anything but the current version.
pub(crate) fn require_current(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let found = version(connection, path)?;
    if found < CURRENT {
        return Err(StoreError::OlderSchema {
            path: path.to_owned(),
            found,
            supported: CURRENT,
        });
    }
    Ok(())
}

/// Refuses a file whose tables, views or indexes read otherwise than the migrations write them: a
/// statement would fail, or find something else, where it should say what is wrong. Further ones
/// of the file's owner are left alone.
pub(crate) fn verify(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let mut model = Connection::open_in_memory()
        .map_err(|source| StoreError::sqlite(path, "model the schema of", source))?;
    migrate(&mut model, path)?;
    let failed = |source| StoreError::sqlite(path, "read the schema", source);
    let found = objects(connection).map_err(failed)?;
    for (name, sql) in objects(&model).map_err(failed)? {
        if found.get(&name) != Some(&sql) {
            let name = name.as_deref().unwrap_or("without a name");
            return Err(StoreError::damaged(
                path,
                format!("the definition of {name} is missing or altered"),
            ));
        }
    }
    Ok(())
}

/// SQL by name.
fn objects(connection: &Connection) -> rusqlite::Result<BTreeMap<Option<String>, Option<String>>> {
    connection
        .prepare("SELECT name, sql FROM sqlite_schema")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

/// Checks the page structure of one table and its indexes, or of the whole file.
pub(crate) fn quick_check(
    connection: &Connection,
    path: &Path,
    table: Option<&str>,
) -> Result<(), StoreError> {
    let sql = match table {
        Some(table) => format!("PRAGMA quick_check({table})"),
        None => "PRAGMA quick_check(1)".to_owned(),
    };
    let verdict: String = connection
        .query_row(&sql, [], |row| row.get(0))
        .map_err(|source| StoreError::sqlite(path, "check the pages", source))?;
    if verdict == "ok" {
        Ok(())
    } else {
        Err(StoreError::damaged(path, verdict.replace('\n', "; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_safety_table_exists() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, Path::new("memory")).unwrap();
        for table in SAFETY_TABLES {
            quick_check(&connection, Path::new("memory"), Some(table)).unwrap();
        }
        assert!(quick_check(&connection, Path::new("memory"), Some("nonsense")).is_err());
    }

    #[test]
    fn altered_definition_is_refused_and_a_further_one_is_not() {
        let mut connection = Connection::open_in_memory().unwrap();
        let path = Path::new("memory");
        migrate(&mut connection, path).unwrap();
        connection.execute_batch("CREATE VIEW own AS SELECT 1").unwrap();
        verify(&connection, path).unwrap();
        connection.execute_batch("DROP INDEX readings_by_device").unwrap();
        let error = verify(&connection, path).unwrap_err().to_string();
        assert!(error.contains("the definition of readings_by_device"), "{error}");
    }

    #[test]
    fn migrating_twice_changes_nothing() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, Path::new("memory")).unwrap();
        migrate(&mut connection, Path::new("memory")).unwrap();
        require_current(&connection, Path::new("memory")).unwrap();
    }
}
