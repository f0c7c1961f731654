//! What the worker says while it works, line by line in a file that is recorded with all others:
//! so it is known which changes of the files came before an acknowledgement.

use serde::{Deserialize, Serialize};

/// The file that marks are written to.
pub(super) const FILE: &str = "marks";

/// One line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Mark {
    /// A worker has started.
    Started,
    /// The store is open, and has counted so much.
    Opened { accepted: u64, blocked: u64 },
    /// A commit or a flush begins.
    Try(Attempt),
    /// It returned `Ok`: what it held was acknowledged.
    Done,
    /// It returned an error: nothing of it was acknowledged.
    Failed,
    /// Old rows are about to be deleted.
    Prune,
    /// So many were; none where it failed half-way.
    Pruned { readings: Option<u64> },
    /// Messages of earlier were offered to the replay guard again.
    Replayed { refused: u64, accepted: u64 },
    /// The store was closed.
    Closed,
}

/// What a commit or a flush is to write.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Attempt {
    /// Readings in order.
    pub(super) rows: Vec<Row>,
    /// Device and state of each admission, in order; the last of each device counts.
    pub(super) states: Vec<(u32, u64)>,
    /// The clock floor, where there is one.
    pub(super) floor: Option<i64>,
    /// Numbers of the events that wait.
    pub(super) events: Vec<i64>,
    /// How many events were counted, kept or not, since the last attempt that held.
    pub(super) counted: u64,
    /// No event has this number or a higher one yet.
    pub(super) next_event: i64,
}

/// A reading.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) device: u32,
    pub(super) sequence: u64,
    pub(super) timestamp: i64,
    pub(super) hash: u64,
}
