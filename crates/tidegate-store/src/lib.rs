//! The embedded database: readings, verdicts and the replay log in one transaction.
//!
//! - [`writer`]: [`Store`](writer::Store), the one writer, which implements
//!   [`ReplayLog`](tidegate_verify::log::ReplayLog)
//! - [`reader`]: [`Reader`](reader::Reader), read-only queries beside the writer
//! - [`event`]: what is shown of a message or a connection, with all text bounded and cleaned
//! - [`recorder`]: takes events from any thread, counts all of them and keeps a bounded number
//! - [`totals`]: exact counts by outcome and reason
//! - [`maintenance`]: checkpoints and retention, beside the writer
//! - [`error`]: what can go wrong, and what to do about it
//!
//! One SQLite file in WAL mode with `synchronous = FULL`: a commit has been through fsync when it
//! returns, and ends at a sector's edge, so that a torn write can only spoil what came after it.
//! After a crash SQLite takes up every whole transaction of the `-wal` file and drops a torn last
//! one. Anything else that is missing or altered is refused, because forgetting an acknowledged
//! transaction would forget sequence numbers:
//!
//! | what | how it is noticed | when |
//! |---|---|---|
//! | a break inside the `-wal` file | its chain of checksums (`wal`) | opening |
//! | a `-wal` file lost or of another time, its last transaction broken, an older database file | commits counted in the database and in the `-commits` file beside it (`anchor`) | opening |
//! | a replay state altered, missing or stale | a checksum per row (`replay`), and their sum (`ledger`) | opening and load |
//! | table definitions altered | compared with the migrations' (`schema`) | opening |
//! | broken page structure, readings missing in the middle | SQLite's quick check, and a count | opening, up to [`writer::QUICK_CHECK_BYTES`]; beyond that of the safety tables only, and of all with [`Reader::check`](reader::Reader::check) |
//! | a reading altered | a checksum per row (`seal`) | whenever it is read |
//!
//! After a failed sync the kernel takes what it could not write for written, so nothing is committed
//! behind it: the log starts over first (`maintenance`), and a new process reads the log from the
//! disk (`opening`).
//!
//! Not noticed: the database and its `-commits` file both put back as they were earlier, which takes
//! a witness outside of the disk; events, totals and indexes altered within sound pages.
//!
//! **Invariant**: a reading, its device's replay state and the clock floor are written in one
//! transaction or not at all, and one process at most writes.

pub mod error;
pub mod event;
pub mod maintenance;
pub mod reader;
pub mod recorder;
pub mod totals;
pub mod writer;

mod anchor;
mod channels;
mod insert;
mod ledger;
mod lock;
mod opening;
mod replay;
mod rows;
mod schema;
mod seal;
mod wal;

use std::path::{Path, PathBuf};

/// The file `suffix` beside a database: `tidegate.db` and `-wal` give `tidegate.db-wal`.
pub(crate) fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
