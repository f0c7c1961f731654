//! What detection remembers of each device, kept in a file beside the database over restarts.
//!
//! The file is written once a minute and at the end. After a crash it is older than the readings in
//! the database; those that came since are shown to the detector at the next start, so that nobody
//! has to wait until it knows its devices again. Without a readable file it starts from the
//! readings alone: a loss of comfort, not of a reading.
//!
//! ```text
//! MAGIC
//! for each device:  1  length of its id     n  id
//!                   8  arrival of the last reading that is in the state, µs since 1970
//!                   2  length of its state  n  state, see Detector::save_state
//! 4  CRC-32 of all before it
//! ```
//!
//! Numbers are little-endian.

use anyhow::{Context, Result, ensure};
use std::fs::{self, File};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tidegate_detect::detector::Detector;
use tidegate_envelope::id::{DeviceId, DeviceIndex};
use tidegate_envelope::time::Timestamp;
use tidegate_store::reader::{Order, Reader, ReadingQuery, ReadingRow};
use tidegate_verify::registry::Registry;

const MAGIC: &[u8] = b"tidegate detection memory 1\n";
/// Time between two writes.
const SAVE_EVERY: Duration = Duration::from_secs(60);
/// A write that takes long is not repeated before so many times as long: detection waits meanwhile.
const PAUSE_PER_WRITE: u32 = 50;
/// Readings that a start looks at, the newest: some tenths of a second's work.
const MOST_CAUGHT_UP: u64 = 20_000;
/// Largest file that is read; a device takes 1 KB at most.
const MAX_FILE_BYTES: u64 = 2 << 30;
const CHECKSUM_BYTES: usize = 4;

/// The file, and how far each device's state has come.
pub(crate) struct Memory {
    path: PathBuf,
    /// By device: the arrival of the last reading that its state holds.
    heard: Vec<Option<Timestamp>>,
    save_at: Instant,
}

impl Memory {
    /// Gives the detector what the file holds, and then the readings that came since.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(crate) fn open(
        path: PathBuf,
        detector: &mut Detector,
        registry: &Registry,
        reader: &mut Reader,
    ) -> Result<Self> {
        let mut memory = Self {
            path,
            heard: vec![None; detector.devices()],
            save_at: Instant::now() + SAVE_EVERY,
        };
        if memory.path.exists()
            && let Err(error) = memory.restore(detector, registry)
        {
            let file = memory.path.display();
            tracing::warn!(%file, error = format!("{error:#}"), "detection starts from the newest readings alone");
        }
        memory.catch_up(detector, registry, reader)?;
        Ok(memory)
    }

    /// A reading has been assessed.
    pub(super) fn heard(&mut self, device: DeviceIndex, received: Timestamp) {
        let place = device.0 as usize;
        if self.heard.len() <= place {
            self.heard.resize(place + 1, None);
        }
        self.heard[place] = Some(received);
    }

    /// Writes the file, once in a while.
    pub(super) fn save_if_due(&mut self, detector: &Detector, registry: &Registry) {
        if Instant::now() >= self.save_at {
            self.save(detector, registry);
        }
    }

    /// Writes the file; the old one stays whole until the new one is.
    pub(super) fn save(&mut self, detector: &Detector, registry: &Registry) {
        let started = Instant::now();
        if let Err(error) = replace(&self.path, &self.bytes(detector, registry)) {
            let file = self.path.display();
            tracing::warn!(%file, error = format!("{error:#}"), "what detection remembers could not be written");
        }
        self.save_at = started + SAVE_EVERY.max(started.elapsed() * PAUSE_PER_WRITE);
    }

    fn bytes(&self, detector: &Detector, registry: &Registry) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for ((number, device), heard) in (0..).zip(registry.devices()).zip(&self.heard) {
            let state = detector.save_state(DeviceIndex(number));
            let (Some(heard), Ok(length)) = (heard, u16::try_from(state.len())) else {
                continue;
            };
            let id = device.id.as_str().as_bytes();
            let Ok(id_length) = u8::try_from(id.len()) else {
                continue;
            };
            bytes.push(id_length);
            bytes.extend(id);
            bytes.extend(heard.as_micros().to_le_bytes());
            bytes.extend(length.to_le_bytes());
            bytes.extend(state);
        }
        let checksum = crc32fast::hash(&bytes);
        bytes.extend(checksum.to_le_bytes());
        bytes
    }

    fn restore(&mut self, detector: &mut Detector, registry: &Registry) -> Result<()> {
        let length = fs::metadata(&self.path)?.len();
        ensure!(
            length <= MAX_FILE_BYTES,
            "it is larger than {MAX_FILE_BYTES} bytes"
        );
        let bytes = fs::read(&self.path)?;
        let mut entries = checked(&bytes)?;
        while !entries.is_empty() {
            let (id, heard, state) = entry(&mut entries).context("it is cut short")?;
            // A device that left the registry, or changed its name.
            let Some(index) = DeviceId::new(id).ok().and_then(|id| registry.by_id(&id)) else {
                continue;
            };
            match detector.restore_state(index, state) {
                Ok(()) => self.heard(index, heard),
                // It was written under another model: what that one saw means nothing to this one.
                Err(error) => tracing::debug!(device = id, %error, "starts from readings"),
            }
        }
        Ok(())
    }

    fn catch_up(&mut self, detector: &mut Detector, registry: &Registry, reader: &mut Reader) -> Result<()> {
        let query = ReadingQuery {
            from: self.heard.iter().flatten().min().copied(),
            limit: Some(MOST_CAUGHT_UP),
            order: Order::NewestFirst,
            ..ReadingQuery::default()
        };
        let mut rows = Vec::new();
        reader.readings(&query, |row| {
            rows.push(row);
            ControlFlow::Continue(())
        })?;
        for row in rows.into_iter().rev() {
            self.show(&row, detector, registry);
        }
        Ok(())
    }

    /// Shows the detector a reading that it has not seen. What it says was said when it came.
    fn show(&mut self, row: &ReadingRow, detector: &mut Detector, registry: &Registry) {
        let Some(device) = row.device.as_ref().and_then(|id| registry.by_id(id)) else {
            return;
        };
        if self.heard[device.0 as usize].is_some_and(|heard| heard >= row.received) {
            return;
        }
        let at = row.timestamp.unwrap_or(row.received);
        detector.assess_with_status(device, at, &row.channels, &row.status);
        self.heard(device, row.received);
    }
}

/// What lies between the first line and the checksum.
fn checked(bytes: &[u8]) -> Result<&[u8]> {
    let body = bytes.strip_prefix(MAGIC);
    let body = body.context("it is no memory of detection, or one of another version")?;
    let (entries, checksum) = body
        .split_last_chunk::<CHECKSUM_BYTES>()
        .context("it is cut short")?;
    let covered = &bytes[..bytes.len() - CHECKSUM_BYTES];
    ensure!(
        crc32fast::hash(covered).to_le_bytes() == *checksum,
        "its checksum does not fit: it is damaged"
    );
    Ok(entries)
}

/// Takes one device's entry off the front.
fn entry<'b>(bytes: &mut &'b [u8]) -> Option<(&'b str, Timestamp, &'b [u8])> {
    let id_length = bytes.split_off_first()?;
    let id = bytes.split_off(..usize::from(*id_length))?;
    let heard = bytes.split_off(..8)?.try_into().ok()?;
    let length = u16::from_le_bytes(bytes.split_off(..2)?.try_into().ok()?);
    let state = bytes.split_off(..usize::from(length))?;
    let heard = Timestamp::from_micros(i64::from_le_bytes(heard));
    Some((str::from_utf8(id).ok()?, heard, state))
}

fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = path.with_extension("partial");
    let mut file = File::create(&partial).with_context(|| format!("cannot write {}", partial.display()))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(entries: &[(&str, i64, &[u8])]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for (id, heard, state) in entries {
            bytes.push(id.len() as u8);
            bytes.extend(id.as_bytes());
            bytes.extend(heard.to_le_bytes());
            bytes.extend((state.len() as u16).to_le_bytes());
            bytes.extend(*state);
        }
        let checksum = crc32fast::hash(&bytes);
        bytes.extend(checksum.to_le_bytes());
        bytes
    }

    #[test]
    fn entries_are_read_as_they_were_written_and_a_flipped_bit_is_noticed() {
        let bytes = file(&[("device-001", 7, b"abc"), ("device-002", -1, b"")]);
        let mut entries = checked(&bytes).unwrap();
        let first = entry(&mut entries).unwrap();
        assert_eq!(first, ("device-001", Timestamp::from_micros(7), &b"abc"[..]));
        let second = entry(&mut entries).unwrap();
        assert_eq!(second, ("device-002", Timestamp::from_micros(-1), &b""[..]));
        assert!(entries.is_empty());
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 1;
            assert!(checked(&damaged).is_err(), "byte {place}");
        }
    }

    #[test]
    fn file_that_is_cut_short_is_refused_at_every_length() {
        let bytes = file(&[("device-001", 7, b"abc")]);
        for length in 0..bytes.len() {
            assert!(checked(&bytes[..length]).is_err(), "{length} bytes");
        }
        let mut entries = &bytes[MAGIC.len()..bytes.len() - CHECKSUM_BYTES - 1];
        assert!(entry(&mut entries).is_none());
    }
}
