//! Disk full, disk read-only, no file descriptors: fails closed, says so, and goes on by itself.

mod descriptors;
mod scene;
mod storage;
mod volume;

use crate::kill::ledger::Counts;
use crate::kill::site::Broker;
use crate::progress::{progress_bar, stop_on_interrupt};
use crate::report::Running;
use anyhow::Result;
use clap::{Args, ValueEnum};
use scene::Recovery;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;
use storage::Cause;

/// Take disk space, write permission and file descriptors away from a running gateway
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidegate-prove exhaustion
  tidegate-prove exhaustion --runs 1 --case disk-full --binary target/debug/tidegate

Mounts a small file system of its own; without the right to do so a case is told as not run.")]
pub(crate) struct Exhaustion {
    /// How often each case
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Stands in the report; nothing here is left to chance
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The program
    #[arg(long, default_value = "target/release/tidegate", value_name = "FILE")]
    binary: PathBuf,
    /// One case only
    #[arg(long, value_enum)]
    case: Option<Case>,
    /// How soon messages must be accepted again once the cause is gone
    #[arg(long, default_value = "1s", value_name = "DURATION", value_parser = humantime::parse_duration)]
    within: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Case {
    /// No space is left on the database's file system
    DiskFull,
    /// The same, with Mosquitto as the broker
    DiskFullBehindMosquitto,
    /// The database's files cannot be written
    ReadOnly,
    /// The disk has failed, and its file system is read-only until it is repaired
    DiskFailed,
    /// No file descriptor is left for a connection
    Descriptors,
}

/// What came of one case.
enum Ran {
    /// It was carried out.
    Done(Counts, Recovery),
    /// This machine does not let it be carried out, and why.
    NotRun(String),
}

impl Exhaustion {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let within = humantime::format_duration(self.within);
        let claim = format!(
            "With the disk full, the disk read-only or no file descriptor left, nothing is accepted that is not durable; \
             the gateway says so, keeps running, and accepts again within {within} of the cause going away."
        );
        let mut running = Running::start("exhaustion", &claim, Some(self.seed));
        let cases = match self.case {
            Some(case) => vec![case],
            None => Case::value_variants().to_vec(),
        };
        let stop = stop_on_interrupt()?;
        let bar = progress_bar(u64::from(self.runs) * cases.len() as u64, "cases")?;
        for case in cases {
            bar.set_message(case.name());
            let mut found = Counts::default();
            let mut longest = Recovery::default();
            for _ in 0..self.runs {
                if stop.load(Ordering::Relaxed) {
                    running.interrupted();
                    break;
                }
                match case.run(&self.binary)? {
                    Ran::Done(counts, recovery) => {
                        found.merge(counts);
                        found.add("times carried out", 1);
                        recovery.judge(self.within, &mut found);
                        longest = longest.max(recovery);
                    }
                    Ran::NotRun(reason) => {
                        running.note(&format!("{}: not run: {reason}", case.name()));
                        break;
                    }
                }
                bar.inc(1);
            }
            report(&mut running, case, &found, longest);
        }
        bar.finish_and_clear();
        for note in NOTES {
            running.note(note);
        }
        running.finish()
    }
}

impl Case {
    fn name(self) -> &'static str {
        match self {
            Self::DiskFull => "disk full",
            Self::DiskFullBehindMosquitto => "disk full behind Mosquitto",
            Self::ReadOnly => "disk read-only",
            Self::DiskFailed => "disk failed",
            Self::Descriptors => "no descriptors",
        }
    }

    fn run(self, binary: &Path) -> Result<Ran> {
        match self {
            Self::DiskFull => storage::run(binary, Broker::Embedded, Cause::Full),
            Self::DiskFullBehindMosquitto => storage::run(binary, Broker::Mosquitto, Cause::Full),
            Self::ReadOnly => storage::run(binary, Broker::Embedded, Cause::ReadOnly),
            Self::DiskFailed => storage::run(binary, Broker::Embedded, Cause::Failed),
            Self::Descriptors => descriptors::run(binary),
        }
    }
}

fn report(running: &mut Running, case: Case, found: &Counts, longest: Recovery) {
    let name = case.name();
    for (what, number) in found.all() {
        running.count(&format!("{name}: {what}"), number);
    }
    if longest != Recovery::default() {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        running.count(
            &format!("{name}: longest time until accepted again, ms"),
            ms(longest.accepted),
        );
        running.count(
            &format!("{name}: longest time until ready again, ms"),
            ms(longest.ready),
        );
    }
    for violation in found.violations() {
        running.violation(format!("{name}: {violation}"));
    }
}

const NOTES: &[&str] = &[
    "Disk full: a real ENOSPC, on a file system of 24 MB (ext4 in a file, else tmpfs) that the gateway's data has to itself.",
    "Behind Mosquitto the gateway's acceptance is seen in its database, and every message that Mosquitto took during the \
     outage must be there in the end.",
    "Read-only: database and log are made immutable while they are open (chattr +i), so that every write to them fails. A \
     kernel refuses to remount a file system read-only while a file is open for writing; this is how files become \
     read-only under a running program and can be writable again without a restart.",
    "Disk failed: ext4's answer to a failing disk (remount,abort). It cannot be taken back while the file system is in \
     use, so here the claim is that the gateway refuses, says so and keeps running, and that after a repair everything \
     acknowledged is in the database.",
    "No descriptors: the limit of the running process is lowered to 8 more than it uses, and 64 sockets hold them. Devices \
     that are connected go on; a new one waits in the kernel's queue, and the time is until its first message is accepted. \
     /readyz needs a descriptor itself and cannot be asked meanwhile.",
];
