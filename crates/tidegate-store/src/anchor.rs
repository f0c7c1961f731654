//! How many commits were reported as durable, in a small file beside the database.
//!
//! SQLite cannot tell a database from an earlier copy of itself, a `-wal` file that was deleted
//! from one that was never there, or a broken last transaction from one that was torn. This can:
//! the file is written after every commit that has returned, so what it says is on disk, and a
//! database with fewer commits has lost some.
//!
//! It is synced only at opening and closing, so a power cut may leave it behind the database, which
//! says nothing; it is never ahead. Each number stands in one of two slots in turn, a disk's sector
//! apart, so that a torn one leaves the other. Slot, all numbers little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 0 to 7 | `TIDEMARK` |
//! | 8 to 15 | the database's identity |
//! | 16 to 23 | commits |
//! | 24 to 31 | the first bytes of SHA-256 over bytes 0 to 23 |
//!
//! Not detectable: the database and this file put back together.

use crate::beside;
use crate::error::StoreError;
use crate::ledger::Ledger;
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Follows the database's name.
pub(crate) const SUFFIX: &str = "-commits";
const MAGIC: [u8; 8] = *b"TIDEMARK";
const SLOT_BYTES: usize = 32;
/// Sectors have 512 or 4,096 bytes.
const SLOT_DISTANCE: usize = 4_096;

/// What a slot says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Promise {
    identity: i64,
    commits: i64,
}

/// What the file says; empty where there is none, or nothing readable in it.
pub(crate) fn read(database: &Path) -> Result<Vec<Promise>, StoreError> {
    let path = beside(database, SUFFIX);
    let mut bytes = Vec::new();
    let read = File::open(&path).and_then(|file| {
        file.take((SLOT_DISTANCE + SLOT_BYTES) as u64)
            .read_to_end(&mut bytes)
    });
    match read {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(StoreError::io(&path, "read", source)),
    }
    Ok([0, SLOT_DISTANCE]
        .into_iter()
        .filter_map(|at| decode(bytes.get(at..at + SLOT_BYTES)?))
        .collect())
}

/// Whether a database that does not exist, or is empty, had commits.
pub(crate) fn expect_nothing(database: &Path, promises: &[Promise]) -> Result<(), StoreError> {
    match promises.iter().map(|promise| promise.commits).max() {
        Some(commits) if commits > 0 => Err(StoreError::damaged(
            database,
            format!("it is empty, while {commits} commits to it were reported as durable"),
        )),
        _ => Ok(()),
    }
}

/// Whether the database holds all that was promised.
pub(crate) fn expect_all(database: &Path, promises: &[Promise], ledger: &Ledger) -> Result<(), StoreError> {
    let own: Vec<_> = promises
        .iter()
        .filter(|promise| promise.identity == ledger.identity)
        .collect();
    let kept = beside(database, SUFFIX);
    if own.is_empty() && !promises.is_empty() {
        return Err(StoreError::damaged(
            database,
            format!("{} is another database's", kept.display()),
        ));
    }
    match own.iter().map(|promise| promise.commits).max() {
        Some(commits) if commits > ledger.commits => Err(StoreError::damaged(
            database,
            format!(
                "it ends at commit {}, while {commits} were reported as durable; if it was put back from a backup on purpose, delete {}",
                ledger.commits,
                kept.display()
            ),
        )),
        _ => Ok(()),
    }
}

/// The file, open for as long as the database is.
#[derive(Debug)]
pub(crate) struct Anchor {
    file: File,
    path: PathBuf,
    identity: i64,
    failing: bool,
}

impl Anchor {
    /// Makes or takes over the file beside `database`, and syncs it.
    pub(crate) fn create(database: &Path, ledger: &Ledger) -> Result<Self, StoreError> {
        let path = beside(database, SUFFIX);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let failed = |source| StoreError::io(&path, "write", source);
        let file = options.open(&path).map_err(failed)?;
        let mut anchor = Self {
            file,
            path: path.clone(),
            identity: ledger.identity,
            failing: false,
        };
        // Both, so that neither can be another database's; one after the other, so that one is whole.
        for slot in [ledger.commits, ledger.commits + 1] {
            anchor.write(slot, ledger.commits).map_err(failed)?;
            anchor.file.sync_data().map_err(failed)?;
        }
        Ok(anchor)
    }

    /// Call after a commit has returned. A failure leaves the file behind the database, which does
    /// no harm, so it fails no commit.
    pub(crate) fn promise(&mut self, commits: i64) {
        match self.write(commits, commits) {
            Ok(()) => self.failing = false,
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::warn!(path = %self.path.display(), %error, "cannot note the number of commits; what is lost later may go unnoticed");
            }
            Err(_) => {}
        }
    }

    /// Makes the last promise durable.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.file
            .sync_data()
            .map_err(|source| StoreError::io(&self.path, "write", source))
    }

    fn write(&mut self, slot: i64, commits: i64) -> std::io::Result<()> {
        let at = if slot % 2 == 0 { 0 } else { SLOT_DISTANCE };
        self.file.seek(SeekFrom::Start(at as u64))?;
        self.file.write_all(&encode(Promise {
            identity: self.identity,
            commits,
        }))
    }
}

fn encode(promise: Promise) -> [u8; SLOT_BYTES] {
    let mut bytes = [0; SLOT_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..16].copy_from_slice(&promise.identity.to_le_bytes());
    bytes[16..24].copy_from_slice(&promise.commits.to_le_bytes());
    let sum = checksum(&bytes[..24]);
    bytes[24..].copy_from_slice(&sum);
    bytes
}

fn decode(bytes: &[u8]) -> Option<Promise> {
    let number = |at: usize| Some(i64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let sound = bytes.starts_with(&MAGIC) && bytes[24..] == checksum(&bytes[..24]);
    sound.then_some(Promise {
        identity: number(8)?,
        commits: number(16)?,
    })
}

fn checksum(bytes: &[u8]) -> [u8; 8] {
    let digest = Sha256::digest(bytes);
    *digest.first_chunk().expect("a SHA-256 digest has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(commits: i64) -> Ledger {
        Ledger {
            identity: 77,
            commits,
            states: 0,
            last_reading: 0,
        }
    }

    #[test]
    fn database_behind_its_promise_or_another_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("a.db");
        assert_eq!(read(&database).unwrap(), []);
        let mut anchor = Anchor::create(&database, &ledger(0)).unwrap();
        expect_nothing(&database, &read(&database).unwrap()).unwrap();
        for commits in 1..=9 {
            anchor.promise(commits);
        }
        let promises = read(&database).unwrap();
        expect_all(&database, &promises, &ledger(9)).unwrap();
        expect_all(&database, &promises, &ledger(10)).unwrap();
        let behind = expect_all(&database, &promises, &ledger(8)).unwrap_err();
        assert!(
            behind.to_string().contains("ends at commit 8, while 9"),
            "{behind}"
        );
        let other = Ledger {
            identity: 78,
            ..ledger(9)
        };
        assert!(expect_all(&database, &promises, &other).is_err());
        assert!(expect_nothing(&database, &promises).is_err());
    }

    #[test]
    fn torn_slot_leaves_the_promise_before_it_and_garbage_promises_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("a.db");
        let path = beside(&database, SUFFIX);
        let mut anchor = Anchor::create(&database, &ledger(0)).unwrap();
        anchor.promise(4);
        anchor.promise(5);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[SLOT_DISTANCE + 17] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let promises = read(&database).unwrap();
        assert!(expect_all(&database, &promises, &ledger(4)).is_ok());
        assert!(expect_all(&database, &promises, &ledger(3)).is_err());
        std::fs::write(&path, "x").unwrap();
        assert_eq!(read(&database).unwrap(), []);
    }
}
