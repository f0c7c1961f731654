//! Read-only queries beside the writer, row by row.
//!
//! A long query is made in pages of [`PAGE_ROWS`] rows, because a read transaction keeps the log
//! from starting over: an export of hours must not make it grow for hours.

use crate::channels::{self, Layout};
use crate::error::StoreError;
use crate::event::{Event, Outcome};
pub use crate::rows::ReadingRow;
use crate::rows::{EVENT_COLUMNS, Fault, READING_COLUMNS, RawReading, event, raw_reading};
use crate::seal::Sealed;
use crate::totals::Totals;
use crate::{ledger, replay, schema};
use rusqlite::types::ToSql;
use rusqlite::{Connection, OpenFlags};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tidegate_envelope::id::{Boot, DeviceId, DeviceIndex, ZoneId};
use tidegate_envelope::reason::Reason;
use tidegate_envelope::time::Timestamp;
use tidegate_verify::state::DeviceState;

/// Rows read in one read transaction.
pub const PAGE_ROWS: u64 = 1_000;
/// Longest wait for a writer that is just recovering or closing the database.
const BUSY: Duration = Duration::from_secs(5);

/// In which order rows come, by their ids, which is the order of arrival.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// The oldest first.
    #[default]
    OldestFirst,
    /// The newest first.
    NewestFirst,
}

/// Which readings; the default is all of them.
#[derive(Debug, Clone, Default)]
pub struct ReadingQuery {
    /// Of one device only.
    pub device: Option<DeviceId>,
    /// Arrived at or after this.
    pub from: Option<Timestamp>,
    /// Arrived before this.
    pub to: Option<Timestamp>,
    /// Beyond the reading with this id, in the chosen order: where an earlier query ended.
    pub after: Option<i64>,
    /// At most so many.
    pub limit: Option<u64>,
    /// The order.
    pub order: Order,
}

/// Which events; the default is all of them.
#[derive(Debug, Clone, Default)]
pub struct EventQuery {
    /// With this outcome only.
    pub outcome: Option<Outcome>,
    /// With this reason only.
    pub reason: Option<Reason>,
    /// Of one device only.
    pub device: Option<DeviceId>,
    /// At or after this.
    pub from: Option<Timestamp>,
    /// Before this.
    pub to: Option<Timestamp>,
    /// Beyond the event with this id, in the chosen order.
    pub after_id: Option<i64>,
    /// At most so many.
    pub limit: Option<u64>,
    /// The order.
    pub order: Order,
}

/// A read-only connection. One per thread: it can be sent to another, but not shared.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    path: PathBuf,
    devices: HashMap<i64, DeviceId>,
    layouts: HashMap<i64, Arc<Layout>>,
    /// The database's identity, which checksums of readings cover.
    identity: i64,
    /// The last reading without one.
    unsealed: i64,
    buffer: Vec<u8>,
}

impl Reader {
    /// Opens the database, which must exist and have the current schema.
    ///
    /// # Errors
    /// Not there, foreign, newer, older, or damaged.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |source| StoreError::sqlite(path, "open a connection", source);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        connection.busy_timeout(BUSY).map_err(failed)?;
        connection
            .execute_batch("PRAGMA trusted_schema = OFF")
            .map_err(failed)?;
        schema::require_current(&connection, path)?;
        let (identity, unsealed) = ledger::seals(&connection, path)?;
        Ok(Self {
            connection,
            path: path.to_owned(),
            devices: HashMap::new(),
            layouts: HashMap::new(),
            identity,
            unsealed,
            buffer: Vec::new(),
        })
    }

    /// The replay state of every device that has one, registered still or not, in no order.
    ///
    /// # Errors
    /// Also when a state fails its checksum.
    pub fn replay_states(&self) -> Result<Vec<(DeviceId, DeviceState)>, StoreError> {
        let failed = |source| StoreError::sqlite(&self.path, "read the devices", source);
        let mut statement = self
            .connection
            .prepare("SELECT id FROM devices")
            .map_err(failed)?;
        let names = statement
            .query_map([], |row| row.get::<_, String>(0))
            .map_err(failed)?;
        let mut devices = Vec::new();
        for name in names {
            let name = name.map_err(failed)?;
            devices.push(
                DeviceId::new(&name).map_err(|error| StoreError::damaged(&self.path, error.to_string()))?,
            );
        }
        let loaded = replay::load(&self.connection, &self.path, &devices)?;
        let named = |(index, state): (DeviceIndex, _)| (devices[index.0 as usize].clone(), state);
        Ok(loaded.devices.into_iter().map(named).collect())
    }

    /// Hands the readings that `query` asks for to `take`, until it breaks off. The database may
    /// grow and shrink meanwhile; every reading that is there throughout comes exactly once.
    ///
    /// # Errors
    /// Also when a row is not what the writer writes.
    pub fn readings(
        &mut self,
        query: &ReadingQuery,
        mut take: impl FnMut(ReadingRow) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let device = match &query.device {
            None => None,
            Some(id) => match self.device_number(id)? {
                Some(number) => Some(number),
                None => return Ok(()),
            },
        };
        let mut bounds = Bounds::new(query.order, query.after, query.limit);
        if let Some(from) = query.from {
            bounds.low = bounds.low.max(self.first_received(from)?);
        }
        if let Some(to) = query.to {
            bounds.high = bounds.high.min(self.first_received(to)? - 1);
        }
        let condition = if device.is_some() {
            "device = ?4"
        } else {
            "?4 IS NULL"
        };
        let sql = format!(
            "SELECT {READING_COLUMNS} FROM readings WHERE {condition} AND id BETWEEN ?1 AND ?2 ORDER BY id {} LIMIT ?3",
            direction(query.order)
        );
        bounds.pages(|low, high, limit| {
            let rows = self.page(&sql, &[&low, &high, &limit, &device], "read the readings")?;
            Ok(visit(rows, |row| row.id, &mut take))
        })
    }

    /// The newest reading of every device that has one, by the devices' order in the database.
    ///
    /// # Errors
    /// As [`Self::readings`].
    pub fn latest_by_device(&mut self) -> Result<Vec<ReadingRow>, StoreError> {
        let sql = format!(
            "SELECT {READING_COLUMNS} FROM readings WHERE id IN
             (SELECT (SELECT max(id) FROM readings WHERE device = devices.number) FROM devices) ORDER BY device"
        );
        self.page(&sql, &[], "read the latest readings")
    }

    /// Hands the events that `query` asks for to `take`, until it breaks off.
    ///
    /// # Errors
    /// Also when a row is not what the writer writes.
    pub fn events(
        &mut self,
        query: &EventQuery,
        mut take: impl FnMut(Event) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let failed = |source| StoreError::sqlite(&self.path, "read the events", source);
        let mut bounds = Bounds::new(query.order, query.after_id, query.limit);
        let from = query.from.map_or(i64::MIN, Timestamp::as_micros);
        let to = query.to.map_or(i64::MAX, Timestamp::as_micros);
        if query.from.is_some() || query.to.is_some() {
            let span: (Option<i64>, Option<i64>) = self
                .connection
                .prepare_cached("SELECT min(id), max(id) FROM events WHERE at >= ?1 AND at < ?2")
                .and_then(|mut statement| {
                    statement.query_row([from, to], |row| Ok((row.get(0)?, row.get(1)?)))
                })
                .map_err(failed)?;
            let (Some(first), Some(last)) = span else {
                return Ok(());
            };
            bounds.low = bounds.low.max(first);
            bounds.high = bounds.high.min(last);
        }
        // Naming every outcome lets the index on outcome and reason serve a reason alone.
        let outcome = match (query.outcome, query.reason) {
            (Some(outcome), _) => format!("outcome = '{}'", outcome.as_str()),
            (None, Some(_)) => "outcome IN ('flagged', 'blocked', 'notice')".to_owned(),
            (None, None) => "TRUE".to_owned(),
        };
        let reason = query
            .reason
            .map_or("TRUE".to_owned(), |reason| format!("reason = '{reason}'"));
        let device = if query.device.is_some() {
            "device = ?6"
        } else {
            "?6 IS NULL"
        };
        let sql = format!(
            "SELECT {EVENT_COLUMNS} FROM events WHERE id BETWEEN ?1 AND ?2 AND at >= ?4 AND at < ?5
             AND {outcome} AND {reason} AND {device} ORDER BY id {} LIMIT ?3",
            direction(query.order)
        );
        let named = query.device.as_ref().map(DeviceId::as_str);
        bounds.pages(|low, high, limit| {
            let rows = self
                .connection
                .prepare_cached(&sql)
                .and_then(|mut statement| {
                    statement
                        .query_map((low, high, limit, from, to, named), |row| Ok(event(row)))?
                        .collect::<rusqlite::Result<Vec<_>>>()
                })
                .map_err(failed)?;
            let rows: Vec<Event> = rows
                .into_iter()
                .map(|row| row.map_err(|fault| fault.into_error(&self.path, "event")))
                .collect::<Result<_, _>>()?;
            Ok(visit(rows, |row| row.id, &mut take))
        })
    }

    /// Counts over the life of the database.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn totals(&self) -> Result<Totals, StoreError> {
        crate::writer::totals(&self.connection)
            .map_err(|source| StoreError::sqlite(&self.path, "read the totals", source))
    }

    /// Checks the whole file and reads all of it: page structure, the sums of the last commit, and
    /// every reading.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] with what was found first.
    pub fn check(&mut self) -> Result<(), StoreError> {
        let failed = |source| StoreError::sqlite(&self.path, "check the tables", source);
        // The sums belong to the tables as they are at one moment.
        let transaction = self.connection.unchecked_transaction().map_err(failed)?;
        schema::verify(&transaction, &self.path)?;
        schema::quick_check(&transaction, &self.path, None)?;
        ledger::verify(&transaction, &self.path, true)?;
        drop(transaction);
        self.readings(&ReadingQuery::default(), |_| ControlFlow::Continue(()))
    }

    fn device_number(&self, id: &DeviceId) -> Result<Option<i64>, StoreError> {
        let found = self
            .connection
            .prepare_cached("SELECT number FROM devices WHERE id = ?1")
            .and_then(|mut statement| statement.query_row([id.as_str()], |row| row.get(0)));
        match found {
            Ok(number) => Ok(Some(number)),
            Err(rusqlite::Error::QueryReturnedNoRows) => Ok(None),
            Err(source) => Err(StoreError::sqlite(&self.path, "find the device", source)),
        }
    }

    /// The id of the first reading that arrived at `time` or later, by bisection: arrivals never
    /// fall from one id to the next. One more than the last id where there is none.
    fn first_received(&self, time: Timestamp) -> Result<i64, StoreError> {
        let bisect = || {
            let mut statement = self
                .connection
                .prepare_cached("SELECT id, received FROM readings WHERE id >= ?1 ORDER BY id LIMIT 1")?;
            let span = "SELECT ifnull(min(id), 1), ifnull(max(id), 0) + 1 FROM
                        (SELECT min(id) AS id FROM readings UNION ALL SELECT max(id) FROM readings)";
            let (mut low, mut high): (i64, i64) = self
                .connection
                .prepare_cached(span)?
                .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            while low < high {
                let middle = low + (high - low) / 2;
                let mut rows = statement.query([middle])?;
                match rows.next()? {
                    Some(row) if row.get::<_, i64>(1)? < time.as_micros() => low = row.get::<_, i64>(0)? + 1,
                    _ => high = middle,
                }
            }
            Ok(low)
        };
        bisect().map_err(|source| StoreError::sqlite(&self.path, "find a time", source))
    }

    /// Reads one page of readings whole, so that no read transaction outlives it.
    fn page(
        &mut self,
        sql: &str,
        parameters: &[&dyn ToSql],
        doing: &'static str,
    ) -> Result<Vec<ReadingRow>, StoreError> {
        let failed = |source| StoreError::sqlite(&self.path, doing, source);
        let raw: Vec<RawReading> = self
            .connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_map(parameters, raw_reading)?.collect())
            .map_err(failed)?;
        raw.into_iter().map(|raw| self.reading(raw)).collect()
    }

    fn reading(&mut self, raw: RawReading) -> Result<ReadingRow, StoreError> {
        let device = raw.device.map(|number| self.device(number, raw.id)).transpose()?;
        let layout = raw.layout.map(|layout| self.layout(layout, raw.id)).transpose()?;
        let row = Sealed {
            id: raw.id,
            device: device.as_ref().map(DeviceId::as_str),
            zone: raw.zone.as_deref(),
            timestamp: raw.timestamp,
            received: raw.received,
            boot: raw.boot,
            sequence: raw.sequence,
            protected: raw.protected,
            status: &raw.status,
            names: layout.as_ref().map(|layout| layout.json.as_str()),
            channels: &raw.channels,
        };
        let expected = (raw.id > self.unsealed).then(|| row.checksum(self.identity, &mut self.buffer));
        if expected.is_some() && raw.checksum != expected {
            return Err(StoreError::damaged(
                &self.path,
                format!("reading {} fails its checksum", raw.id),
            ));
        }
        let channels = match &layout {
            Some(layout) => channels::decode_array(&layout.names, &raw.channels),
            None => channels::decode_object(&raw.channels),
        };
        let fault = |column| Fault { id: raw.id, column }.into_error(&self.path, "reading");
        Ok(ReadingRow {
            id: raw.id,
            device,
            zone: raw
                .zone
                .map(|zone| ZoneId::new(&zone).map_err(|_| fault("zone")))
                .transpose()?,
            timestamp: raw.timestamp.map(Timestamp::from_micros),
            received: Timestamp::from_micros(raw.received),
            boot: raw.boot.map(Boot),
            sequence: raw
                .sequence
                .map(|sequence| u64::try_from(sequence).map_err(|_| fault("sequence")))
                .transpose()?,
            protected: raw.protected,
            status: raw.status.into(),
            channels: channels.ok_or_else(|| fault("channels"))?,
        })
    }

    fn device(&mut self, number: i64, id: i64) -> Result<DeviceId, StoreError> {
        if let Some(device) = self.devices.get(&number) {
            return Ok(device.clone());
        }
        let name = self.name("SELECT id FROM devices WHERE number = ?1", number)?;
        let device = DeviceId::new(&name)
            .map_err(|_| Fault { id, column: "device" }.into_error(&self.path, "reading"))?;
        self.devices.insert(number, device.clone());
        Ok(device)
    }

    fn layout(&mut self, number: i64, id: i64) -> Result<Arc<Layout>, StoreError> {
        if let Some(layout) = self.layouts.get(&number) {
            return Ok(Arc::clone(layout));
        }
        let names = self.name("SELECT names FROM layouts WHERE number = ?1", number)?;
        let layout = channels::layout(names)
            .ok_or_else(|| Fault { id, column: "layout" }.into_error(&self.path, "reading"))?;
        self.layouts.insert(number, Arc::clone(&layout));
        Ok(layout)
    }

    fn name(&self, sql: &str, number: i64) -> Result<String, StoreError> {
        self.connection
            .query_row(sql, [number], |row| row.get(0))
            .map_err(|source| match source {
                rusqlite::Error::QueryReturnedNoRows => {
                    StoreError::damaged(&self.path, format!("number {number} has no name"))
                }
                source => StoreError::sqlite(&self.path, "read the names", source),
            })
    }
}

/// The ids still to be read.
struct Bounds {
    order: Order,
    low: i64,
    high: i64,
    limit: u64,
}

/// How a page ended: where to go on, or that the reader of the rows has had enough.
struct Visited {
    last: Option<i64>,
    rows: u64,
    stopped: bool,
}

impl Bounds {
    fn new(order: Order, after: Option<i64>, limit: Option<u64>) -> Self {
        let (mut low, mut high) = (i64::MIN, i64::MAX);
        match (order, after) {
            (_, None) => {}
            (Order::OldestFirst, Some(after)) => low = after.saturating_add(1),
            (Order::NewestFirst, Some(after)) => high = after.saturating_sub(1),
        }
        let limit = limit.unwrap_or(u64::MAX);
        Self {
            order,
            low,
            high,
            limit,
        }
    }

    /// Calls `page` with the least and the greatest id and a number of rows until all are read.
    fn pages(
        mut self,
        mut page: impl FnMut(i64, i64, i64) -> Result<Visited, StoreError>,
    ) -> Result<(), StoreError> {
        while self.limit > 0 && self.low <= self.high {
            let wanted = self.limit.min(PAGE_ROWS);
            let visited = page(self.low, self.high, i64::try_from(wanted).unwrap_or(i64::MAX))?;
            let (Some(last), false) = (visited.last, visited.stopped || visited.rows < wanted) else {
                break;
            };
            self.limit -= visited.rows;
            match self.order {
                Order::OldestFirst if last < i64::MAX => self.low = last + 1,
                Order::NewestFirst if last > i64::MIN => self.high = last - 1,
                _ => break,
            }
        }
        Ok(())
    }
}

fn visit<T>(rows: Vec<T>, id: impl Fn(&T) -> i64, take: &mut impl FnMut(T) -> ControlFlow<()>) -> Visited {
    let mut visited = Visited {
        last: rows.last().map(id),
        rows: rows.len() as u64,
        stopped: false,
    };
    for row in rows {
        if take(row).is_break() {
            visited.stopped = true;
            break;
        }
    }
    visited
}

const fn direction(order: Order) -> &'static str {
    match order {
        Order::OldestFirst => "ASC",
        Order::NewestFirst => "DESC",
    }
}
