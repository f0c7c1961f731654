//! Runs a worker with its changes recorded, and reads the record.

use super::disk::{Disk, Image};
use super::marks::{self, Mark};
use super::worker::Work;
use anyhow::{Context, Result, bail, ensure};
use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// The recorder's source, compiled when the proof begins.
const SOURCE: &str = include_str!("recorder.c");
/// Endings of the names that are no part of the disk: memory in a file, and what workers say.
const IGNORED: [&str; 2] = ["-shm", marks::FILE];

/// A change of the files, in terms of the folder's files numbered over all workers.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Created {
        file: usize,
        name: String,
    },
    /// Bytes of the record's data.
    Wrote {
        file: usize,
        offset: u64,
        data: Range<usize>,
    },
    Truncated {
        file: usize,
        length: u64,
    },
    Synced {
        file: usize,
    },
    /// The kernel takes what was to be synced for clean, and it may not be on the disk.
    SyncFailed {
        file: usize,
    },
    Unlinked {
        name: String,
    },
    FolderSynced,
    /// Between two workers: of what failed syncs have left in the kernel's memory alone, this is
    /// what the disk has. The store lets the kernel forget its copy when it opens.
    Forgotten {
        seed: u64,
    },
    /// Nothing happened to the files: the worker said something.
    Said(Mark),
}

/// What one or several workers did in a folder, one after the other.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) changes: Vec<Change>,
    data: Vec<u8>,
    /// Names that exist, and their files.
    names: HashMap<String, usize>,
    files: usize,
}

impl Record {
    /// A record of what is done in a folder that holds `image` to begin with. Its files have the
    /// first numbers, in the order of their names.
    pub(super) fn over(image: &Image) -> Self {
        Self {
            names: image.keys().cloned().zip(0..).collect(),
            files: image.len(),
            ..Self::default()
        }
    }

    /// How often the file was written from its beginning while it held something, without having
    /// been cut to nothing before.
    pub(super) fn started_over(&self, name: &str) -> u64 {
        let mut number = None;
        let (mut holds_more, mut times) = (false, 0);
        for change in &self.changes {
            match change {
                Change::Created { file, name: created } if created == name => {
                    (number, holds_more) = (Some(*file), false);
                }
                Change::Truncated { file, length: 0 } if Some(*file) == number => holds_more = false,
                Change::Wrote { file, offset, .. } if Some(*file) == number => {
                    times += u64::from(*offset == 0 && holds_more);
                    holds_more |= *offset > 0;
                }
                _ => {}
            }
        }
        times
    }

    /// The changes, and the data that they refer to.
    pub(super) fn into_parts(self) -> (Vec<Change>, Arc<[u8]>) {
        (self.changes, self.data.into())
    }

    /// Says that the kernel forgets what failed syncs have left, in a way that `seed` decides.
    pub(super) fn forget(&mut self, seed: u64) {
        self.changes.push(Change::Forgotten { seed });
    }

    /// What programs see after all changes, where the folder held `base` before.
    pub(super) fn live(&self, base: &Image) -> Image {
        let mut disk = Disk::new(base, self.data.clone().into());
        for change in &self.changes {
            disk.apply(change);
        }
        disk.live()
    }

    /// Adds what a worker's recorder has written.
    fn add(&mut self, raw: &[u8]) -> Result<()> {
        // The recorder's numbers begin anew with each worker.
        let mut numbers = HashMap::<u32, Option<usize>>::new();
        let mut rest = raw;
        while !rest.is_empty() {
            let kind = u8::from_le_bytes(take(&mut rest)?);
            let number = u32::from_le_bytes(take(&mut rest)?);
            let offset = u64::from_le_bytes(take(&mut rest)?);
            let length = u32::from_le_bytes(take(&mut rest)?) as usize;
            let data = rest.split_off(..length).context("the record ends early")?;
            if let 1 | 2 | 7 = kind {
                let name = std::str::from_utf8(data)?.to_owned();
                let ignored = IGNORED.iter().any(|ending| name.ends_with(ending));
                match kind {
                    7 if ignored => {}
                    7 => {
                        self.names.remove(&name);
                        self.changes.push(Change::Unlinked { name });
                    }
                    _ if ignored => {
                        numbers.insert(number, None);
                    }
                    1 => {
                        let file = self.names.get(&name);
                        let file = file.with_context(|| format!("nobody has made the file {name}"))?;
                        numbers.insert(number, Some(*file));
                    }
                    _ => {
                        let file = self.files;
                        self.files += 1;
                        numbers.insert(number, Some(file));
                        self.names.insert(name.clone(), file);
                        self.changes.push(Change::Created { file, name });
                    }
                }
                continue;
            }
            if kind == 8 {
                self.changes.push(Change::FolderSynced);
                continue;
            }
            let file = *numbers.get(&number).context("a change of an unknown file")?;
            let Some(file) = file else {
                // Of the ignored files only the marks matter.
                if kind == 3 && data.ends_with(b"\n") {
                    self.changes.push(Change::Said(serde_json::from_slice(data)?));
                }
                continue;
            };
            self.changes.push(match kind {
                3 => {
                    let start = self.data.len();
                    self.data.extend(data);
                    Change::Wrote {
                        file,
                        offset,
                        data: start..self.data.len(),
                    }
                }
                4 => Change::Truncated { file, length: offset },
                5 => Change::Synced { file },
                6 => Change::SyncFailed { file },
                other => bail!("a change of kind {other}"),
            });
        }
        Ok(())
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N]> {
    let (first, after) = rest.split_first_chunk().context("the record ends early")?;
    *rest = after;
    Ok(*first)
}

/// What befalls a worker.
#[derive(Debug, Default)]
pub(super) struct Fate {
    /// Numbers of the syncs that fail, from 1 and rising.
    pub(super) failing_syncs: Vec<u32>,
    /// The number of the change at which it is killed, from 1.
    pub(super) killed_at: Option<u32>,
}

/// The exit code of a worker that the recorder has killed.
const KILLED: i32 = 87;

/// Runs workers.
#[derive(Debug)]
pub(super) struct Recorder {
    library: PathBuf,
}

impl Recorder {
    /// Compiles the recorder into `folder` with the C compiler that `CC` names, else `cc`.
    pub(super) fn build(folder: &Path) -> Result<Self> {
        let source = folder.join("recorder.c");
        let library = folder.join("recorder.so");
        std::fs::write(&source, SOURCE)?;
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let output = Command::new(&compiler)
            .args(["-O2", "-Wall", "-shared", "-fPIC", "-pthread", "-o"])
            .arg(&library)
            .arg(&source)
            .output()
            .with_context(|| format!("cannot run the C compiler {}", compiler.display()))?;
        ensure!(
            output.status.success(),
            "the recorder does not compile: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(Self { library })
    }

    /// Runs a worker in `folder` and adds what it did to `record`.
    pub(super) fn run(&self, folder: &Path, work: Work, fate: &Fate, record: &mut Record) -> Result<()> {
        let to = folder.with_extension("record");
        let failing: Vec<String> = fate.failing_syncs.iter().map(u32::to_string).collect();
        let output = Command::new(std::env::current_exe()?)
            .args(["power-cut", "--worker"])
            .arg(folder)
            .arg("--work")
            .arg(serde_json::to_string(&work)?)
            .env("LD_PRELOAD", &self.library)
            .env("TIDEGATE_RECORD_FOLDER", folder)
            .env("TIDEGATE_RECORD_TO", &to)
            .env("TIDEGATE_FAIL_SYNCS", failing.join(","))
            .env("TIDEGATE_KILL_AT", fate.killed_at.unwrap_or(0).to_string())
            .output()
            .context("cannot start a worker")?;
        let ended = match output.status.code() {
            Some(0) => true,
            // Where syncs fail the worker may fail with them.
            Some(1) => !failing.is_empty(),
            code => code == Some(KILLED) && fate.killed_at.is_some(),
        };
        ensure!(
            ended,
            "the worker of seed {} ended with {}: {}",
            work.seed,
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        let raw = std::fs::read(&to)
            .context("the recorder has written nothing: is the program linked statically?")?;
        std::fs::remove_file(&to)?;
        record.add(&raw)
    }
}
