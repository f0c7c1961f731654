//! Work beside the writer, on a connection of its own: writing back the log, and deleting what is old.
//!
//! The log must be written back to the database file now and then, and a commit that had to do it
//! would wait for seconds of other commits' pages. Here it runs beside the commits. Only when the
//! log has become long does it also make the writer wait, for the few pages that are left, so that
//! the log can start over at its beginning.

use crate::error::StoreError;
use crate::{beside, ledger, opening};
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tidegate_envelope::time::Timestamp;

/// How often the thread looks.
const TICK: Duration = Duration::from_millis(500);
/// A log file up to this size is left alone.
const WRITE_BACK_BYTES: u64 = 4 << 20;
/// A log of this length makes the writer wait until it has started over.
const START_OVER_BYTES: u64 = 32 << 20;
/// Longest wait for readers when the log starts over; the writer waits with it.
const READERS_WAIT: Duration = Duration::from_millis(50);
/// Rows deleted in one transaction: the longest that a commit waits for it, some milliseconds.
const ROWS_PER_STEP: u32 = 500;
/// Most transactions of one call of [`Maintenance::prune`].
const STEPS_PER_CALL: u32 = 200;
/// Pages given back to the file system in one transaction.
const PAGES_PER_STEP: u32 = 64;
/// Free pages that are kept for new rows where no size is to be kept.
const SPARE_PAGES: i64 = 1_024;

/// What is kept. Counts, replay states and the newest reading are kept for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Readings and events older than this are deleted.
    pub max_age: Option<Duration>,
    /// The oldest readings and events are deleted while the database file is larger, in bytes.
    pub max_bytes: Option<u64>,
}

/// What one call deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Rows of readings.
    pub readings: u64,
    /// Rows of events.
    pub events: u64,
    /// Whether nothing is left to do; else call again.
    pub finished: bool,
}

/// A connection for maintenance.
#[derive(Debug)]
pub struct Maintenance {
    connection: Connection,
    path: PathBuf,
    page_bytes: u64,
    turn: Turn,
}

/// Held by the writer during a commit, and by maintenance during a step. SQLite would let the
/// second one poll; this wakes it.
pub(crate) type Turn = Arc<Mutex<LogTail>>;

/// What stands in the log behind the last commit, as far as this process knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum LogTail {
    /// Nothing but what a crash may leave.
    #[default]
    Clean,
    /// A transaction that failed, for want of room perhaps.
    Leftover,
    /// A transaction that the disk may have lost although the file shows it: after a failed sync
    /// the kernel takes its pages for clean. Whoever reads the file after this process has died
    /// would take it for committed, and build upon it.
    Unsynced,
}

impl LogTail {
    /// What a failed transaction leaves.
    pub(crate) fn after(error: &rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::SystemIoFailure) => Self::Unsynced,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Clean,
            _ => Self::Leftover,
        }
    }

    /// Keeps the worse of the two.
    pub(crate) fn worsen(&mut self, other: Self) {
        if other as u8 > *self as u8 {
            *self = other;
        }
    }
}

impl Maintenance {
    /// Opens an existing database, also while a gateway writes to it.
    ///
    /// # Errors
    /// As for a [`Reader`](crate::reader::Reader): foreign, newer, older, or damaged.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::with_turn(path, Arc::default())
    }

    fn with_turn(path: &Path, turn: Turn) -> Result<Self, StoreError> {
        let failed = |source| StoreError::sqlite(path, "open a connection", source);
        let connection = opening::writable(path)?;
        connection.busy_timeout(READERS_WAIT).map_err(failed)?;
        crate::schema::require_current(&connection, path)?;
        // Full here too: the check of a log after a crash relies on every transaction having been
        // synced before the next.
        connection
            .execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF")
            .map_err(failed)?;
        connection
            .pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))
            .map_err(failed)?;
        let page_bytes: u32 = connection
            .pragma_query_value(None, "page_size", |row| row.get(0))
            .map_err(failed)?;
        Ok(Self {
            connection,
            path: path.to_owned(),
            page_bytes: u64::from(page_bytes),
            turn,
        })
    }

    /// Writes the log back to the database file when it has grown, and lets it start over when it
    /// has grown long.
    ///
    /// # Errors
    /// The disk failed. Nothing is lost: the log stays as it is.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        let log_bytes = std::fs::metadata(beside(&self.path, "-wal")).map_or(0, |metadata| metadata.len());
        if log_bytes > WRITE_BACK_BYTES {
            let frames = self.write_back("PRAGMA wal_checkpoint(PASSIVE)")?;
            if frames * self.page_bytes > START_OVER_BYTES {
                let mut turn = take(&self.turn);
                self.write_back_in_turn("PRAGMA wal_checkpoint(RESTART)", &mut turn)?;
            }
        }
        Ok(())
    }

    /// Frames that the log holds. A checkpoint that readers hold up does what it can.
    fn write_back(&self, pragma: &str) -> Result<u64, StoreError> {
        let mut tail = LogTail::Clean;
        let written = self.write_back_in_turn(pragma, &mut tail);
        take(&self.turn).worsen(tail);
        written
    }

    /// It syncs the log first: what the last commit has left unsynced behind its end is lost if
    /// that fails, and the next commit would build upon it.
    fn write_back_in_turn(&self, pragma: &str, tail: &mut LogTail) -> Result<u64, StoreError> {
        let frames: i64 = self
            .connection
            .query_row(pragma, [], |row| row.get(1))
            .inspect_err(|error| tail.worsen(LogTail::after(error)))
            .map_err(|source| StoreError::sqlite(&self.path, "write back the log", source))?;
        Ok(u64::try_from(frames).unwrap_or(0))
    }

    /// Deletes readings and events beyond `retention`, oldest first, and gives the space back when
    /// a size is to be kept. Works in small transactions between which the writer gets its turn,
    /// and stops after some of them.
    ///
    /// # Errors
    /// What was deleted until then stays deleted.
    pub fn prune(&self, now: Timestamp, retention: &Retention) -> Result<Pruned, StoreError> {
        let mut pruned = Pruned::default();
        let mut steps = 0;
        if let Some(max_age) = retention.max_age {
            let before = now.minus(max_age).as_micros();
            while steps < STEPS_PER_CALL {
                let readings = self.delete(OLDEST_READINGS, before)?;
                let events = self.delete(OLDEST_EVENTS, before)?;
                steps += 1;
                pruned.readings += readings;
                pruned.events += events;
                if readings + events == 0 {
                    break;
                }
            }
        }
        if let Some(max_bytes) = retention.max_bytes {
            // Some room below the limit, so that not every tick has to delete and to shrink.
            let wanted = max_bytes - max_bytes / 20;
            while steps < STEPS_PER_CALL && self.used_bytes()? > wanted {
                let older_events = self.first("SELECT at FROM events ORDER BY id LIMIT 1")?
                    <= self.first("SELECT received FROM readings ORDER BY id LIMIT 1")?;
                let (mut readings, mut events) = (0, 0);
                if older_events {
                    events = self.delete(OLDEST_EVENTS, i64::MAX)?;
                } else {
                    readings = self.delete(OLDEST_READINGS, i64::MAX)?;
                    if readings == 0 {
                        events = self.delete(OLDEST_EVENTS, i64::MAX)?;
                    }
                }
                steps += 1;
                pruned.readings += readings;
                pruned.events += events;
                if readings + events == 0 {
                    break;
                }
            }
        }
        pruned.finished = steps < STEPS_PER_CALL;
        self.shrink(retention.max_bytes)?;
        Ok(pruned)
    }

    /// Cuts free pages off the end of the file: all that are over `max_bytes`, or else all but a
    /// supply for new rows. The file itself becomes shorter when the log is written back.
    fn shrink(&self, max_bytes: Option<u64>) -> Result<(), StoreError> {
        let mut shrunk = false;
        for _ in 0..STEPS_PER_CALL {
            let (pages, free) = (self.pragma("page_count")?, self.pragma("freelist_count")?);
            let too_large =
                max_bytes.is_some_and(|max| u64::try_from(pages).unwrap_or(0) * self.page_bytes > max);
            if free == 0 || !(too_large || free > SPARE_PAGES.max(pages / 4)) {
                break;
            }
            let mut turn = take(&self.turn);
            self.give_back_pages()
                .inspect_err(|error| turn.worsen(LogTail::after(error)))
                .map_err(|source| StoreError::sqlite(&self.path, "shrink the file", source))?;
            shrunk = true;
        }
        if shrunk {
            self.write_back("PRAGMA wal_checkpoint(PASSIVE)")?;
        }
        Ok(())
    }

    /// The pragma gives one row per page and has to be read to its end.
    fn give_back_pages(&self) -> rusqlite::Result<()> {
        let mut statement = self
            .connection
            .prepare(&format!("PRAGMA incremental_vacuum({PAGES_PER_STEP})"))?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        Ok(())
    }

    fn delete(&self, sql: &str, before: i64) -> Result<u64, StoreError> {
        let mut turn = take(&self.turn);
        self.delete_step(sql, before)
            .inspect_err(|error| turn.worsen(LogTail::after(error)))
            .map_err(|source| StoreError::sqlite(&self.path, "delete old rows", source))
    }

    fn delete_step(&self, sql: &str, before: i64) -> rusqlite::Result<u64> {
        let transaction = Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
        let deleted = transaction
            .prepare_cached(sql)?
            .execute((before, ROWS_PER_STEP))?;
        if deleted == 0 {
            return Ok(0);
        }
        ledger::advance_first_reading(&transaction)?;
        transaction.commit()?;
        Ok(deleted as u64)
    }

    /// Bytes of the pages that hold something.
    fn used_bytes(&self) -> Result<u64, StoreError> {
        let used = self.pragma("page_count")? - self.pragma("freelist_count")?;
        Ok(u64::try_from(used).unwrap_or(0) * self.page_bytes)
    }

    fn pragma(&self, name: &str) -> Result<i64, StoreError> {
        self.connection
            .pragma_query_value(None, name, |row| row.get(0))
            .map_err(|source| StoreError::sqlite(&self.path, "measure the file", source))
    }

    /// The one number that `sql` asks for; the end of time where there is none.
    fn first(&self, sql: &str) -> Result<i64, StoreError> {
        match self
            .connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
        {
            Ok(number) => Ok(number),
            Err(rusqlite::Error::QueryReturnedNoRows) => Ok(i64::MAX),
            Err(source) => Err(StoreError::sqlite(&self.path, "find old rows", source)),
        }
    }
}

/// The newest reading stays, so that ids are never used again.
const OLDEST_READINGS: &str = "DELETE FROM readings WHERE received < ?1 AND id IN (
    SELECT id FROM readings WHERE id < (SELECT max(id) FROM readings) ORDER BY id LIMIT ?2)";

/// By number, which is by time but for fractions of a second.
const OLDEST_EVENTS: &str = "DELETE FROM events WHERE at < ?1 AND id IN (
    SELECT id FROM events ORDER BY id LIMIT ?2)";

/// The thread that a [`Store`](crate::writer::Store) runs.
#[derive(Debug)]
pub(crate) struct Thread {
    shared: Arc<Shared>,
    handle: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    /// The latest time that the writer knows, microseconds since 1970: no clock is read here.
    now: AtomicI64,
    stopped: Mutex<bool>,
    wake: Condvar,
}

impl Thread {
    pub(crate) fn start(path: &Path, retention: Retention, turn: &Turn) -> Result<Self, StoreError> {
        let maintenance = Maintenance::with_turn(path, Arc::clone(turn))?;
        let shared = Arc::new(Shared {
            now: AtomicI64::new(i64::MIN),
            stopped: Mutex::new(false),
            wake: Condvar::new(),
        });
        let handle = std::thread::Builder::new()
            .name("tidegate-store".into())
            .spawn({
                let shared = Arc::clone(&shared);
                move || run(&maintenance, &retention, &shared)
            })
            .map_err(|source| StoreError::io(path, "start the maintenance thread for", source))?;
        Ok(Self { shared, handle })
    }

    pub(crate) fn tell_time(&self, now: Timestamp) {
        self.shared.now.fetch_max(now.as_micros(), Ordering::Relaxed);
    }

    /// Waits for the step under way, and for the connection to close.
    pub(crate) fn stop(self) {
        *take(&self.shared.stopped) = true;
        self.shared.wake.notify_all();
        if self.handle.join().is_err() {
            tracing::warn!("the maintenance thread of the database had failed");
        }
    }
}

fn run(maintenance: &Maintenance, retention: &Retention, shared: &Shared) {
    let mut stopped = take(&shared.stopped);
    while !*stopped {
        drop(stopped);
        let now = shared.now.load(Ordering::Relaxed);
        let result = maintenance.checkpoint().and_then(|()| {
            if now == i64::MIN {
                return Ok(Pruned::default());
            }
            maintenance.prune(Timestamp::from_micros(now), retention)
        });
        if let Err(error) = result {
            tracing::warn!(path = %maintenance.path.display(), %error, "maintenance of the database failed, and will be tried again");
        }
        stopped = take(&shared.stopped);
        if !*stopped {
            stopped = shared
                .wake
                .wait_timeout(stopped, TICK)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// Takes a lock. Those here guard turns and flags, which no panic can leave half changed.
pub(crate) fn take<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
