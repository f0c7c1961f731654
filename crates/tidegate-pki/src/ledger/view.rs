//! What the lines of the ledger add up to, read once and then only as far as it has grown.

use super::line::{CertificateRole, Line, Record};
use super::{Entry, LedgerError, MAX_LEDGER_BYTES, Revocation, failed};
use crate::authority::Revoked;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::time::Timestamp;

/// What has been read of the file so far.
#[derive(Debug, Default)]
pub(super) struct View {
    /// Device and inode: another one means that the file was replaced.
    file: Option<(u64, u64)>,
    /// Up to the last line break.
    pub(super) bytes_read: u64,
    lines_read: u64,
    records: Vec<Record>,
    pub(super) revoked: HashMap<String, Revocation>,
    /// The number of the last list of each CA.
    pub(super) lists: HashMap<String, u64>,
}

impl View {
    pub(super) fn read_on(&mut self, file: &mut File, path: &Path) -> Result<(), LedgerError> {
        let cannot = |source| failed("read", path, source);
        let metadata = file.metadata().map_err(cannot)?;
        let identity = Some((metadata.dev(), metadata.ino()));
        if metadata.len() > MAX_LEDGER_BYTES {
            return Err(LedgerError::TooLarge { path: path.into() });
        }
        if self.file != identity || metadata.len() < self.bytes_read {
            *self = Self {
                file: identity,
                ..Self::default()
            };
        }
        if metadata.len() == self.bytes_read {
            return Ok(());
        }
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(self.bytes_read)).map_err(cannot)?;
        file.take(MAX_LEDGER_BYTES)
            .read_to_end(&mut bytes)
            .map_err(cannot)?;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let Some(text) = line.strip_suffix(b"\n") else {
                break;
            };
            let parsed = serde_json::from_slice(text).map_err(|source| LedgerError::Damaged {
                path: path.into(),
                number: self.lines_read + 1,
                source,
            })?;
            self.take(parsed);
            self.bytes_read += line.len() as u64;
            self.lines_read += 1;
        }
        Ok(())
    }

    fn take(&mut self, line: Line) {
        match line {
            Line::Certificate(record) => self.records.push(record),
            Line::Revoked { serial, at, reason } => {
                self.revoked.entry(serial).or_insert(Revocation { at, reason });
            }
            Line::List {
                authority, number, ..
            } => {
                let last = self.lists.entry(authority).or_default();
                *last = number.max(*last);
            }
        }
    }

    pub(super) fn entries(&self) -> Vec<Entry> {
        let mut newest: HashMap<(&DeviceId, CertificateRole), usize> = HashMap::new();
        for (position, record) in self.records.iter().enumerate() {
            if !self.revoked.contains_key(&record.serial) {
                newest.insert((&record.id, record.role), position);
            }
        }
        let entries = self.records.iter().enumerate().map(|(position, record)| Entry {
            revoked: self.revoked.get(&record.serial).copied(),
            superseded: newest
                .get(&(&record.id, record.role))
                .is_some_and(|newest| *newest > position),
            record: record.clone(),
        });
        entries.collect()
    }

    pub(super) fn next_crl_number(&self, authority: &str) -> u64 {
        self.lists.get(authority).map_or(1, |last| last.saturating_add(1))
    }

    pub(super) fn revoked_by(&self, authority: &str, ended_before: Timestamp) -> Vec<Revoked> {
        let known: HashMap<&str, &Record> = self
            .records
            .iter()
            .map(|record| (record.serial.as_str(), record))
            .collect();
        let named = |serial: &str| match known.get(serial) {
            Some(record) => record.authority == authority && record.not_after >= ended_before,
            None => true,
        };
        let mut revoked: Vec<_> = self
            .revoked
            .iter()
            .filter(|(serial, _)| named(serial))
            .filter_map(|(serial, revocation)| {
                Some(Revoked {
                    serial: hex::decode(serial).ok()?,
                    since: revocation.at,
                    reason: revocation.reason,
                })
            })
            .collect();
        revoked.sort_unstable_by(|a, b| a.serial.cmp(&b.serial));
        revoked
    }

    pub(super) fn remaining(&self, ended_before: Timestamp) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut forgotten: HashSet<&str> = HashSet::new();
        for record in &self.records {
            if record.not_after < ended_before {
                forgotten.insert(&record.serial);
            } else {
                lines.push(Line::Certificate(record.clone()));
            }
        }
        for (serial, revocation) in &self.revoked {
            if !forgotten.contains(serial.as_str()) {
                lines.push(Line::Revoked {
                    serial: serial.clone(),
                    at: revocation.at,
                    reason: revocation.reason,
                });
            }
        }
        for (authority, number) in &self.lists {
            lines.push(Line::List {
                authority: authority.clone(),
                number: *number,
                at: ended_before,
            });
        }
        lines
    }
}
