//! The one writer: readings, replay states, events, totals and the clock floor, together or not at all.

use crate::anchor::Anchor;
use crate::channels::Layouts;
use crate::error::StoreError;
use crate::event::{Event, EventIds, Outcome};
use crate::insert::{self, Buffers, LastReading};
use crate::ledger::{self, Ledger};
use crate::lock::WriterLock;
use crate::maintenance::{self, LogTail, Retention, Turn};
use crate::opening::{self, Opened, Registered};
use crate::recorder::{Batch, DEFAULT_ROWS_PER_SECOND, Recorder};
use crate::replay::{self, CLOCK_FLOOR, EVENT_IDS};
use crate::totals::Totals;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::reason::Reason;
use tidegate_envelope::time::Timestamp;
use tidegate_verify::guard::Admission;
use tidegate_verify::log::{Loaded, ReplayLog};

/// At opening the page structure of a database up to this size is checked whole, and its readings
/// are counted: half a second at most. Of a larger one only the tables that replay protection
/// stands on, since a restart must not wait for minutes.
pub const QUICK_CHECK_BYTES: u64 = 64 << 20;
/// Event numbers are reserved in blocks of so many, so that a crash never leads to one being used
/// twice: a page that goes on from an event number would miss the second.
const EVENT_ID_BLOCK: i64 = 1 << 20;
/// Longest wait for readers before the log starts over after a failure.
const READERS_WAIT: Duration = Duration::from_millis(250);
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
    turn: Turn,
    connection: Connection,
    path: PathBuf,
    devices: Vec<Registered>,
    /// Place in the batch of each device's last message; only used within a commit.
    last_in_batch: Vec<Option<u32>>,
    layouts: Layouts,
    recorder: Recorder,
    totals: Totals,
    buffers: Buffers,
    last_received: i64,
    ledger: Ledger,
    anchor: Anchor,
    floor: i64,
    event_ids_reserved: i64,
    _lock: WriterLock,
}

/// What a transaction will have changed in memory once it is durable.
struct Written {
    last_received: i64,
    /// By device: what its state now adds to the ledger's sum.
    summands: Vec<(usize, i64)>,
    ledger: Ledger,
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
        Self::open_locked(path, devices, options, lock).map_err(|error| opening::explain(path, error))
    }

    fn open_locked(
        path: &Path,
        devices: &[DeviceId],
        options: &Options,
        lock: WriterLock,
    ) -> Result<Self, StoreError> {
        let Opened {
            mut connection,
            ledger,
            anchor,
        } = opening::open(path, options)?;
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
            turn: Turn::default(),
            devices: opening::register(&mut connection, path, devices, Some(first_event + EVENT_ID_BLOCK))?,
            last_in_batch: vec![None; devices.len()],
            layouts: Layouts::with(opening::layouts(&connection).map_err(failed)?),
            totals: totals(&connection).map_err(failed)?,
            connection,
            path: path.to_owned(),
            recorder,
            buffers: Buffers::default(),
            last_received,
            ledger,
            anchor,
            floor: floor.unwrap_or(i64::MIN),
            event_ids_reserved: first_event + EVENT_ID_BLOCK,
            _lock: lock,
        };
        store.maintenance = Some(maintenance::Thread::start(path, options.retention, &store.turn)?);
        Ok(store)
    }

    /// Takes further devices, appended to those of [`Self::open`] in the registry's order. `devices`
    /// is the whole list. A device that was registered once before has its state again:
    /// [`ReplayLog::load`] gives it.
    ///
    /// # Errors
    /// A device that is registered already is missing or at another place; or the disk failed.
    /// Then nothing has changed.
    pub fn register(&mut self, devices: &[DeviceId]) -> Result<(), StoreError> {
        let known = self.devices.len();
        let same = |place: usize| devices.get(place) == Some(&self.devices[place].id);
        if let Some(position) = (0..known).find(|place| !same(*place)) {
            return Err(StoreError::DevicesChanged { position });
        }
        self.start_log_over()?;
        let turn = self.turn.clone();
        let mut tail = maintenance::take(&turn);
        let added = opening::register(&mut self.connection, &self.path, &devices[known..], None)
            .inspect_err(|_| tail.worsen(LogTail::Unsynced))?;
        self.devices.extend(added);
        self.last_in_batch.resize(devices.len(), None);
        Ok(())
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
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .map_err(|source| StoreError::sqlite(&self.path, "write back the log", source));
        let synced = self.anchor.sync();
        flushed.and(given_back).and(written_back).and(synced)
    }

    /// After a clean close the numbers go on without a hole.
    fn give_back_event_ids(&mut self) -> Result<(), StoreError> {
        self.start_log_over()?;
        let next = self.recorder.ids().peek();
        let mut write = || {
            let transaction = self.connection.transaction()?;
            replay::write_mark(&transaction, EVENT_IDS, next)?;
            transaction.commit()
        };
        write().map_err(|source| StoreError::sqlite(&self.path, "give back event numbers", source))
    }

    /// After a failed transaction: writes back what is committed and begins the log at its start,
    /// so that nothing of the failed one is left in it. What SQLite itself would do is write over
    /// it, which is right while this process lives; see [`LogTail`].
    fn start_log_over(&mut self) -> Result<(), StoreError> {
        let turn = self.turn.clone();
        let mut tail = maintenance::take(&turn);
        if *tail == LogTail::Clean {
            return Ok(());
        }
        let restart = |connection: &Connection| {
            connection.busy_timeout(READERS_WAIT)?;
            let busy: bool = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
            connection.busy_timeout(opening::BUSY)?;
            Ok(busy)
        };
        let busy = restart(&self.connection)
            .map_err(|source| StoreError::sqlite(&self.path, "start the log over", source))?;
        if busy && *tail == LogTail::Unsynced {
            return Err(StoreError::Unsynced {
                path: self.path.clone(),
            });
        }
        if !busy {
            *tail = LogTail::Clean;
        }
        Ok(())
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

        let written = self
            .start_log_over()
            .and_then(|()| self.transact(batch, &waiting, floor));
        match written {
            Ok(written) => {
                self.layouts.confirm();
                self.totals.add(Outcome::Accepted, None, batch.len() as u64);
                self.totals.merge(&waiting.counted);
                for (device, summand) in written.summands {
                    self.devices[device].summand = summand;
                }
                self.last_received = written.last_received;
                self.ledger = written.ledger;
                self.floor = written.floor;
                self.event_ids_reserved = written.event_ids_reserved;
                self.anchor.promise(self.ledger.commits);
                if let Some(maintenance) = &self.maintenance {
                    maintenance.tell_time(Timestamp::from_micros(self.floor));
                }
                Ok(())
            }
            Err(error) => {
                self.layouts.forget_unconfirmed();
                self.recorder.put_back(waiting);
                Err(error)
            }
        }
    }

    /// One transaction; rolled back on any error, and durable when it returns.
    fn transact(&mut self, batch: &[Admission], waiting: &Batch, floor: i64) -> Result<Written, StoreError> {
        let turn = self.turn.clone();
        let mut tail = maintenance::take(&turn);
        self.write_all(batch, waiting, floor)
            .inspect_err(|error| tail.worsen(LogTail::after(error)))
            .map_err(|source| StoreError::sqlite(&self.path, "commit", source))
    }

    fn write_all(&mut self, batch: &[Admission], waiting: &Batch, floor: i64) -> rusqlite::Result<Written> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut ledger = self.ledger;
        let last = insert::write_readings(
            &transaction,
            batch,
            &self.devices,
            ledger.identity,
            &mut self.layouts,
            &mut self.buffers,
            LastReading {
                id: ledger.last_reading,
                received: self.last_received,
            },
        )?;
        let summands = write_states(&transaction, batch, &self.devices, &mut self.last_in_batch)?;
        for event in &waiting.events {
            insert::write_event(&transaction, event, &mut self.buffers)?;
        }
        insert::add_total(&transaction, Outcome::Accepted, None, batch.len() as u64)?;
        for (outcome, reason, count) in waiting.counted.iter() {
            insert::add_total(&transaction, outcome, reason, count)?;
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
        ledger.commits += 1;
        ledger.last_reading = last.id;
        for (device, summand) in &summands {
            ledger.states = ledger
                .states
                .wrapping_sub(self.devices[*device].summand)
                .wrapping_add(*summand);
        }
        ledger::write(&transaction, &ledger)?;
        transaction.commit()?;
        Ok(Written {
            last_received: last.received,
            summands,
            ledger,
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

/// Writes the newest state of each device of `batch`: the last in order, as the guard made them.
fn write_states(
    transaction: &Transaction<'_>,
    batch: &[Admission],
    devices: &[Registered],
    last_in_batch: &mut [Option<u32>],
) -> rusqlite::Result<Vec<(usize, i64)>> {
    last_in_batch.fill(None);
    let mut summands = Vec::new();
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
            let Registered { id, number, .. } = &devices[device];
            summands.push((device, replay::write_state(transaction, *number, id, state)?));
        }
    }
    Ok(summands)
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
