//! The one writer: readings, replay states, events, totals and the clock floor, together or not at all.

use crate::channels::{self, Layouts};
use crate::error::StoreError;
use crate::event::{self, Event, EventIds, Outcome};
use crate::lock::WriterLock;
use crate::maintenance::{self, Retention};
use crate::opening::{self, Registered};
use crate::recorder::{Batch, DEFAULT_ROWS_PER_SECOND, Recorder};
use crate::replay::{self, CLOCK_FLOOR, EVENT_IDS};
use crate::totals::Totals;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidegate_envelope::id::{DeviceId, Sequence, ZoneId};
use tidegate_envelope::reason::Reason;
use tidegate_envelope::time::Timestamp;
use tidegate_verify::guard::Admission;
use tidegate_verify::log::{Loaded, ReplayLog};
use tidegate_verify::verifier::Protection;

/// After an unclean close the page structure of a database up to this size is checked whole: half
/// a second at most. Of a larger one only the tables that replay protection stands on.
pub const QUICK_CHECK_BYTES: u64 = 64 << 20;
/// Event numbers are reserved in blocks of so many, so that a crash never leads to one being used
/// twice: a page that goes on from an event number would miss the second.
const EVENT_ID_BLOCK: i64 = 1 << 20;
/// A clock floor alone is written when it has risen by this much.
const FLOOR_STEP: Duration = Duration::from_secs(1);

/// How a database is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// A ceiling on the database file, in bytes: commits fail with [`StoreError::Full`] rather
    /// than fill the disk. The `-wal` file comes on top: some 10 MB, at 200,000 readings/s some 80 MB.
    pub ceiling_bytes: Option<u64>,
    /// What the maintenance thread deletes.
    pub retention: Retention,
    /// Rows written per second of events of one outcome and reason; counts are exact regardless.
    pub event_rows_per_second: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ceiling_bytes: None,
            retention: Retention::default(),
            event_rows_per_second: DEFAULT_ROWS_PER_SECOND,
        }
    }
}

/// The open database.
///
/// Owned by the thread that commits; events come in from any thread through a [`Recorder`], and
/// queries run beside it in [`Reader`](crate::reader::Reader)s.
#[derive(Debug)]
pub struct Store {
    // Fields are dropped in this order: the lock must outlive every connection.
    maintenance: Option<maintenance::Thread>,
    connection: Connection,
    path: PathBuf,
    devices: Vec<Registered>,
    /// Place in the batch of each device's last message; only used within a commit.
    last_in_batch: Vec<Option<u32>>,
    layouts: Layouts,
    recorder: Recorder,
    totals: Totals,
    /// Arrival of the last reading: `received` never falls.
    last_received: i64,
    floor: i64,
    event_ids_reserved: i64,
    _lock: WriterLock,
}

/// What a transaction will have changed in memory once it is durable.
struct Written {
    last_received: i64,
    floor: i64,
    event_ids_reserved: i64,
}

impl Store {
    /// Opens or creates the database at `path`, in a folder that exists, with file mode 0600.
    /// `devices` are the registered devices in the registry's order.
    ///
    /// # Errors
    /// In use, foreign, newer, damaged (see the crate's text on what is checked), or not writable.
    pub fn open(path: &Path, devices: &[DeviceId], options: &Options) -> Result<Self, StoreError> {
        let lock = WriterLock::acquire(path)?;
        let mut connection = opening::connection(path, options)?;
        let failed = |source| StoreError::sqlite(path, "read the tables", source);
        let last_received: i64 = connection
            .query_row(
                "SELECT ifnull((SELECT received FROM readings ORDER BY id DESC LIMIT 1), ?1)",
                [i64::MIN],
                |row| row.get(0),
            )
            .map_err(failed)?;
        let last_event: Option<i64> = connection
            .query_row("SELECT max(id) FROM events", [], |row| row.get(0))
            .map_err(failed)?;
        let reserved = replay::mark(&connection, path, EVENT_IDS)?.unwrap_or(1);
        let first_event = reserved.max(last_event.unwrap_or(0) + 1);
        let floor = replay::mark(&connection, path, CLOCK_FLOOR)?;
        let recorder = Recorder::new(EventIds::starting_at(first_event), options.event_rows_per_second);
        let mut store = Self {
            maintenance: None,
            devices: opening::register(&mut connection, path, devices, first_event + EVENT_ID_BLOCK)?,
            last_in_batch: vec![None; devices.len()],
            layouts: Layouts::with(opening::layouts(&connection).map_err(failed)?),
            totals: totals(&connection).map_err(failed)?,
            connection,
            path: path.to_owned(),
            recorder,
            last_received,
            floor: floor.unwrap_or(i64::MIN),
            event_ids_reserved: first_event + EVENT_ID_BLOCK,
            _lock: lock,
        };
        store.maintenance = Some(maintenance::Thread::start(path, options.retention)?);
        Ok(store)
    }

    /// A handle that records events from any thread.
    #[must_use]
    pub fn recorder(&self) -> Recorder {
        self.recorder.clone()
    }

    /// Counts and keeps an event; see [`Recorder::record`].
    pub fn record(&self, event: Event) {
        self.recorder.record(event);
    }

    /// The numbers of events, going on from the database's.
    #[must_use]
    pub fn event_ids(&self) -> EventIds {
        self.recorder.ids()
    }

    /// Counts over the life of the database, as far as they are durable.
    #[must_use]
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Writes the recorded events and counts when no message commits them. Call it about once a
    /// second; it does nothing when nothing waits.
    ///
    /// # Errors
    /// As [`ReplayLog::commit`]; what could not be written waits for the next time.
    pub fn flush(&mut self) -> Result<(), StoreError> {
        self.write(&[], None)
    }

    /// Writes what waits and leaves one file behind, without `-wal`, unless a reader is open.
    ///
    /// # Errors
    /// What is not written then is lost: events since the last commit or flush, never a reading.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.shut_down()
    }

    fn shut_down(&mut self) -> Result<(), StoreError> {
        let Some(maintenance) = self.maintenance.take() else {
            return Ok(());
        };
        maintenance.stop();
        // Each is tried even when the one before it has failed: the log may free what they need.
        let flushed = self.write(&[], None);
        let given_back = self.give_back_event_ids();
        let written_back = self
            .connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        flushed?;
        given_back
            .and(written_back)
            .map_err(|source| StoreError::sqlite(&self.path, "write back the log", source))
    }

    /// After a clean close the numbers go on without a hole.
    fn give_back_event_ids(&mut self) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        replay::write_mark(&transaction, EVENT_IDS, self.recorder.ids().peek())?;
        transaction.commit()
    }

    fn write(&mut self, batch: &[Admission], floor: Option<Timestamp>) -> Result<(), StoreError> {
        let floor = floor.map_or(self.floor, Timestamp::as_micros).max(self.floor);
        let waiting = self.recorder.take();
        let floor_step = i64::try_from(FLOOR_STEP.as_micros()).unwrap_or(i64::MAX);
        if batch.is_empty() && waiting.is_empty() && floor < self.floor.saturating_add(floor_step) {
            return Ok(());
        }
        let known = self.devices.len();
        for index in batch.iter().filter_map(|admission| admission.message.device) {
            if index.0 as usize >= known {
                self.recorder.put_back(waiting);
                return Err(StoreError::UnknownDevice { index, known });
            }
        }

        match self.transact(batch, &waiting, floor) {
            Ok(written) => {
                self.layouts.confirm();
                self.totals.add(Outcome::Accepted, None, batch.len() as u64);
                self.totals.merge(&waiting.counted);
                self.last_received = written.last_received;
                self.floor = written.floor;
                self.event_ids_reserved = written.event_ids_reserved;
                if let Some(maintenance) = &self.maintenance {
                    maintenance.tell_time(Timestamp::from_micros(self.floor));
                }
                Ok(())
            }
            Err(source) => {
                self.layouts.forget_unconfirmed();
                self.recorder.put_back(waiting);
                Err(StoreError::sqlite(&self.path, "commit", source))
            }
        }
    }

    /// One transaction; rolled back on any error, and durable when it returns.
    fn transact(&mut self, batch: &[Admission], waiting: &Batch, floor: i64) -> rusqlite::Result<Written> {
        let _turn = self.maintenance.as_ref().map(maintenance::Thread::take_turn);
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;

        let mut last_received = self.last_received;
        let mut text = String::new();
        let mut insert = transaction.prepare_cached(INSERT_READING)?;
        for admission in batch {
            let message = &admission.message;
            let reading = &message.reading;
            last_received = last_received.max(message.received_at.as_micros());
            let device = message.device.map(|index| self.devices[index.0 as usize].number);
            // A registered device's zone stands in the registry.
            let zone = message
                .zone
                .as_ref()
                .filter(|_| device.is_none())
                .map(ZoneId::as_str);
            let layout = self.layouts.encode(&transaction, &reading.channels, &mut text)?;
            insert.execute(params![
                device,
                zone,
                reading.timestamp.map(Timestamp::as_micros),
                last_received,
                reading.boot.map(|boot| boot.0),
                reading.sequence.map(number),
                message.protection == Protection::Signed,
                reading.status.as_str(),
                layout,
                text,
            ])?;
        }
        drop(insert);

        write_states(&transaction, batch, &self.devices, &mut self.last_in_batch)?;
        for event in &waiting.events {
            write_event(&transaction, event, &mut text)?;
        }
        add_total(&transaction, Outcome::Accepted, None, batch.len() as u64)?;
        for (outcome, reason, count) in waiting.counted.iter() {
            add_total(&transaction, outcome, reason, count)?;
        }
        if floor > self.floor {
            replay::write_mark(&transaction, CLOCK_FLOOR, floor)?;
        }
        let next_event = self.recorder.ids().peek();
        let mut event_ids_reserved = self.event_ids_reserved;
        if event_ids_reserved - next_event < EVENT_ID_BLOCK / 2 {
            event_ids_reserved = next_event + EVENT_ID_BLOCK;
            replay::write_mark(&transaction, EVENT_IDS, event_ids_reserved)?;
        }
        transaction.commit()?;
        Ok(Written {
            last_received,
            floor,
            event_ids_reserved,
        })
    }
}

impl ReplayLog for Store {
    type Error = StoreError;

    fn load(&mut self) -> Result<Loaded, StoreError> {
        let devices: Vec<DeviceId> = self.devices.iter().map(|device| device.id.clone()).collect();
        replay::load(&self.connection, &self.path, &devices)
    }

    fn commit(&mut self, batch: &[Admission], floor: Timestamp) -> Result<(), StoreError> {
        self.write(batch, Some(floor))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Err(error) = self.shut_down() {
            tracing::warn!(path = %self.path.display(), %error, "the database was not closed cleanly");
        }
    }
}

const INSERT_READING: &str = "INSERT INTO readings
    (device, zone, timestamp, received, boot, sequence, protected, status, layout, channels)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";

/// A number twice would be our own mistake; it must not keep readings from being committed.
const INSERT_EVENT: &str = "INSERT OR IGNORE INTO events
    (id, at, outcome, reason, also, device, zone, topic, source, detail, score, sequence, boot, timestamp,
     status, channels, raw, protected, expected)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)";

/// Writes the newest state of each device of `batch`: the last in order, as the guard made them.
fn write_states(
    transaction: &Transaction<'_>,
    batch: &[Admission],
    devices: &[Registered],
    last_in_batch: &mut [Option<u32>],
) -> rusqlite::Result<()> {
    last_in_batch.fill(None);
    let stateful = || {
        (0..).zip(batch).filter_map(|(place, admission)| {
            Some((
                place,
                admission.message.device?.0 as usize,
                admission.state.as_ref()?,
            ))
        })
    };
    for (place, device, _) in stateful() {
        last_in_batch[device] = Some(place);
    }
    for (place, device, state) in stateful() {
        if last_in_batch[device] == Some(place) {
            let Registered { id, number } = &devices[device];
            replay::write_state(transaction, *number, id, state)?;
        }
    }
    Ok(())
}

fn write_event(transaction: &Transaction<'_>, event: &Event, text: &mut String) -> rusqlite::Result<()> {
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

fn add_total(
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

/// The stored totals; names that this version does not know are left out.
pub(crate) fn totals(connection: &Connection) -> rusqlite::Result<Totals> {
    let mut totals = Totals::default();
    let mut statement = connection.prepare("SELECT outcome, reason, count FROM totals")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let outcome = Outcome::from_name(row.get_ref(0)?.as_str()?);
        let name = row.get_ref(1)?.as_str()?;
        let reason = Reason::from_name(name);
        let count = u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0);
        if let Some(outcome) = outcome
            && (reason.is_some() || name.is_empty())
        {
            totals.add(outcome, reason, count);
        }
    }
    Ok(totals)
}
