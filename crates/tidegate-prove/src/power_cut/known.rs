//! What is known to be in the database at a moment, from what the worker has said until then.

use super::devices::{Devices, Said, row_hash};
use super::marks::{Attempt, Mark, Row};
use std::collections::{BTreeMap, BTreeSet};
use tidegate_envelope::id::DeviceIndex;
use tidegate_envelope::time::Timestamp;
use tidegate_store::reader::ReadingRow;

/// Everything acknowledged, and what may be there besides.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// All readings that were acknowledged, in order: the first has the id 1.
    pub(super) rows: Vec<Row>,
    /// State by device.
    states: BTreeMap<u32, u64>,
    floor: Option<i64>,
    events: BTreeSet<i64>,
    blocked: u64,
    /// How many of the oldest readings are surely deleted, and how many may be.
    pruned: u64,
    may_be_pruned: u64,
    /// Retention deletes events too, and says how many of them nowhere.
    events_pruned: bool,
    /// Every event number below this one may have been shown.
    shown: i64,
    /// Attempts that were not acknowledged, after the last that was: each may be there or not, but
    /// not two of them.
    doubtful: Vec<Attempt>,
}

/// What a database was found to hold.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) rows: Vec<ReadingRow>,
    pub(super) states: BTreeMap<u32, u64>,
    pub(super) floor: Option<i64>,
    pub(super) events: BTreeSet<i64>,
    pub(super) accepted: u64,
    pub(super) blocked: u64,
    pub(super) next_event: i64,
}

/// How much of what was found is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it.
    Everything,
    /// Readings, replay states and clock floor: what the promise is about.
    Promised,
}

impl Known {
    /// Takes the next mark; `later` are those after it.
    pub(super) fn hear<'m>(&mut self, mark: &Mark, later: impl Iterator<Item = &'m Mark>) {
        match mark {
            Mark::Try(attempt) => {
                self.shown = self.shown.max(attempt.next_event);
                self.doubtful.push(attempt.clone());
            }
            Mark::Done => {
                let attempt = self.doubtful.pop().unwrap_or_default();
                // Nothing to write: what failed before stands where it stood.
                if !(attempt.rows.is_empty() && attempt.counted == 0) {
                    self.include(&attempt);
                    self.doubtful.clear();
                }
            }
            Mark::Opened { accepted, blocked } => {
                // What failed before may have been found in the kernel's memory, and is durable now.
                let here = |attempt: &&Attempt| {
                    self.rows.len() as u64 + attempt.rows.len() as u64 == *accepted
                        && self.blocked + attempt.counted == *blocked
                };
                if let Some(attempt) = self.doubtful.iter().find(here).cloned() {
                    self.include(&attempt);
                }
                self.doubtful.clear();
            }
            Mark::Prune => {
                // Only from the same worker.
                let pruned = later
                    .take_while(|mark| !matches!(mark, Mark::Started))
                    .find_map(|mark| match mark {
                        Mark::Pruned { readings } => Some(*readings),
                        _ => None,
                    });
                // Without an answer it may have deleted anything.
                let most = pruned.flatten().unwrap_or(u64::MAX);
                self.may_be_pruned = self.may_be_pruned.saturating_add(most);
                self.events_pruned = true;
            }
            Mark::Pruned { readings } => self.pruned += readings.unwrap_or(0),
            Mark::Started | Mark::Failed | Mark::Replayed { .. } | Mark::Closed => {}
        }
    }

    fn include(&mut self, attempt: &Attempt) {
        self.rows.extend(&attempt.rows);
        self.states.extend(attempt.states.iter().copied());
        self.floor = self.floor.max(attempt.floor);
        self.events.extend(&attempt.events);
        self.blocked += attempt.counted;
    }

    /// Compares; what the database is known to hold from now on, or what is wrong.
    pub(super) fn compare(&self, found: &Found, extent: Extent) -> Result<Self, String> {
        let mut first = None;
        for doubtful in std::iter::once(None).chain(self.doubtful.iter().map(Some)) {
            let mut candidate = self.clone();
            candidate.doubtful.clear();
            if let Some(attempt) = doubtful {
                candidate.include(attempt);
            }
            match candidate.difference(found, extent) {
                None => {
                    candidate.pruned = found.rows.first().map_or(0, |row| row.id.unsigned_abs() - 1);
                    candidate.may_be_pruned = candidate.pruned;
                    return Ok(candidate);
                }
                // The candidate that fits the number of readings says most.
                Some(difference) if candidate.rows.len() as u64 == found.accepted => {
                    first = Some(difference);
                }
                Some(difference) => first = first.or(Some(difference)),
            }
        }
        Err(first.unwrap_or_default())
    }

    fn difference(&self, found: &Found, extent: Extent) -> Option<String> {
        let (rows, total) = (&found.rows, self.rows.len() as u64);
        let missing = rows.first().map_or(total, |row| row.id.unsigned_abs() - 1);
        // Rows that retention had deleted and that are back are no loss.
        let least = if extent == Extent::Promised {
            0
        } else {
            self.pruned
        };
        let newest_is_due = total > 0 && rows.is_empty();
        if missing < least || missing > self.may_be_pruned || newest_is_due || missing > total {
            return Some(format!(
                "{total} readings were acknowledged, {} to {} deleted by retention, and the first of {} found has number {}",
                self.pruned,
                self.may_be_pruned,
                rows.len(),
                missing + 1
            ));
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most the number of readings")]
        let expected = &self.rows[missing as usize..];
        for (place, (row, said)) in rows.iter().zip(expected).enumerate() {
            let number = missing + 1 + place as u64;
            if row.id.unsigned_abs() != number || row_hash(row) != said.hash {
                return Some(format!("reading {number} is not the one that was acknowledged"));
            }
        }
        if rows.len() != expected.len() {
            let (found, expected) = (rows.len(), expected.len());
            return Some(format!(
                "{expected} readings were acknowledged and not deleted, {found} are there"
            ));
        }
        if found.states != self.states {
            return Some("a replay state is not that of the device's last acknowledged reading".into());
        }
        if found.floor != self.floor {
            return Some(format!(
                "the clock floor is {:?}, and was {:?}",
                found.floor, self.floor
            ));
        }
        if extent == Extent::Promised {
            return None;
        }
        if (found.accepted, found.blocked) != (total, self.blocked) {
            return Some(format!(
                "counts are {} and {}, and were {total} and {}",
                found.accepted, found.blocked, self.blocked
            ));
        }
        if !self.events_pruned && found.events != self.events {
            return Some(format!(
                "{} events are there of {}",
                found.events.len(),
                self.events.len()
            ));
        }
        if found.next_event < self.shown {
            return Some(format!("event number {} was used already", found.next_event));
        }
        None
    }

    /// The newest messages that were acknowledged, to be offered again.
    pub(super) fn newest(&self, count: usize) -> impl Iterator<Item = Said> {
        self.rows.iter().rev().take(count).map(|row| Said {
            device: DeviceIndex(row.device),
            sequence: row.sequence,
            timestamp: Timestamp::from_micros(row.timestamp),
        })
    }

    /// A message of the device that none has come before.
    pub(super) fn next_of(&self, devices: &Devices, device: u32, timestamp: Timestamp) -> Said {
        let used = self
            .rows
            .iter()
            .filter(|row| row.device == device)
            .map(|row| row.sequence);
        debug_assert!((device as usize) < devices.ids.len());
        Said {
            device: DeviceIndex(device),
            sequence: used.max().unwrap_or(0) + 1,
            timestamp,
        }
    }
}
