//! Power cuts under the publisher's state: what was not synced is lost, torn or turned to noise.
//!
//! A disk in memory stands under the real [`SequenceFile`]. Bytes of a file are safe once it was
//! synced, and names once their folder was; at a cut, of the bytes that are not safe any part may
//! be there, and of the changes to names any, whatever came before them.

use super::{bar, writes_allowed};
use crate::report::Running;
use indicatif::ProgressBar;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tidegate_device::sequence::{BLOCK, Disk, SequenceFile};
use tidegate_envelope::id::DeviceId;

/// Longest life, in numbers; about three writes.
const MAX_NUMBERS: u64 = 3 * BLOCK;
/// The latest step of a life at which the power is cut; a start takes five, a write four.
const MAX_STEPS: u32 = 18;
/// Violations that are kept in words.
const MAX_WORDS: usize = 5;

/// What the cuts showed.
#[derive(Debug, Default)]
pub(super) struct Cuts {
    cuts: u64,
    /// Cuts in the middle of a write.
    amid: u64,
    numbers: u64,
    violations: Vec<String>,
}

impl Cuts {
    pub(super) fn report(self, report: &mut Running) {
        report.count("simulated power cuts", self.cuts);
        report.count("of these amid a write of the state", self.amid);
        report.count("numbers used between them", self.numbers);
        for violation in self.violations.into_iter().take(MAX_WORDS) {
            report.violation(violation);
        }
    }
}

/// Cuts the power `cuts` times, or until `stop`.
pub(super) fn prove(cuts: u64, seed: u64, stop: &AtomicBool) -> Cuts {
    let progress = bar(cuts, "power cuts").unwrap_or_else(|_| ProgressBar::hidden());
    let found = prove_on(Power::default(), cuts, seed, stop, &progress);
    progress.finish_and_clear();
    found
}

fn prove_on(power: Power, cuts: u64, seed: u64, stop: &AtomicBool, progress: &ProgressBar) -> Cuts {
    let mut random = StdRng::seed_from_u64(seed);
    let device = DeviceId::new("device-001").expect("a valid name");
    let path = Path::new("/device-001.sequence");
    let power = Arc::new(Mutex::new(power));
    let mut found = Cuts::default();
    let (mut highest, mut boot) = (0, 0);
    while found.cuts < cuts && !stop.load(Ordering::Relaxed) {
        lock(&power).steps_left = Some(random.random_range(0..MAX_STEPS));
        let life = found.cuts + 1;
        match SequenceFile::open_on(Box::new(Memory(Arc::clone(&power))), path, &device) {
            Ok(mut sequence) => {
                if sequence.boot().0 <= boot {
                    let now = sequence.boot().0;
                    found
                        .violations
                        .push(format!("life {life} has boot {now} after {boot}"));
                }
                boot = sequence.boot().0;
                let wanted = random.random_range(0..MAX_NUMBERS);
                let mut used = 0;
                while used < wanted
                    && let Ok(number) = sequence.advance()
                {
                    if number.get() <= highest {
                        found
                            .violations
                            .push(format!("life {life} used {number} after {highest}"));
                    }
                    highest = number.get();
                    used += 1;
                }
                if sequence.writes() > writes_allowed(used) {
                    let writes = sequence.writes();
                    found
                        .violations
                        .push(format!("life {life} wrote {writes} times for {used} numbers"));
                }
                found.numbers += used;
            }
            Err(_) if lock(&power).is_off() => {}
            Err(error) => found
                .violations
                .push(format!("life {life} did not start: {error}")),
        }
        let mut power = lock(&power);
        found.amid += u64::from(power.is_off() && !power.loose_names.is_empty());
        power.cut(&mut random);
        found.cuts += 1;
        progress.inc(1);
        if found.violations.len() >= MAX_WORDS {
            break;
        }
    }
    found
}

/// A disk in memory, shared with who cuts its power.
#[derive(Debug)]
struct Memory(Arc<Mutex<Power>>);

#[derive(Debug, Default)]
struct Power {
    /// Steps until the power fails; `None` is no end.
    steps_left: Option<u32>,
    files: Vec<Content>,
    names: Names,
    /// Names as they are after a cut, before [`Self::loose_names`].
    safe_names: Names,
    /// Changes to names that a cut may lose.
    loose_names: Vec<Change>,
    written: Option<usize>,
    #[cfg(test)]
    lies: Lies,
}

type Names = BTreeMap<PathBuf, usize>;

/// What the disk says is safe and is not, for a test of the proof.
#[cfg(test)]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Lies {
    #[default]
    None,
    AboutBytes,
    AboutNames,
}

#[derive(Debug)]
struct Content {
    bytes: Vec<u8>,
    is_safe: bool,
}

#[derive(Debug)]
enum Change {
    Removed(PathBuf),
    Made(PathBuf, usize),
    /// A directory has the file itself under its new name: whether it also had the old one by
    /// then is another change.
    Renamed(PathBuf, PathBuf, usize),
}

impl Change {
    fn apply(&self, names: &mut Names) {
        match self {
            Self::Removed(path) => {
                names.remove(path);
            }
            Self::Made(path, file) => {
                names.insert(path.clone(), *file);
            }
            Self::Renamed(from, to, file) => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
        }
    }
}

impl Power {
    const fn is_off(&self) -> bool {
        matches!(self.steps_left, Some(0))
    }

    /// One step of the disk; an error when the power has failed before it.
    fn step(&mut self) -> io::Result<()> {
        if self.is_off() {
            return Err(io::Error::other("no power"));
        }
        self.steps_left = self.steps_left.map(|left| left - 1);
        Ok(())
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.loose_names.push(change);
    }

    /// The power is gone, and comes back.
    fn cut(&mut self, random: &mut StdRng) {
        for change in std::mem::take(&mut self.loose_names) {
            if random.random() {
                change.apply(&mut self.safe_names);
            }
        }
        self.names = self.safe_names.clone();
        for content in &mut self.files {
            if !content.is_safe {
                content.damage(random);
            }
        }
        // Files without a name are gone.
        let named: Vec<PathBuf> = self.names.keys().cloned().collect();
        let mut kept = Vec::new();
        for name in named {
            let file = self.names[&name];
            let bytes = std::mem::take(&mut self.files[file].bytes);
            kept.push(Content { bytes, is_safe: true });
            self.names.insert(name, kept.len() - 1);
        }
        self.files = kept;
        self.safe_names = self.names.clone();
        self.written = None;
    }
}

impl Content {
    /// What a cut makes of bytes that were not synced.
    fn damage(&mut self, random: &mut StdRng) {
        let length = self.bytes.len();
        if length == 0 {
            return;
        }
        match random.random_range(0..5) {
            0 => self.bytes.clear(),
            1 => self.bytes.truncate(random.random_range(0..length)),
            2 => self.bytes[random.random_range(0..length)..].fill(0),
            3 => self.bytes[random.random_range(0..length)] ^= 1 << random.random_range(0..8),
            _ => {}
        }
    }
}

impl Disk for Memory {
    fn read(&mut self, path: &Path, limit: usize) -> io::Result<Option<Vec<u8>>> {
        let mut power = lock(&self.0);
        power.step()?;
        let file = power.names.get(path).copied();
        Ok(file.map(|file| {
            let bytes = &power.files[file].bytes;
            bytes[..bytes.len().min(limit)].to_vec()
        }))
    }

    fn write(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut power = lock(&self.0);
        power.step()?;
        if power.names.contains_key(path) {
            power.change(Change::Removed(path.into()));
        }
        power.files.push(Content {
            bytes: bytes.to_vec(),
            is_safe: false,
        });
        let file = power.files.len() - 1;
        power.change(Change::Made(path.into(), file));
        power.written = Some(file);
        Ok(())
    }

    fn sync_file(&mut self) -> io::Result<()> {
        let mut power = lock(&self.0);
        power.step()?;
        let file = power
            .written
            .take()
            .ok_or_else(|| io::Error::other("no file was written"))?;
        #[cfg(test)]
        if power.lies == Lies::AboutBytes {
            return Ok(());
        }
        power.files[file].is_safe = true;
        Ok(())
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let mut power = lock(&self.0);
        power.step()?;
        let file = power.names.get(from).copied().ok_or(io::ErrorKind::NotFound)?;
        power.change(Change::Renamed(from.into(), to.into(), file));
        Ok(())
    }

    fn sync_names(&mut self, _: &Path) -> io::Result<()> {
        let mut power = lock(&self.0);
        power.step()?;
        #[cfg(test)]
        if power.lies == Lies::AboutNames {
            return Ok(());
        }
        power.loose_names.clear();
        power.safe_names = power.names.clone();
        Ok(())
    }
}

fn lock(power: &Mutex<Power>) -> MutexGuard<'_, Power> {
    // Nothing that holds the lock panics.
    power.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(lies: Lies) -> Cuts {
        let power = Power {
            lies,
            ..Power::default()
        };
        prove_on(power, 3_000, 1, &AtomicBool::new(false), &ProgressBar::hidden())
    }

    #[test]
    fn no_number_is_used_twice_over_power_cuts() {
        let found = cut(Lies::None);
        assert_eq!(found.violations, [""; 0]);
        assert_eq!(found.cuts, 3_000);
        assert!(found.amid > 500, "{found:?}");
    }

    #[test]
    fn disk_that_lies_about_a_sync_is_found_out() {
        for lies in [Lies::AboutBytes, Lies::AboutNames] {
            assert!(!cut(lies).violations.is_empty(), "{lies:?}");
        }
    }
}
