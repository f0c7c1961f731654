//! Power cuts, a hundred thousand of them: what was acknowledged is there, once, and stays refused.
//!
//! A power cut differs from kill -9: the kernel's memory is lost with it. So the real store runs in
//! a process whose changes of files are recorded (`power_cut/recorder.c`), and from the record every
//! disk is made that a cut at some moment could leave (`power_cut/disk.rs`).

mod campaign;
mod check;
mod counts;
mod damage;
mod devices;
mod disk;
mod known;
mod marks;
mod record;
mod worker;

use crate::progress::stop_on_interrupt;
use crate::report::Running;
use anyhow::{Context, Result, anyhow};
use campaign::{Campaign, Plan};
use clap::Args;
use counts::Counts;
use devices::Devices;
use disk::Image;
use indicatif::{ProgressBar, ProgressStyle};
use record::Recorder;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use worker::Work;

/// Cuts of one scenario, those on what its cuts have left included.
const CUTS_PER_SCENARIO: u64 = 400;
/// One scenario in so many has a log so long that it must start over.
const LONG_EVERY: u64 = 100;
/// Cuts of such a one: each takes as long as many others.
const LONG_CUTS: u64 = 60;
/// One trial of other damage to so many cuts.
const CUTS_PER_DAMAGE: u64 = 5;
/// Ends a run that is lost anyway.
const MOST_VIOLATIONS: u64 = 100;

/// Cut the power at any moment of the store's work
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidegate-prove power-cut                          100,000 cuts, and 20,000 damaged files
  tidegate-prove power-cut --runs 300
  tidegate-prove power-cut --seed 7 --jobs 4
Needs Linux and a C compiler.")]
pub(crate) struct PowerCut {
    /// How many cuts
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,
    /// What moments, disks and scenarios start from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Scenarios at one time; all cores by default
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: Option<u16>,
    /// Where disks are simulated; a folder in memory is fastest
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Where to leave the files that went against the claim
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
    /// Disks whose syncs return at once and do nothing: the claim must not hold
    #[arg(long)]
    lying_disks: bool,
    /// Runs as the process that is recorded
    #[arg(long, hide = true, value_name = "FOLDER", requires = "work")]
    worker: Option<PathBuf>,
    /// What that does
    #[arg(long, hide = true)]
    work: Option<Work>,
}

/// What the threads share.
struct Shared<'a> {
    recorder: Recorder,
    devices: Devices,
    folder: &'a Path,
    keep: Option<&'a Path>,
    lying: bool,
    waiting: Mutex<VecDeque<Plan>>,
    counts: Mutex<Counts>,
    bar: ProgressBar,
    stop: Arc<AtomicBool>,
}

impl PowerCut {
    pub(crate) fn run(self) -> Result<ExitCode> {
        if let (Some(folder), Some(work)) = (&self.worker, self.work) {
            return worker::run(folder, work).map(|()| ExitCode::SUCCESS);
        }
        let claim = "After a power cut at any moment, whatever becomes of what was not synced, no message that the store \
                     reported as committed is missing or there twice, replay states and clock floor are those of the same \
                     commit, every replay stays refused, and any other damage is refused by name or does no harm.";
        let mut running = Running::start("power-cut", claim, Some(self.seed));
        let memory = Path::new("/dev/shm");
        let parent = match &self.folder {
            Some(folder) => folder.clone(),
            None if memory.is_dir() => memory.to_owned(),
            None => std::env::temp_dir(),
        };
        let folder = tempfile::Builder::new()
            .prefix("tidegate-power-cut-")
            .tempdir_in(&parent)
            .with_context(|| format!("cannot make a folder in {}", parent.display()))?;
        // The recorder knows the folder by its path without links.
        let folder_path = folder.path().canonicalize()?;
        let style = "{wide_bar} {pos}/{len} cuts, {elapsed} of {duration}, {per_sec}  {msg}";
        let shared = Shared {
            recorder: Recorder::build(&folder_path)?,
            devices: Devices::new(),
            folder: &folder_path,
            keep: self.keep.as_deref(),
            lying: self.lying_disks,
            waiting: Mutex::new(self.plans()),
            counts: Mutex::default(),
            bar: ProgressBar::new(self.runs).with_style(ProgressStyle::with_template(style)?),
            stop: stop_on_interrupt()?,
        };
        if let Some(keep) = &self.keep {
            std::fs::create_dir_all(keep).with_context(|| format!("cannot create {}", keep.display()))?;
        }
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let jobs = self.jobs.map_or_else(cores, usize::from);
        let ended: Result<()> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..jobs)
                .map(|job| {
                    scope.spawn({
                        let shared = &shared;
                        move || shared.work(job)
                    })
                })
                .collect();
            threads.into_iter().try_for_each(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(anyhow!("a thread has failed")))
            })
        });
        shared.bar.finish_and_clear();
        ended?;
        let stopped = shared.stop.load(Ordering::Relaxed);
        let counts = shared.counts.into_inner().unwrap_or_else(PoisonError::into_inner);
        counts.report(&mut running);
        if stopped {
            running.interrupted();
        }
        for note in NOTES {
            running.note(note);
        }
        running.finish()
    }

    fn plans(&self) -> VecDeque<Plan> {
        let mut left = self.runs;
        let mut plans = VecDeque::new();
        while left > 0 {
            let number = plans.len() as u64;
            // Not the first, which a smoke run has too.
            let long = number % LONG_EVERY == LONG_EVERY - 1;
            // Several scenarios even in a short run.
            let most = if long {
                LONG_CUTS
            } else {
                CUTS_PER_SCENARIO.min(self.runs.div_ceil(3))
            };
            let cuts = left.min(most);
            left -= cuts;
            plans.push_back(Plan {
                seed: self.seed.wrapping_mul(1_000_000).wrapping_add(number),
                cuts,
                damages: if long { 0 } else { cuts / CUTS_PER_DAMAGE },
                long,
            });
        }
        plans
    }
}

/// What the counts do not say.
const NOTES: [&str; 4] = [
    "The disk: what fsync or fdatasync has returned for is there; of all else each sector is there or not, by itself. \
     In every second cut a file's name is durable only once its folder was synced (POSIX); in the others names come in \
     order and with any sync, as in journalling file systems. In two thirds of the cuts a sector of 512 or 4,096 bytes \
     that is spoilt while it is written takes along what stood in it before. After a sync that failed, what was to be \
     synced is never written by a later one, and a process started later reads what the disk has of it, which the store \
     asks of the kernel when it opens.",
    "Not told from an earlier time: the database and its -commits file both put back together, since nothing outside \
     of the disk bears witness. What an attacker gains is bounded by the 30 s window and by cold_start.",
    "Refused only when read, or by `tidegate check`: a reading whose bits have flipped within a sound page. Not looked \
     for: events, totals and indexes within sound pages.",
    "Of databases over 64 MiB only the tables of replay protection are checked at opening.",
];

impl Shared<'_> {
    fn work(&self, job: usize) -> Result<()> {
        let folder = self.folder.join(format!("job-{job}"));
        std::fs::create_dir(&folder)?;
        let proceed = || {
            self.bar.inc(1);
            !self.stop.load(Ordering::Relaxed)
        };
        let mut campaign = Campaign {
            recorder: &self.recorder,
            devices: &self.devices,
            folder,
            lying: self.lying,
            keep: self.keep,
            foreign: Image::new(),
            proceed: &proceed,
        };
        while let Some(plan) = self.next() {
            let mut counts = Counts::default();
            campaign
                .run(plan, &mut counts)
                .with_context(|| format!("in the scenario of seed {}", plan.seed))?;
            let mut all = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            all.add(counts);
            self.bar.set_message(format!("{} violations", all.violated()));
            if all.violated() > MOST_VIOLATIONS {
                self.stop.store(true, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn next(&self) -> Option<Plan> {
        if self.stop.load(Ordering::Relaxed) {
            return None;
        }
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    }
}
