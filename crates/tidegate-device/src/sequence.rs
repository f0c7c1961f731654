//! Sequence numbers of a device: reserved on disk in blocks before use, so that none is used twice.
//!
//! The file is text, replaced whole at each start and each [`BLOCK`] numbers:
//!
//! ```text
//! tidegate-sequence 1
//! device device-001
//! boot 7
//! reserved 7168
//! sha256 <64 hex digits over the lines above>
//! ```
//!
//! A crash loses the rest of a block, and a verifier sees a gap: numbers are plenty (2^53), and
//! flash wears by one write in 1,024 messages. Beside it lie a lock file, `….lock`, and for the
//! time of a write the next state, `….new`; one that a crash has left is written over.

mod disk;

use self::disk::Files;
use sha2::{Digest, Sha256};
use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use tidegate_envelope::id::{Boot, DeviceId, Sequence};

pub use self::disk::Disk;

/// Numbers that one write reserves.
pub const BLOCK: u64 = 1_024;

const HEADER: &str = "tidegate-sequence 1";
/// The file has about 150 bytes; a larger one is something else.
const MAX_BYTES: usize = 1_024;

/// Sequence numbers cannot be had. Going on without would reuse numbers, and every verifier would
/// refuse the device's messages as replays.
#[derive(Debug, thiserror::Error)]
pub enum SequenceError {
    /// The file could not be read.
    #[error("cannot read the sequence state {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file could not be written: its folder is missing or not writable, or the disk is full.
    #[error("cannot reserve sequence numbers in {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Another process uses it: two publishers would share numbers.
    #[error("the sequence state {} is in use by another process", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Its content is not what was written.
    #[error(
        "the sequence state {} is damaged ({what}): restore it from a backup no older than the last message, \
         or remove it and give the device a new key epoch",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where it differs.
        what: &'static str,
    },
    /// It is the state of another device.
    #[error("the sequence state {} belongs to another device, not to {device}", path.display())]
    OtherDevice {
        /// The file.
        path: PathBuf,
        /// The device that was to use it.
        device: DeviceId,
    },
    /// The device has used every number or started 2^32 times.
    #[error("{device} has used all its sequence numbers or starts: give it a new key epoch and remove {}", path.display())]
    Exhausted {
        /// The file.
        path: PathBuf,
        /// The device.
        device: DeviceId,
    },
}

/// The numbers of one device from this start on. Holds a lock: one process at a time.
#[derive(Debug)]
pub struct SequenceFile {
    path: PathBuf,
    device: DeviceId,
    boot: Boot,
    /// The number used last.
    used: u64,
    /// The highest number that may be used before the next write.
    reserved: u64,
    writes: u64,
    disk: Box<dyn Disk>,
    /// Locked while this lives. A file of its own, because each write replaces the state file.
    /// `None` where the disk is the caller's.
    _lock: Option<File>,
}

impl SequenceFile {
    /// Counts one more start of `device` and reserves the first block. A missing file is the
    /// device's first start; its folder must exist.
    pub fn open(path: &Path, device: &DeviceId) -> Result<Self, SequenceError> {
        let lock = lock(path)?;
        Self::open_locked(Box::<Files>::default(), Some(lock), path, device)
    }

    /// As [`Self::open`], on storage of the caller's, which nobody else may use meanwhile.
    pub fn open_on(disk: Box<dyn Disk>, path: &Path, device: &DeviceId) -> Result<Self, SequenceError> {
        Self::open_locked(disk, None, path, device)
    }

    fn open_locked(
        mut disk: Box<dyn Disk>,
        lock: Option<File>,
        path: &Path,
        device: &DeviceId,
    ) -> Result<Self, SequenceError> {
        let bytes = disk
            .read(path, MAX_BYTES + 1)
            .map_err(|source| SequenceError::Read {
                path: path.into(),
                source,
            })?;
        let (boot, reserved) = match bytes {
            None => (0, 0),
            Some(bytes) => parse(&bytes, path, device)?,
        };
        let exhausted = || SequenceError::Exhausted {
            path: path.into(),
            device: device.clone(),
        };
        let boot = boot.checked_add(1).ok_or_else(exhausted)?;
        let mut opened = Self {
            path: path.into(),
            device: device.clone(),
            boot: Boot(boot),
            used: reserved,
            reserved,
            writes: 0,
            disk,
            _lock: lock,
        };
        opened.reserve()?;
        Ok(opened)
    }

    /// The next number; above every number that this device has ever used.
    ///
    /// Blocks for one synced write in each [`BLOCK`] calls. After an error no number was used, and
    /// the call may be repeated.
    pub fn advance(&mut self) -> Result<Sequence, SequenceError> {
        if self.used == self.reserved {
            self.reserve()?;
        }
        let number = Sequence::new(self.used + 1).ok_or_else(|| self.exhausted())?;
        self.used += 1;
        Ok(number)
    }

    /// How often the device has started, this start included: 1 at first.
    #[must_use]
    pub const fn boot(&self) -> Boot {
        self.boot
    }

    /// How often the file was written since [`SequenceFile::open`], that included.
    #[must_use]
    pub const fn writes(&self) -> u64 {
        self.writes
    }

    fn reserve(&mut self) -> Result<(), SequenceError> {
        let reserved = (self.reserved + BLOCK).min(Sequence::MAX.get());
        if reserved == self.reserved {
            return Err(self.exhausted());
        }
        let lines = format!(
            "{HEADER}\ndevice {}\nboot {}\nreserved {reserved}\n",
            self.device, self.boot.0
        );
        let text = format!("{lines}sha256 {}\n", checksum(&lines));
        self.replace(text.as_bytes())
            .map_err(|source| SequenceError::Write {
                path: self.path.clone(),
                source,
            })?;
        self.reserved = reserved;
        self.writes += 1;
        Ok(())
    }

    /// A reader sees the old content or the new, before and after a power cut, and the new is safe
    /// when this returns.
    fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        // One name for all processes, which the lock allows: a crash leaves one file at most.
        let next = beside(&self.path, ".new");
        self.disk.write(&next, bytes)?;
        self.disk.sync_file()?;
        self.disk.rename(&next, &self.path)?;
        self.disk.sync_names(&self.path)
    }

    fn exhausted(&self) -> SequenceError {
        SequenceError::Exhausted {
            path: self.path.clone(),
            device: self.device.clone(),
        }
    }
}

/// The path with `suffix` added to its name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(OsStr::new(suffix));
    path.with_file_name(name)
}

fn lock(path: &Path) -> Result<File, SequenceError> {
    let lock_path = beside(path, ".lock");
    let failed = |source| SequenceError::Write {
        path: lock_path.clone(),
        source,
    };
    let opened = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path);
    let file = opened.map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SequenceError::InUse { path: path.into() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Boot counter and highest reserved number.
fn parse(bytes: &[u8], path: &Path, device: &DeviceId) -> Result<(u32, u64), SequenceError> {
    let damaged = |what| SequenceError::Damaged {
        path: path.into(),
        what,
    };
    if bytes.len() > MAX_BYTES {
        return Err(damaged("it is too large"));
    }
    let text = str::from_utf8(bytes).map_err(|_| damaged("it is not text"))?;
    let lines: Vec<&str> = text.lines().collect();
    let [HEADER, owner, boot, reserved, sum] = lines[..] else {
        return Err(damaged("its lines are not those of version 1"));
    };
    let covered = text.rfind("sha256 ").map_or("", |end| &text[..end]);
    if sum.strip_prefix("sha256 ") != Some(&checksum(covered)) {
        return Err(damaged("its checksum is wrong"));
    }
    if owner.strip_prefix("device ") != Some(device.as_str()) {
        return Err(SequenceError::OtherDevice {
            path: path.into(),
            device: device.clone(),
        });
    }
    let boot = boot.strip_prefix("boot ").and_then(|number| number.parse().ok());
    let reserved = reserved
        .strip_prefix("reserved ")
        .and_then(|number| number.parse().ok());
    match (boot, reserved) {
        (Some(boot), Some(reserved)) if reserved <= Sequence::MAX.get() => Ok((boot, reserved)),
        _ => Err(damaged("its numbers are out of range")),
    }
}

fn checksum(lines: &str) -> String {
    hex::encode(Sha256::digest(lines))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    use std::fs;
    use tempfile::TempDir;

    fn place() -> (TempDir, PathBuf, DeviceId) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device-001.sequence");
        (folder, path, DeviceId::new("device-001").unwrap())
    }

    #[test]
    fn no_number_is_used_twice_over_two_hundred_crashes() {
        let (_folder, path, device) = place();
        let mut random = StdRng::seed_from_u64(1);
        let mut highest = 0;
        for start in 1..=200 {
            let mut numbers = SequenceFile::open(&path, &device).unwrap();
            assert_eq!(numbers.boot(), Boot(start));
            let count = random.random_range(0..3 * BLOCK);
            for _ in 0..count {
                let number = numbers.advance().unwrap().get();
                assert!(number > highest);
                highest = number;
                // What is on the disk already covers the number that is about to be sent.
                debug_assert!(numbers.reserved >= number);
            }
            assert!(
                numbers.writes() <= count / BLOCK + 1,
                "{} writes for {count}",
                numbers.writes()
            );
        }
    }

    #[test]
    fn crash_between_write_and_rename_leaves_the_old_state() {
        let (_folder, path, device) = place();
        let used = SequenceFile::open(&path, &device).unwrap().advance().unwrap();
        let torn = path.with_file_name("device-001.sequence.new");
        fs::write(&torn, "tidegate-sequence 1\ndev").unwrap();
        let next = SequenceFile::open(&path, &device).unwrap().advance().unwrap();
        assert!(next > used);
        assert!(!torn.exists());
    }

    #[test]
    fn every_changed_byte_and_every_truncation_is_refused() {
        let (_folder, path, device) = place();
        drop(SequenceFile::open(&path, &device).unwrap());
        let good = fs::read(&path).unwrap();
        let refused = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            SequenceFile::open(&path, &device).is_err()
        };
        for position in 0..good.len() - 1 {
            let mut bad = good.clone();
            bad[position] ^= 1;
            assert!(refused(&bad), "byte {position}");
            assert!(refused(&good[..position]), "cut at {position}");
        }
        assert!(refused(&[good.as_slice(), b"more\n"].concat()));
        assert!(refused(&vec![b'a'; 5_000]));
        assert!(!refused(&good));
    }

    #[test]
    fn state_of_another_device_and_state_in_use_are_refused() {
        let (_folder, path, device) = place();
        let held = SequenceFile::open(&path, &device).unwrap();
        assert!(matches!(
            SequenceFile::open(&path, &device),
            Err(SequenceError::InUse { .. })
        ));
        drop(held);
        let other = DeviceId::new("device-002").unwrap();
        assert!(matches!(
            SequenceFile::open(&path, &other),
            Err(SequenceError::OtherDevice { .. })
        ));
        assert_eq!(SequenceFile::open(&path, &device).unwrap().boot(), Boot(2));
    }

    #[test]
    fn last_number_is_used_and_none_after_it() {
        let (_folder, path, device) = place();
        let lines = format!(
            "{HEADER}\ndevice {device}\nboot 1\nreserved {}\n",
            Sequence::MAX.get() - 1
        );
        fs::write(&path, format!("{lines}sha256 {}\n", checksum(&lines))).unwrap();
        let mut numbers = SequenceFile::open(&path, &device).unwrap();
        assert_eq!(numbers.advance().unwrap(), Sequence::MAX);
        assert!(matches!(numbers.advance(), Err(SequenceError::Exhausted { .. })));
    }
}
