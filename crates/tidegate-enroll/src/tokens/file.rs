//! The file of tokens: JSON, replaced whole under a lock.

use super::{MAX_TOKENS, Tokens, TokensError};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::time::Timestamp;
use tidegate_pki::files::{self, FileError, PRIVATE_MODE};

/// Of SHA-256.
pub(super) const HASH_BYTES: usize = 32;
const VERSION: u32 = 1;

impl Tokens {
    /// Takes the lock, which the operating system releases when its holder dies. It is not on the
    /// file itself, since every change replaces that.
    pub(super) fn lock(&self) -> Result<File, TokensError> {
        let mut path = self.path.clone().into_os_string();
        path.push(".lock");
        let path = PathBuf::from(path);
        let opened = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(PRIVATE_MODE)
            .open(&path);
        opened
            .and_then(|file| file.lock().map(|()| file))
            .map_err(|source| TokensError::Lock { path, source })
    }

    pub(super) fn read(&self) -> Result<Vec<Stored>, TokensError> {
        let bytes = match files::read_private(&self.path) {
            Ok(bytes) => bytes,
            Err(FileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(error.into()),
        };
        let damaged = || TokensError::Damaged {
            path: self.path.clone(),
        };
        let contents: Contents = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
        if contents.version != VERSION || contents.tokens.len() > MAX_TOKENS {
            return Err(damaged());
        }
        let stored: Option<_> = contents.tokens.iter().map(Line::read).collect();
        stored.ok_or_else(damaged)
    }

    pub(super) fn write(&self, stored: &[Stored]) -> Result<(), TokensError> {
        let contents = Contents {
            version: VERSION,
            tokens: stored.iter().map(Line::from).collect(),
        };
        let text = serde_json::to_vec_pretty(&contents).expect("texts and numbers can be written as JSON");
        Ok(files::write(&self.path, &text, PRIVATE_MODE, true)?)
    }
}

/// A token as it is kept.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) hash: [u8; HASH_BYTES],
    pub(super) id: DeviceId,
    pub(super) created: Timestamp,
    pub(super) expires: Timestamp,
    pub(super) used: Option<Timestamp>,
}

impl Stored {
    pub(super) fn is_pending(&self, now: Timestamp) -> bool {
        self.used.is_none() && now < self.expires
    }

    pub(super) fn is_forgotten(&self, now: Timestamp) -> bool {
        self.used.unwrap_or(self.expires).plus(super::REMEMBERED) <= now
    }
}

/// What stands in the file. Times are microseconds since 1970.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    version: u32,
    tokens: Vec<Line>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    sha256: String,
    device: String,
    created_us: i64,
    expires_us: i64,
    used_us: Option<i64>,
}

impl From<&Stored> for Line {
    fn from(stored: &Stored) -> Self {
        Self {
            sha256: hex::encode(stored.hash),
            device: stored.id.as_str().to_owned(),
            created_us: stored.created.as_micros(),
            expires_us: stored.expires.as_micros(),
            used_us: stored.used.map(Timestamp::as_micros),
        }
    }
}

impl Line {
    /// `None` for a line that is never written here.
    fn read(&self) -> Option<Stored> {
        let mut hash = [0; HASH_BYTES];
        hex::decode_to_slice(&self.sha256, &mut hash).ok()?;
        Some(Stored {
            hash,
            id: DeviceId::new(&self.device).ok()?,
            created: Timestamp::from_micros(self.created_us),
            expires: Timestamp::from_micros(self.expires_us),
            used: self.used_us.map(Timestamp::from_micros),
        })
    }
}
