//! The process whose changes are recorded: opens the store as the gateway does, commits, prunes,
//! closes, and says so.

use super::devices::{Devices, START, Said, bytes_hash, expected_hash};
use super::marks::{self, Attempt, Mark, Row};
use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidegate_envelope::id::DeviceIndex;
use tidegate_envelope::reason::Reason;
use tidegate_envelope::time::Timestamp;
use tidegate_store::error::StoreError;
use tidegate_store::event::{Event, Outcome as EventOutcome};
use tidegate_store::maintenance::{Maintenance, Retention};
use tidegate_store::reader::{Reader, ReadingQuery};
use tidegate_store::writer::{Options, Store};
use tidegate_verify::guard::{Admission, GuardPolicy, Outcome, ReplayGuard};
use tidegate_verify::log::{Loaded, ReplayLog};

/// The database in the folder.
pub(super) const DATABASE: &str = "tidegate.db";
/// A message to the next, in the scenario's time.
const PACE: Duration = Duration::from_millis(2);
/// Readings that are offered to the guard again after opening.
const REPLAYED: u64 = 24;

/// What a worker does; its argument, as JSON.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Work {
    pub(super) seed: u64,
    /// Commits before it ends.
    pub(super) commits: u32,
    /// Readings in a commit at most.
    pub(super) batch: u32,
    /// Old rows are deleted now and then.
    pub(super) prunes: bool,
    /// Someone deletes old rows beside the commits.
    pub(super) prunes_beside: bool,
}

impl FromStr for Work {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(text)
    }
}

/// Runs in `folder`, which may hold a database already.
pub(super) fn run(folder: &Path, work: Work) -> Result<()> {
    let devices = Devices::new();
    let mut worker = Worker {
        marks: Marks::open(&folder.join(marks::FILE))?,
        path: folder.join(DATABASE),
        devices: &devices,
        random: StdRng::seed_from_u64(work.seed),
        now: START,
        last_received: START,
        work,
    };
    worker.marks.say(&Mark::Started)?;
    let beside = work.prunes_beside.then(|| {
        let (marks, path) = (worker.marks.clone(), worker.path.clone());
        std::thread::spawn(move || prune_beside(&marks, &path, work.commits))
    });
    let mut left = work.commits;
    while left > 0 {
        let part = worker.random.random_range(1..=left);
        left -= part;
        worker.session(part, left == 0)?;
    }
    if let Some(beside) = beside {
        // A panic there is one of this process.
        beside.join().map_err(|_| anyhow::anyhow!("pruning failed"))??;
    }
    Ok(())
}

struct Worker<'d> {
    marks: Marks,
    path: PathBuf,
    devices: &'d Devices,
    random: StdRng,
    now: Timestamp,
    last_received: Timestamp,
    work: Work,
}

impl Worker<'_> {
    /// From opening to closing, or to the process's end without it.
    fn session(&mut self, commits: u32, is_last: bool) -> Result<()> {
        let mut store = Store::open(&self.path, &self.devices.ids, &Options::default())?;
        self.marks.say(&Mark::Opened {
            accepted: store.totals().of(EventOutcome::Accepted),
            blocked: store.totals().of(EventOutcome::Blocked),
        })?;
        let loaded = store.load()?;
        if let Some(floor) = loaded.floor {
            self.now = self.now.max(floor).plus(PACE);
        }
        self.last_received = self.last_received.max(self.now);
        let mut next: Vec<u64> = vec![1; self.devices.ids.len()];
        for (device, state) in &loaded.devices {
            next[device.0 as usize] = state.mark().get() + 1;
        }
        let mut guard = self.guard(loaded);
        self.replay(&mut guard)?;

        let mut waiting = Waiting::default();
        for _ in 0..commits {
            for _ in 0..self.random.random_range(0..=2) {
                let number = store.event_ids().peek();
                store.record(Event::new(self.now, EventOutcome::Blocked, Some(Reason::BadMac)));
                waiting.counted += 1;
                // Only so many of a reason are kept in a second.
                if store.event_ids().peek() > number {
                    waiting.events.push(number);
                }
            }
            let mut log = Marked {
                store: &mut store,
                marks: &self.marks,
                devices: self.devices,
                last_received: self.last_received,
                waiting: &mut waiting,
            };
            if self.random.random_range(0..8) == 0 {
                log.flush()?;
                continue;
            }
            // Many small groups and a few large ones.
            let most = if self.random.random_range(0..6) == 0 {
                self.work.batch
            } else {
                4
            };
            for _ in 0..self.random.random_range(1..=most) {
                self.now = self.now.plus(PACE);
                let device = DeviceIndex(self.random.random_range(0..next.len() as u32));
                let said = Said {
                    device,
                    sequence: next[device.0 as usize],
                    timestamp: self
                        .now
                        .minus(Duration::from_micros(self.random.random_range(0..1_000))),
                };
                let outcome = guard.admit(self.devices.verified(said, self.now), self.now);
                anyhow::ensure!(
                    outcome == Outcome::Admitted,
                    "a new message was not admitted: {outcome:?}"
                );
                next[device.0 as usize] += 1;
            }
            // What is refused because the disk failed is lost, and its numbers with it.
            let _ = guard.commit(&mut log);
            self.last_received = log.last_received;
            if self.random.random_range(0..10) == 0 {
                write_back(&self.path)?;
            }
            if self.work.prunes && self.random.random_range(0..6) == 0 {
                let retention = self.retention();
                prune(&self.marks, &self.path, self.now, &retention)?;
            }
        }
        let mut log = Marked {
            store: &mut store,
            marks: &self.marks,
            devices: self.devices,
            last_received: self.last_received,
            waiting: &mut waiting,
        };
        if (is_last && self.random.random_range(0..2) == 0) || !log.flush()? {
            // Ends as if killed: nothing is closed.
            std::process::exit(0);
        }
        if store.close().is_ok() {
            self.marks.say(&Mark::Closed)?;
        }
        Ok(())
    }

    /// A start of this very moment would refuse everything of before as `cold_start`; a guard with
    /// its state has to refuse it for its sequence.
    fn guard(&self, loaded: Loaded) -> ReplayGuard {
        ReplayGuard::new(&self.devices.registry, GuardPolicy::default(), loaded, START)
    }

    /// Offers what is in the database once more.
    fn replay(&self, guard: &mut ReplayGuard) -> Result<()> {
        let mut newest = Vec::new();
        let query = ReadingQuery {
            limit: Some(REPLAYED),
            order: tidegate_store::reader::Order::NewestFirst,
            ..ReadingQuery::default()
        };
        Reader::open(&self.path)?.readings(&query, |row| {
            newest.push(row);
            std::ops::ControlFlow::Continue(())
        })?;
        let (mut refused, mut accepted) = (0, 0);
        for row in newest {
            let (Some(id), Some(sequence), Some(timestamp)) = (row.device, row.sequence, row.timestamp)
            else {
                continue;
            };
            let device = self
                .devices
                .registry
                .by_id(&id)
                .context("a reading of a stranger")?;
            let said = Said {
                device,
                sequence,
                timestamp,
            };
            match guard.admit(self.devices.verified(said, self.now), self.now) {
                Outcome::Admitted => accepted += 1,
                Outcome::Duplicate | Outcome::Refused(_) => refused += 1,
            }
        }
        self.marks.say(&Mark::Replayed { refused, accepted })
    }

    fn retention(&mut self) -> Retention {
        if self.random.random_range(0..2) == 0 {
            Retention {
                max_age: Some(PACE * self.random.random_range(20..400)),
                max_bytes: None,
            }
        } else {
            Retention {
                max_age: None,
                max_bytes: Some(self.random.random_range(70_000..160_000)),
            }
        }
    }
}

/// The store, with a mark before and after every commit.
struct Marked<'s> {
    store: &'s mut Store,
    marks: &'s Marks,
    devices: &'s Devices,
    last_received: Timestamp,
    waiting: &'s mut Waiting,
}

/// Events that were recorded since the last commit or flush that held.
#[derive(Debug, Default)]
struct Waiting {
    events: Vec<i64>,
    counted: u64,
}

impl Marked<'_> {
    /// Whether it held.
    fn flush(&mut self) -> Result<bool> {
        let attempt = self.attempt();
        self.marks.say(&Mark::Try(attempt))?;
        let flushed = self.store.flush().is_ok();
        self.answer(flushed)?;
        Ok(flushed)
    }

    fn attempt(&self) -> Attempt {
        Attempt {
            next_event: self.store.event_ids().peek(),
            events: self.waiting.events.clone(),
            counted: self.waiting.counted,
            ..Attempt::default()
        }
    }

    fn answer(&mut self, held: bool) -> Result<()> {
        self.marks.say(if held { &Mark::Done } else { &Mark::Failed })?;
        if held {
            *self.waiting = Waiting::default();
        }
        Ok(())
    }
}

impl ReplayLog for Marked<'_> {
    type Error = StoreError;

    fn load(&mut self) -> Result<Loaded, StoreError> {
        self.store.load()
    }

    fn commit(&mut self, batch: &[Admission], floor: Timestamp) -> Result<(), StoreError> {
        let mut attempt = self.attempt();
        attempt.floor = Some(floor.as_micros());
        let mut received = self.last_received;
        for admission in batch {
            let message = &admission.message;
            let device = message.device.expect("every message here has a device");
            received = received.max(message.received_at);
            attempt.rows.push(Row {
                device: device.0,
                sequence: message.reading.sequence.map_or(0, |sequence| sequence.get()),
                timestamp: message.reading.timestamp.map_or(0, Timestamp::as_micros),
                hash: expected_hash(&self.devices.ids[device.0 as usize], message, received),
            });
            if let Some(state) = &admission.state {
                attempt.states.push((device.0, bytes_hash(&state.to_bytes())));
            }
        }
        // A mark that cannot be written would make a wrong record of this run.
        self.marks.say(&Mark::Try(attempt)).expect("marks can be written");
        let committed = self.store.commit(batch, floor);
        self.answer(committed.is_ok()).expect("marks can be written");
        if committed.is_ok() {
            self.last_received = received;
        }
        committed
    }
}

/// What the maintenance thread does with a log of some megabytes: afterwards the log starts over in
/// place, with old frames behind the new ones.
fn write_back(path: &Path) -> Result<()> {
    let connection = rusqlite::Connection::open(path)?;
    connection.execute_batch("PRAGMA synchronous = FULL")?;
    // Held up by readers or a failed sync, it leaves the log as it is.
    let _ = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
    Ok(())
}

fn prune_beside(marks: &Marks, path: &Path, times: u32) -> Result<()> {
    for round in 0..times {
        // The store may not have made it yet.
        if path.with_file_name(format!("{DATABASE}-wal")).exists() {
            let max_bytes = Some(70_000 + u64::from(round) * 2_000);
            let retention = Retention {
                max_age: None,
                max_bytes,
            };
            prune(marks, path, START, &retention)?;
        }
        std::thread::yield_now();
    }
    Ok(())
}

fn prune(marks: &Marks, path: &Path, now: Timestamp, retention: &Retention) -> Result<()> {
    // Not there, or just being opened or closed by the store.
    let Ok(maintenance) = Maintenance::open(path) else {
        return Ok(());
    };
    marks.say(&Mark::Prune)?;
    let pruned = maintenance
        .checkpoint()
        .and_then(|()| maintenance.prune(now, retention));
    marks.say(&Mark::Pruned {
        readings: pruned.ok().map(|pruned| pruned.readings),
    })
}

/// The file of marks; each is one write.
#[derive(Debug, Clone)]
struct Marks(Arc<Mutex<File>>);

impl Marks {
    fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self(Arc::new(Mutex::new(file))))
    }

    fn say(&self, mark: &Mark) -> Result<()> {
        let mut line = serde_json::to_vec(mark)?;
        line.push(b'\n');
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&line).context("cannot write a mark")
    }
}
