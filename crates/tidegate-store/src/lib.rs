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
//! returns. After a crash SQLite takes up every whole transaction of the `-wal` file and drops a
//! torn last one; a `-wal` file that is broken further inside is refused, because dropping
//! acknowledged transactions would forget sequence numbers. Checks at opening: the `-wal` file's
//! chain of checksums, the tables that replay protection stands on (page structure, and a
//! checksum per row), and after an unclean close of a database of up to
//! [`writer::QUICK_CHECK_BYTES`] its whole page structure. Larger files are checked on demand
//! with [`Reader::check`](reader::Reader::check), since a restart must not wait for minutes.
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

mod channels;
mod lock;
mod opening;
mod replay;
mod rows;
mod schema;
mod wal;

use std::path::{Path, PathBuf};

/// The file `suffix` beside a database: `tidegate.db` and `-wal` give `tidegate.db-wal`.
pub(crate) fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
