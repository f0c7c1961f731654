//! What the whole database must add up to, so that a page that is missing, stale, or another
//! database's is noticed although it is sound in itself.
//!
//! A row's own checksum says nothing about a row that is gone, and a page as it was yesterday has
//! rows with valid checksums. So every commit also writes, in the same transaction, how many
//! commits there were, the sum of all replay states' checksums, and the number of the last reading.
//! Readings are numbered without a hole, so first, last and count must agree.

use crate::error::StoreError;
use crate::replay::{self, mark, write_mark};
use rusqlite::{Connection, Transaction};
use std::path::Path;

/// A random number given to the database when it is made.
const IDENTITY: &str = "identity";
/// Commits since then.
const COMMITS: &str = "commits";
/// Sum of the checksums of all replay states, modulo 2^64.
const STATES: &str = "states";
/// The number of the oldest reading that retention has left.
const FIRST_READING: &str = "first_reading";
/// The number of the newest reading; one less than the first where there is none.
const LAST_READING: &str = "last_reading";
/// The last reading that was written without a checksum, by schema version 1.
const UNSEALED: &str = "unsealed";

/// The sums as of the last commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// Tells databases apart; see [`IDENTITY`].
    pub(crate) identity: i64,
    /// How many commits there were.
    pub(crate) commits: i64,
    /// Sum of the replay states' checksums, wrapping.
    pub(crate) states: i64,
    /// The number of the newest reading.
    pub(crate) last_reading: i64,
}

/// Begins the ledger of a database that has none: a new one, or one of schema version 1.
pub(crate) fn begin(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let identity: i64 = transaction.query_row("SELECT random()", [], |row| row.get(0))?;
    let (first, last): (i64, i64) = transaction.query_row(
        "SELECT ifnull(min(id), 1), ifnull(max(id), 0) FROM readings",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    write_mark(transaction, IDENTITY, identity)?;
    write_mark(transaction, FIRST_READING, first)?;
    write_mark(transaction, UNSEALED, last)?;
    let states = states(transaction)?;
    let ledger = Ledger {
        identity,
        commits: 0,
        states,
        last_reading: last,
    };
    write(transaction, &ledger)
}

/// Writes what a commit changes.
pub(crate) fn write(transaction: &Transaction<'_>, ledger: &Ledger) -> rusqlite::Result<()> {
    write_mark(transaction, COMMITS, ledger.commits)?;
    write_mark(transaction, STATES, ledger.states)?;
    write_mark(transaction, LAST_READING, ledger.last_reading)
}

/// Call after deleting the oldest readings, in the same transaction.
pub(crate) fn advance_first_reading(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let first: Option<i64> = transaction.query_row("SELECT min(id) FROM readings", [], |row| row.get(0))?;
    first.map_or(Ok(()), |first| write_mark(transaction, FIRST_READING, first))
}

/// The sums as they were written.
pub(crate) fn load(connection: &Connection, path: &Path) -> Result<Ledger, StoreError> {
    Ok(Ledger {
        identity: needed(connection, path, IDENTITY)?,
        commits: needed(connection, path, COMMITS)?,
        states: needed(connection, path, STATES)?,
        last_reading: needed(connection, path, LAST_READING)?,
    })
}

/// Identity, and the last reading that has no checksum.
pub(crate) fn seals(connection: &Connection, path: &Path) -> Result<(i64, i64), StoreError> {
    Ok((
        needed(connection, path, IDENTITY)?,
        needed(connection, path, UNSEALED)?,
    ))
}

/// Compares the sums with the tables; call it within one transaction. `all_readings` also counts
/// the readings between the first and the last, which takes time with their number.
pub(crate) fn verify(connection: &Connection, path: &Path, all_readings: bool) -> Result<Ledger, StoreError> {
    let failed = |source| StoreError::sqlite(path, "add up the tables", source);
    replay::check_marks(connection, path)?;
    let ledger = load(connection, path)?;
    if states(connection).map_err(failed)? != ledger.states {
        return Err(StoreError::damaged(
            path,
            "its replay states are not those of its last commit",
        ));
    }
    let first = needed(connection, path, FIRST_READING)?;
    let last = ledger.last_reading;
    let (found_first, found_last): (i64, i64) = connection
        .query_row(
            "SELECT ifnull((SELECT min(id) FROM readings), ?1), ifnull((SELECT max(id) FROM readings), ?1 - 1)",
            [first],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .map_err(failed)?;
    if (found_first, found_last) != (first, last) {
        return Err(StoreError::damaged(
            path,
            format!("it holds readings {found_first} to {found_last} in place of {first} to {last}"),
        ));
    }
    if all_readings {
        let count: i64 = connection
            .query_row("SELECT count(*) FROM readings", [], |row| row.get(0))
            .map_err(failed)?;
        let expected = last - first + 1;
        if count != expected {
            return Err(StoreError::damaged(
                path,
                format!("it holds {count} readings from {first} to {last} in place of {expected}"),
            ));
        }
    }
    Ok(ledger)
}

fn states(connection: &Connection) -> rusqlite::Result<i64> {
    let mut statement = connection.prepare("SELECT checksum FROM replay_state")?;
    let mut rows = statement.query([])?;
    let mut sum = 0_i64;
    while let Some(row) = rows.next()? {
        sum = sum.wrapping_add(replay::summand(row.get_ref(0)?.as_blob()?));
    }
    Ok(sum)
}

fn needed(connection: &Connection, path: &Path, name: &str) -> Result<i64, StoreError> {
    mark(connection, path, name)?
        .ok_or_else(|| StoreError::damaged(path, format!("its mark `{name}` is missing")))
}
