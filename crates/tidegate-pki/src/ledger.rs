//! What the CA has issued and revoked: lines that are only ever added, in a file that several
//! processes share.
//!
//! A certificate is recorded before it is handed out, so that none exists that cannot be revoked by
//! its holder's name. Who writes holds an exclusive lock (`flock`); who reads needs none, because a
//! line counts from its line break on.

mod line;
mod view;

pub use line::{CertificateRole, How, Record};

use crate::authority::{RevocationReason, Revoked};
use crate::files::folder;
use line::{Line, canonical_serial};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tidegate_envelope::time::Timestamp;
use view::View;

/// Largest ledger that is read: about a million certificates.
pub const MAX_LEDGER_BYTES: u64 = 256 << 20;
/// How long an expired certificate stays in the ledger, for people who look something up.
pub const KEEP_EXPIRED: Duration = Duration::from_secs(400 * 86_400);
/// Attempts to lock a file that others keep replacing before giving up.
const MAX_ATTEMPTS: u32 = 16;

/// The ledger could not be read or written. Nothing is issued or revoked then.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The operating system refused.
    #[error("cannot {action} the ledger {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A line is no record of ours. It might say that something is revoked, so it is not passed over.
    #[error("line {number} of the ledger {} is damaged: restore the file from a copy, or repair the line", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        number: u64,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// It is larger than [`MAX_LEDGER_BYTES`].
    #[error("the ledger {} is larger than {MAX_LEDGER_BYTES} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A serial number that is not 1 to 20 bytes in hex.
    #[error("`{serial}` is not the serial number of a certificate: 1 to 40 hex digits are")]
    Serial {
        /// What was given, cut to a line.
        serial: String,
    },
}

/// How a certificate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// In force, and the newest of its holder.
    Valid,
    /// Past its end.
    Expired,
    /// Refused everywhere.
    Revoked {
        /// Since when.
        since: Timestamp,
    },
    /// In force, but its holder has a newer one.
    Superseded,
}

/// A certificate, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What was issued.
    pub record: Record,
    /// When and why it was revoked.
    pub revoked: Option<Revocation>,
    /// Whether its holder has a newer one that is not revoked.
    pub superseded: bool,
}

/// When and why a certificate was revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revocation {
    /// When.
    pub at: Timestamp,
    /// Why, where it was said.
    pub reason: Option<RevocationReason>,
}

impl Entry {
    /// How it stands at `now`.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> State {
        match self.revoked {
            Some(revocation) => State::Revoked { since: revocation.at },
            None if now > self.record.not_after => State::Expired,
            None if self.superseded => State::Superseded,
            None => State::Valid,
        }
    }

    /// Whether a verifier lets its holder in: not expired and not revoked. A superseded one is let in.
    #[must_use]
    pub fn is_accepted(&self, now: Timestamp) -> bool {
        matches!(self.state(now), State::Valid | State::Superseded)
    }
}

/// The ledger of one CA, and of the CAs before and after it.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    view: Mutex<View>,
}

impl Ledger {
    /// Opens the ledger at `path` and reads it. A file that does not exist is an empty ledger; it is
    /// made, readable by its owner only, with the first record.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        let ledger = Self {
            path: path.into(),
            view: Mutex::default(),
        };
        drop(ledger.view()?);
        Ok(ledger)
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Records a certificate; it is on the disk when this returns.
    pub fn record(&self, record: Record) -> Result<(), LedgerError> {
        self.lock()?.record(record)
    }

    /// Records that a certificate is revoked; `false` when it was already. No list says so yet: see
    /// [`revocation::write_lists`](crate::revocation::write_lists).
    pub fn revoke(
        &self,
        serial: &str,
        at: Timestamp,
        reason: Option<RevocationReason>,
    ) -> Result<bool, LedgerError> {
        self.lock()?.revoke(serial, at, reason)
    }

    /// Every certificate, in the order of issuing.
    pub fn certificates(&self) -> Result<Vec<Entry>, LedgerError> {
        Ok(self.view()?.entries())
    }

    /// The number for the next revocation list of a CA (its key id in hex).
    pub fn next_crl_number(&self, authority: &str) -> Result<u64, LedgerError> {
        Ok(self.view()?.next_crl_number(authority))
    }

    /// The number of the last list of each CA.
    pub fn crl_numbers(&self) -> Result<Vec<(String, u64)>, LedgerError> {
        let view = self.view()?;
        Ok(view
            .lists
            .iter()
            .map(|(authority, number)| (authority.clone(), *number))
            .collect())
    }

    /// Waits until no other process writes, and keeps others from writing until it is dropped.
    pub fn lock(&self) -> Result<Locked<'_>, LedgerError> {
        for _ in 0..MAX_ATTEMPTS {
            let file = OpenOptions::new()
                .read(true)
                .append(true)
                .create(true)
                .mode(0o600)
                .open(&self.path)
                .map_err(|source| self.failed("open", source))?;
            file.lock().map_err(|source| self.failed("lock", source))?;
            // The former holder may have replaced the file between our open and our lock.
            if is_still_there(&file, &self.path) {
                return Ok(Locked { ledger: self, file });
            }
        }
        Err(self.failed("lock", io::ErrorKind::ResourceBusy.into()))
    }

    /// What the file says now.
    fn view(&self) -> Result<MutexGuard<'_, View>, LedgerError> {
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        match File::open(&self.path) {
            Ok(mut file) => view.read_on(&mut file, &self.path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => *view = View::default(),
            Err(source) => return Err(self.failed("read", source)),
        }
        Ok(view)
    }

    fn failed(&self, action: &'static str, source: io::Error) -> LedgerError {
        failed(action, &self.path, source)
    }
}

/// The ledger while no other process can write to it.
#[derive(Debug)]
pub struct Locked<'a> {
    ledger: &'a Ledger,
    file: File,
}

impl Locked<'_> {
    /// As [`Ledger::record`].
    pub fn record(&mut self, record: Record) -> Result<(), LedgerError> {
        self.record_all(vec![record])
    }

    /// Records several certificates with one write.
    pub fn record_all(&mut self, records: Vec<Record>) -> Result<(), LedgerError> {
        let line = |mut record: Record| {
            record.serial = canonical_serial(&record.serial)?;
            Ok(Line::Certificate(record))
        };
        let lines: Vec<_> = records
            .into_iter()
            .map(line)
            .collect::<Result<_, LedgerError>>()?;
        self.append(&lines)
    }

    /// As [`Ledger::revoke`].
    pub fn revoke(
        &mut self,
        serial: &str,
        at: Timestamp,
        reason: Option<RevocationReason>,
    ) -> Result<bool, LedgerError> {
        let serial = canonical_serial(serial)?;
        if self.ledger.view()?.revoked.contains_key(&serial) {
            return Ok(false);
        }
        self.append(&[Line::Revoked { serial, at, reason }])?;
        Ok(true)
    }

    /// Records that a list with `number` was signed.
    pub fn record_list(&mut self, authority: &str, number: u64, at: Timestamp) -> Result<(), LedgerError> {
        let authority = authority.to_owned();
        self.append(&[Line::List {
            authority,
            number,
            at,
        }])
    }

    /// As [`Ledger::certificates`].
    pub fn certificates(&self) -> Result<Vec<Entry>, LedgerError> {
        self.ledger.certificates()
    }

    /// As [`Ledger::next_crl_number`].
    pub fn next_crl_number(&self, authority: &str) -> Result<u64, LedgerError> {
        self.ledger.next_crl_number(authority)
    }

    /// What a list of `authority` must name: its certificates that are revoked and did not end
    /// before `ended_before`, and serial numbers that no record names and that may be its.
    pub fn revoked(&self, authority: &str, ended_before: Timestamp) -> Result<Vec<Revoked>, LedgerError> {
        Ok(self.ledger.view()?.revoked_by(authority, ended_before))
    }

    /// Forgets certificates that ended before `ended_before`, revoked or not, and all but the last
    /// list of each CA. The file is replaced whole.
    pub fn forget(self, ended_before: Timestamp) -> Result<(), LedgerError> {
        let path = &self.ledger.path;
        let lines = self.ledger.view()?.remaining(ended_before);
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let temporary = path.with_file_name(name);
        let replaced = (|| {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(&text(&lines))?;
            file.sync_all()?;
            fs::rename(&temporary, path)?;
            File::open(folder(path))?.sync_all()
        })();
        replaced.map_err(|source| {
            drop(fs::remove_file(&temporary));
            failed("replace", path, source)
        })
    }

    fn append(&mut self, lines: &[Line]) -> Result<(), LedgerError> {
        let end = self.ledger.view()?.bytes_read;
        let path = &self.ledger.path;
        let length = self
            .file
            .metadata()
            .map_err(|source| failed("read", path, source))?
            .len();
        let new = length == 0;
        if length != end {
            // A writer died in the middle of its last line, which therefore was never confirmed.
            self.file
                .set_len(end)
                .map_err(|source| failed("repair", path, source))?;
        }
        let written = self
            .file
            .write_all(&text(lines))
            .and_then(|()| self.file.sync_all());
        let written = written.and_then(|()| {
            if new {
                File::open(folder(path))?.sync_all()
            } else {
                Ok(())
            }
        });
        written.map_err(|source| {
            // Part of a line may be there; the next writer would cut it off too.
            drop(self.file.set_len(end));
            failed("write", path, source)
        })
    }
}

fn text(lines: &[Line]) -> Vec<u8> {
    let mut text = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut text, line).expect("texts and numbers can be written as JSON");
        text.push(b'\n');
    }
    text
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> LedgerError {
    LedgerError::File {
        action,
        path: path.into(),
        source,
    }
}

fn is_still_there(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(named)) => held.ino() == named.ino() && held.dev() == named.dev(),
        _ => false,
    }
}
