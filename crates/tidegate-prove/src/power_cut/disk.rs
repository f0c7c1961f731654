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

mod file;

use super::record::Change;
use file::{File, Pending};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
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
            disk.files.push(File::holding(bytes.clone()));
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
        names
            .into_iter()
            .map(|(name, file)| (name, self.files[file].live(&self.data)))
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

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: [u8; 8_192] = [7; 8_192];

    fn wrote(offset: u64, length: usize) -> Change {
        Change::Wrote {
            file: 0,
            offset,
            data: 0..length,
        }
    }

    fn disk(changes: &[Change]) -> Disk {
        let mut disk = Disk::new(&Image::new(), Arc::from(DATA));
        let name = "a".to_owned();
        disk.apply(&Change::Created { file: 0, name });
        for change in changes {
            disk.apply(change);
        }
        disk
    }

    /// What some hundred cuts leave of the one file; `None` where there is none.
    fn left(disk: &Disk, loss: Loss) -> Vec<Option<Vec<u8>>> {
        let mut random = StdRng::seed_from_u64(1);
        let mut once = || {
            let cut = Cut {
                loss,
                ..Cut::random(&mut random)
            };
            disk.cut(&cut, &mut random).0.remove("a")
        };
        (0..300).map(|_| once()).collect()
    }

    #[test]
    fn what_was_synced_is_there_after_every_cut() {
        let synced = disk(&[wrote(0, 5_000), Change::Synced { file: 0 }, Change::FolderSynced]);
        for loss in Loss::ALL {
            assert!(
                left(&synced, loss)
                    .iter()
                    .all(|left| *left == Some(vec![7; 5_000])),
                "{loss:?}"
            );
        }
        assert!(
            left(&disk(&[wrote(0, 5_000)]), Loss::All)
                .iter()
                .all(|left| left.as_deref().is_none_or(<[u8]>::is_empty))
        );
    }

    #[test]
    fn name_without_a_sync_of_its_folder_may_be_lost_with_strict_names_alone() {
        let disk = disk(&[wrote(0, 10), Change::Synced { file: 0 }]);
        let left = left(&disk, Loss::All);
        assert!(left.contains(&None) && left.contains(&Some(vec![7; 10])));
    }

    #[test]
    fn sync_after_a_failed_one_makes_only_what_is_new_durable() {
        let failed = [
            Change::FolderSynced,
            wrote(0, 4_096),
            Change::SyncFailed { file: 0 },
            wrote(2_048, 4_096),
            Change::Synced { file: 0 },
        ];
        let half = [[0; 2_048].as_slice(), &[7; 4_096]].concat();
        assert!(
            left(&disk(&failed), Loss::All)
                .iter()
                .all(|left| left.as_ref() == Some(&half))
        );
        assert_eq!(disk(&failed).live()["a"], [7; 6_144]);
    }

    #[test]
    fn spoilt_sector_takes_synced_bytes_along_unless_overwriting_is_safe() {
        let disk = disk(&[
            Change::FolderSynced,
            wrote(0, 512),
            Change::Synced { file: 0 },
            wrote(512, 1_024),
        ]);
        let spoilt = |powersafe| {
            let mut random = StdRng::seed_from_u64(1);
            let mut once = || {
                let cut = Cut {
                    loss: Loss::Garbage,
                    sector: 4_096,
                    powersafe,
                    ..Cut::random(&mut random)
                };
                disk.cut(&cut, &mut random).0["a"][..512] != [7; 512]
            };
            (0..300).any(|_| once())
        };
        assert!(spoilt(false));
        assert!(!spoilt(true));
    }
}
