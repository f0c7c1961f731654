//! A disk under power cuts: what was synced stays, and of what was not anything may be there.
//!
//! The model, per file: a sync makes all earlier writes and lengths of that file durable. Of later
//! ones each is kept or lost, whole or by sectors, in any order; the sector that is being written
//! may hold anything. After a failed sync its writes are never durable again unless written again,
//! as the kernel then takes the pages for clean.
//!
//! Names (creation, deletion), two models in turn: POSIX's, where only a sync of the folder makes
//! them durable and each is kept or lost by itself; and a journalling file system's, where they
//! take effect in order and a sync of any file takes along all earlier ones.

use super::record::Change;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Files by name.
pub(super) type Image = BTreeMap<String, Vec<u8>>;

/// What becomes of unsynced data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Loss {
    /// All of it is lost.
    All,
    /// None of it, as after kill -9.
    None,
    /// It arrives in order, up to some moment, and the last write is torn at a sector.
    Tail,
    /// Each write arrives or not.
    Writes,
    /// Each sector arrives or not.
    Sectors,
    /// Each sector arrives, or not, or zeros, or garbage, or itself with bits flipped.
    Garbage,
}

impl Loss {
    pub(super) const ALL: [Self; 6] = [
        Self::All,
        Self::None,
        Self::Tail,
        Self::Writes,
        Self::Sectors,
        Self::Garbage,
    ];

    pub(super) const fn describe(self) -> &'static str {
        match self {
            Self::All => "all unsynced data lost",
            Self::None => "all unsynced data kept",
            Self::Tail => "unsynced data kept in order up to a torn write",
            Self::Writes => "unsynced writes kept or lost in any order",
            Self::Sectors => "unsynced writes torn into sectors, kept or lost in any order",
            Self::Garbage => "unsynced sectors kept, lost, zeroed, bit-flipped or garbage",
        }
    }
}

/// One way to lose power.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    pub(super) loss: Loss,
    /// Bytes of a sector.
    pub(super) sector: usize,
    /// Whether the rest of a sector that is written in part stays as it was.
    pub(super) powersafe: bool,
    /// Whether files have their new lengths although the data is lost: zeros then.
    pub(super) lengths_first: bool,
    /// Names are durable only with the folder.
    pub(super) strict_names: bool,
    /// How much is kept, in percent.
    pub(super) kept_percent: u32,
}

impl Cut {
    pub(super) fn random(random: &mut StdRng) -> Self {
        Self {
            loss: Loss::ALL[random.random_range(0..Loss::ALL.len())],
            sector: if random.random_range(0..2) == 0 {
                512
            } else {
                4_096
            },
            powersafe: random.random_range(0..3) == 0,
            lengths_first: random.random_range(0..4) == 0,
            strict_names: random.random_range(0..2) == 0,
            kept_percent: [5, 30, 50, 70, 95][random.random_range(0..5)],
        }
    }
}

/// What a cut did.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Harm {
    pub(super) lost_writes: u64,
    pub(super) torn_writes: u64,
    pub(super) spoilt_sectors: u64,
    pub(super) lost_names: u64,
}

#[derive(Debug, Clone)]
enum Pending {
    Write {
        at: usize,
        offset: usize,
        data: Range<usize>,
    },
    Length {
        at: usize,
        length: usize,
    },
}

#[derive(Debug, Clone, Default)]
struct File {
    durable: Vec<u8>,
    pending: Vec<Pending>,
    /// Bytes of failed syncs that nothing durable has replaced.
    orphans: Vec<(usize, Vec<u8>)>,
}

#[derive(Debug, Clone)]
enum NameChange {
    Create(String, usize),
    Unlink(String),
}

type Names = BTreeMap<String, usize>;

/// The state of the disk and of the kernel's memory after some changes.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    data: Arc<[u8]>,
    files: Vec<File>,
    /// Durable whatever the file system.
    names: Names,
    /// Since the last sync of the folder.
    name_changes: Vec<NameChange>,
    /// How many of those a journalling file system has made durable.
    journalled: usize,
    /// Changes so far.
    at: usize,
    /// Whether syncs only seem to be made.
    lies: bool,
}

impl Disk {
    /// A disk that holds `image`, all of it durable. `data` are the bytes that changes refer to.
    pub(super) fn new(image: &Image, data: Arc<[u8]>) -> Self {
        let mut disk = Self {
            data,
            files: Vec::new(),
            names: Names::new(),
            name_changes: Vec::new(),
            journalled: 0,
            at: 0,
            lies: false,
        };
        // Numbered as the record does.
        for (name, bytes) in image {
            disk.names.insert(name.clone(), disk.files.len());
            disk.files.push(File {
                durable: bytes.clone(),
                ..File::default()
            });
        }
        disk
    }

    /// The same disk, with syncs that return at once and make nothing durable.
    pub(super) fn lying(mut self) -> Self {
        self.lies = true;
        self
    }

    /// Makes the next change.
    pub(super) fn apply(&mut self, change: &Change) {
        self.at += 1;
        match change {
            Change::Said(_) => {}
            Change::Created { file, name } => {
                self.grow(*file);
                self.name_changes.push(NameChange::Create(name.clone(), *file));
            }
            Change::Wrote { file, offset, data } => {
                let offset = usize::try_from(*offset).expect("files here are small");
                let write = Pending::Write {
                    at: self.at,
                    offset,
                    data: data.clone(),
                };
                self.file(*file).pending.push(write);
            }
            Change::Truncated { file, length } => {
                let length = usize::try_from(*length).expect("files here are small");
                let at = self.at;
                self.file(*file).pending.push(Pending::Length { at, length });
            }
            Change::Synced { .. } | Change::FolderSynced if self.lies => {}
            Change::Synced { file } => {
                let data = Arc::clone(&self.data);
                self.file(*file).sync(&data);
                self.journalled = self.name_changes.len();
            }
            Change::SyncFailed { file } => {
                let data = Arc::clone(&self.data);
                self.file(*file).fail_sync(&data);
            }
            Change::Forgotten { seed } => {
                let mut random = StdRng::seed_from_u64(*seed);
                let cut = Cut {
                    loss: Loss::Sectors,
                    ..Cut::random(&mut random)
                };
                for file in &mut self.files {
                    file.forget(&cut, &mut random);
                }
            }
            Change::Unlinked { name } => self.name_changes.push(NameChange::Unlink(name.clone())),
            Change::FolderSynced => {
                for change in std::mem::take(&mut self.name_changes) {
                    change.apply(&mut self.names);
                }
                self.journalled = 0;
            }
        }
    }

    fn grow(&mut self, file: usize) {
        if self.files.len() <= file {
            self.files.resize_with(file + 1, File::default);
        }
    }

    fn file(&mut self, file: usize) -> &mut File {
        self.grow(file);
        &mut self.files[file]
    }

    /// What programs see, without a cut.
    pub(super) fn live(&self) -> Image {
        let mut names = self.names.clone();
        for change in &self.name_changes {
            change.clone().apply(&mut names);
        }
        let live = |file: &File| {
            let mut bytes = file.durable.clone();
            for (offset, orphan) in &file.orphans {
                write(&mut bytes, *offset, orphan);
            }
            for pending in &file.pending {
                pending.apply(&mut bytes, &self.data);
            }
            bytes
        };
        names
            .into_iter()
            .map(|(name, file)| (name, live(&self.files[file])))
            .collect()
    }

    /// What is on the disk after the power was cut.
    pub(super) fn cut(&self, cut: &Cut, random: &mut StdRng) -> (Image, Harm) {
        let mut harm = Harm::default();
        let names = self.names_after(cut, random, &mut harm);
        // The same moment for all files.
        let until = random.random_range(self.at.saturating_sub(40)..=self.at);
        let image = names
            .into_iter()
            .map(|(name, file)| {
                (
                    name,
                    self.files[file].after(&self.data, cut, until, random, &mut harm),
                )
            })
            .collect();
        (image, harm)
    }

    fn names_after(&self, cut: &Cut, random: &mut StdRng, harm: &mut Harm) -> Names {
        let mut names = self.names.clone();
        let pending = self.name_changes.len();
        let kept: Vec<bool> = match (cut.loss, cut.strict_names) {
            (Loss::None, _) => vec![true; pending],
            (Loss::All, true) => vec![false; pending],
            (Loss::All, false) => (0..pending).map(|place| place < self.journalled).collect(),
            (_, true) => (0..pending).map(|_| random.random_range(0..2) == 0).collect(),
            (_, false) => {
                let until = random.random_range(self.journalled..=pending);
                (0..pending).map(|place| place < until).collect()
            }
        };
        for (change, kept) in self.name_changes.iter().zip(kept) {
            if kept {
                change.clone().apply(&mut names);
            } else {
                harm.lost_names += 1;
            }
        }
        names
    }
}

impl NameChange {
    fn apply(self, names: &mut Names) {
        match self {
            Self::Create(name, file) => names.insert(name, file),
            Self::Unlink(name) => names.remove(&name),
        };
    }
}

impl Pending {
    fn apply(&self, bytes: &mut Vec<u8>, data: &[u8]) {
        match self {
            Self::Write {
                offset, data: range, ..
            } => write(bytes, *offset, &data[range.clone()]),
            Self::Length { length, .. } => bytes.resize(*length, 0),
        }
    }
}

fn write(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(data);
}

impl File {
    fn sync(&mut self, data: &[u8]) {
        for pending in std::mem::take(&mut self.pending) {
            match &pending {
                Pending::Write {
                    offset, data: range, ..
                } => self.replace_orphans(*offset..*offset + range.len()),
                Pending::Length { length, .. } => self.replace_orphans(*length..usize::MAX),
            }
            pending.apply(&mut self.durable, data);
        }
    }

    /// What was to be synced is in the kernel's memory only, and will never be written.
    fn fail_sync(&mut self, data: &[u8]) {
        for pending in std::mem::take(&mut self.pending) {
            match pending {
                Pending::Write {
                    offset, data: range, ..
                } => {
                    self.replace_orphans(offset..offset + range.len());
                    self.orphans.push((offset, data[range].to_vec()));
                }
                // Lengths are the file system's own, and come with its journal.
                Pending::Length { length, .. } => {
                    self.replace_orphans(length..usize::MAX);
                    self.durable.resize(length, 0);
                }
            }
        }
    }

    /// Decides about the bytes of failed syncs.
    fn forget(&mut self, cut: &Cut, random: &mut StdRng) {
        for (offset, orphan) in std::mem::take(&mut self.orphans) {
            tear(
                &mut self.durable,
                offset,
                &orphan,
                cut,
                random,
                &mut Harm::default(),
            );
        }
    }

    fn replace_orphans(&mut self, replaced: Range<usize>) {
        let mut left = Vec::with_capacity(self.orphans.len());
        for (offset, bytes) in self.orphans.drain(..) {
            let end = offset + bytes.len();
            if replaced.end <= offset || end <= replaced.start {
                left.push((offset, bytes));
                continue;
            }
            if offset < replaced.start {
                left.push((offset, bytes[..replaced.start - offset].to_vec()));
            }
            if replaced.end < end {
                left.push((replaced.end, bytes[replaced.end - offset..].to_vec()));
            }
        }
        self.orphans = left;
    }

    fn after(&self, data: &[u8], cut: &Cut, until: usize, random: &mut StdRng, harm: &mut Harm) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for (offset, orphan) in &self.orphans {
            match cut.loss {
                Loss::All => {}
                Loss::None => write(&mut bytes, *offset, orphan),
                _ => tear(&mut bytes, *offset, orphan, cut, random, harm),
            }
        }
        for pending in &self.pending {
            if cut.lengths_first
                && let Pending::Write {
                    offset, data: range, ..
                } = pending
                && bytes.len() < *offset + range.len()
            {
                bytes.resize(*offset + range.len(), 0);
            }
            let percent = random.random_range(0..100);
            let at = match pending {
                Pending::Write { at, .. } | Pending::Length { at, .. } => *at,
            };
            let kept = match cut.loss {
                Loss::All => false,
                Loss::None => true,
                Loss::Tail => at < until,
                Loss::Writes | Loss::Sectors | Loss::Garbage => percent < cut.kept_percent,
            };
            match pending {
                Pending::Write {
                    offset, data: range, ..
                } if matches!(cut.loss, Loss::Sectors | Loss::Garbage)
                    || (cut.loss == Loss::Tail && at == until) =>
                {
                    tear(&mut bytes, *offset, &data[range.clone()], cut, random, harm);
                }
                _ if kept => pending.apply(&mut bytes, data),
                _ => harm.lost_writes += 1,
            }
        }
        bytes
    }
}

/// Writes `data` sector by sector, as the cut has it.
fn tear(bytes: &mut Vec<u8>, offset: usize, data: &[u8], cut: &Cut, random: &mut StdRng, harm: &mut Harm) {
    let end = offset + data.len();
    let mut start = offset;
    let (mut kept_some, mut lost_some) = (false, false);
    // In order up to a sector, or each by itself.
    let breaks_at = random.random_range(offset..=end);
    while start < end {
        let stop = end.min((start / cut.sector + 1) * cut.sector);
        let part = &data[start - offset..stop - offset];
        let kept = if cut.loss == Loss::Tail {
            stop <= breaks_at
        } else {
            random.random_range(0..100) < cut.kept_percent
        };
        if cut.loss == Loss::Garbage && random.random_range(0..4) == 0 {
            harm.spoilt_sectors += 1;
            spoil(bytes, start, part, cut, random);
            lost_some = true;
        } else if kept {
            write(bytes, start, part);
            kept_some = true;
        } else {
            lost_some = true;
        }
        start = stop;
    }
    match (kept_some, lost_some) {
        (true, true) => harm.torn_writes += 1,
        (false, true) => harm.lost_writes += 1,
        _ => {}
    }
}

/// Leaves anything in the sector that `part` was being written to.
fn spoil(bytes: &mut Vec<u8>, start: usize, part: &[u8], cut: &Cut, random: &mut StdRng) {
    write(bytes, start, part);
    let sector = if cut.powersafe {
        start..start + part.len()
    } else {
        let first = start / cut.sector * cut.sector;
        first..bytes.len().min(first + cut.sector)
    };
    let sector = &mut bytes[sector];
    match random.random_range(0..3) {
        0 => sector.fill(0),
        1 => random.fill(sector),
        _ => {
            for _ in 0..random.random_range(1..=4) {
                let bit = random.random_range(0..sector.len() * 8);
                sector[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
}
