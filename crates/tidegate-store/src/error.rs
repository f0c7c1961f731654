//! Why the database could not be opened, read or written, and what to do about it.

use rusqlite::ErrorCode;
use std::path::{Path, PathBuf};
use tidegate_envelope::id::DeviceIndex;

/// A failure of the database. Its text names the file and, where there is one, the way out.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process, or another [`Store`](crate::writer::Store) of this one, holds the database.
    /// Two gateways over one database would each accept what the other has accepted already.
    #[error("{} is in use by another gateway: stop that one, or choose another database file", path.display())]
    InUse {
        /// The database file.
        path: PathBuf,
    },
    /// A valid SQLite file, but of another program.
    #[error(
        "{} belongs to another program (application id {application_id:#010x}): choose another database file",
        path.display()
    )]
    Foreign {
        /// The database file.
        path: PathBuf,
        /// What stands at the file's place for the program's id.
        application_id: i32,
    },
    /// A newer Tidegate has written it.
    #[error(
        "{} has schema version {found}, and this program knows at most {supported}: run the newer program, or choose another database file",
        path.display()
    )]
    NewerSchema {
        /// The database file.
        path: PathBuf,
        /// The file's schema version.
        found: i32,
        /// The newest version that this program reads.
        supported: i32,
    },
    /// An older Tidegate has written it, and a reader may not migrate it.
    #[error(
        "{} has the older schema version {found} (now {supported}): start the gateway on it once, which migrates it",
        path.display()
    )]
    OlderSchema {
        /// The database file.
        path: PathBuf,
        /// The file's schema version.
        found: i32,
        /// The version that this program reads.
        supported: i32,
    },
    /// The bytes on disk are not what was written.
    #[error(
        "{} is damaged ({what}): restore it from a backup, or move it and the files named like it away to begin anew without history",
        path.display()
    )]
    Damaged {
        /// The database file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// No room: the disk, the quota or the configured ceiling is reached. Nothing was written.
    #[error("{} cannot grow: free disk space, or raise the limit on the database's size", path.display())]
    Full {
        /// The database file.
        path: PathBuf,
    },
    /// The file, its folder or the whole disk is read-only. Nothing was written.
    #[error("{} cannot be written: check the permissions of the file and its folder", path.display())]
    ReadOnly {
        /// The database file.
        path: PathBuf,
    },
    /// The file system failed.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Anything else that SQLite reports.
    #[error("cannot {doing} in {}", path.display())]
    Sqlite {
        /// What was tried, as a verb.
        doing: &'static str,
        /// The database file.
        path: PathBuf,
        /// SQLite's own error.
        source: rusqlite::Error,
    },
    /// Devices that were registered are missing from a list that should only have grown.
    #[error(
        "the registered devices have changed at position {position}: restart to remove or reorder devices"
    )]
    DevicesChanged {
        /// The first place that differs, from 0.
        position: usize,
    },
    /// The log holds what the disk may have lost, and could not be started over.
    #[error("{} was not synced, and readers keep its log from starting over: end them, or restart", path.display())]
    Unsynced {
        /// The database file.
        path: PathBuf,
    },
    /// A reading of a device that was not in the list at opening: the registry has grown since.
    #[error("device number {} is not among the {known} devices that the database was opened with", index.0)]
    UnknownDevice {
        /// The device's position in the registry.
        index: DeviceIndex,
        /// How many devices there are.
        known: usize,
    },
}

impl StoreError {
    /// Sorts SQLite's error by what a person must do about it.
    pub(crate) fn sqlite(path: &Path, doing: &'static str, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        // Values of a type or a spelling that the writer never writes.
        let altered = matches!(
            source,
            rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::Utf8Error(..)
        );
        if altered {
            let what = source.to_string();
            return Self::Damaged { path, what };
        }
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full { path },
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Self::ReadOnly { path },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged {
                path,
                what: source.to_string(),
            },
            _ => Self::Sqlite { doing, path, source },
        }
    }

    pub(crate) fn damaged(path: &Path, what: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            what: what.into(),
        }
    }

    pub(crate) fn io(path: &Path, doing: &'static str, source: std::io::Error) -> Self {
        Self::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    }
}
