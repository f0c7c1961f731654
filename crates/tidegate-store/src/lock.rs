//! One writer per database: a lock file that the operating system releases when its holder dies.
//!
//! SQLite alone would let two gateways share a file, and each would accept what the other has
//! accepted already. The lock is not on the database file itself, because closing any handle of
//! that file would drop SQLite's own POSIX locks on it.

use crate::error::StoreError;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

/// Attempts to lock a file that others keep deleting before giving up.
const MAX_ATTEMPTS: u32 = 16;

/// Held while a [`Store`](crate::writer::Store) is open; dropping it deletes the file.
#[derive(Debug)]
pub(crate) struct WriterLock {
    path: PathBuf,
    _file: File,
}

impl WriterLock {
    /// Takes the lock of the database at `path`, or says that it is in use.
    pub(crate) fn acquire(database: &Path) -> Result<Self, StoreError> {
        let path = crate::beside(database, ".lock");
        for _ in 0..MAX_ATTEMPTS {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let file = options
                .open(&path)
                .map_err(|source| StoreError::io(&path, "create", source))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(StoreError::InUse {
                        path: database.to_owned(),
                    });
                }
                Err(TryLockError::Error(source)) => return Err(StoreError::io(&path, "lock", source)),
            }
            // The former holder may have deleted the file between our open and our lock; then the
            // lock is on a file that nobody else will ever see.
            if is_still_there(&file, &path) {
                return Ok(Self { path, _file: file });
            }
        }
        Err(StoreError::InUse {
            path: database.to_owned(),
        })
    }
}

impl Drop for WriterLock {
    fn drop(&mut self) {
        // Deleted while still locked, so that no second holder can have this name. A file that
        // stays behind does no harm: it is the lock that counts.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(unix)]
fn is_still_there(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(held), Ok(named)) => held.ino() == named.ino() && held.dev() == named.dev(),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_still_there(_: &File, path: &Path) -> bool {
    path.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_writer_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("tidegate.db");
        let first = WriterLock::acquire(&database).unwrap();
        assert!(matches!(
            WriterLock::acquire(&database),
            Err(StoreError::InUse { .. })
        ));
        drop(first);
        drop(WriterLock::acquire(&database).unwrap());
        assert!(!crate::beside(&database, ".lock").exists());
    }
}
