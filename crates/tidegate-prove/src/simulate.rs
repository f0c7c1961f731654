//! Deterministic simulation: publishers, broker, gateway and an attacker in one simulated network
//! and time, with everything going wrong that a seed can think of.
//!
//! Real are the publisher of `tidegate-device` with its sequence files, the broker and the
//! subscriber of `tidegate-broker`, and verifier and replay guard of `tidegate-verify`. Simulated
//! are network, time, crashes (turmoil), the gateway's disk, and TLS: a host's address stands for
//! its certificate.

mod attacker;
mod clock;
mod disk;
mod gate;
mod hosts;
mod ledger;
mod plan;
mod run;

use crate::progress::{progress_bar, stop_on_interrupt};
use crate::report::Running;
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use plan::Sabotage;
use run::Outcome;
use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tempfile::TempDir;

/// Violations that are shown; one seed can make thousands of the same kind.
const MAX_VIOLATIONS: usize = 50;
/// How many of the first seeds are run twice, to see that they end the same.
const RUN_TWICE: u64 = 20;

/// Simulate devices, broker, gateway and attacker under faults, each run from its own seed
#[derive(Debug, Args)]
#[command(after_help = "Run one seed again, and see what happens:
  tidegate-prove simulate --runs 1 --seed 4711 --show")]
pub(crate) struct Simulate {
    /// How many seeds
    #[arg(long, default_value_t = 1_000)]
    runs: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Show everything that happens, in order
    #[arg(long)]
    show: bool,
    /// Run the first seed alone, and write what it led to as JSON
    #[arg(long, hide = true)]
    alone: bool,
    /// Break the gateway in this way: violations must be found
    #[arg(long, value_enum)]
    sabotage: Option<Sabotage>,
}

/// So many runs are enough for everything in [`MUST_HAPPEN`] to happen.
const ENOUGH_RUNS: u64 = 200;
/// What a claim about faults and attacks is worth nothing without.
const MUST_HAPPEN: &[&str] = &[
    "accepted",
    "acknowledged again: duplicate",
    "sessions resumed",
    "crashes of a device",
    "crashes of the broker",
    "crashes of the gateway",
    "network: partitions",
    "network: messages held back",
    "network: changes of the loss rate",
    "disk full, and free again",
    "jumps of the gateway's clock",
    "publishes of the attacker",
    "broker's events: session_takeover",
    "refused: replay",
    "refused: out_of_order",
    "refused: stale",
    "refused: future",
    "refused: cold_start",
    "refused: bad_mac",
    "refused: retained",
    "refused: storage_unavailable",
];

/// What all runs have found together.
#[derive(Default)]
struct Found {
    runs: u64,
    compared: u64,
    counts: BTreeMap<String, u64>,
    violations: Vec<String>,
}

impl Simulate {
    pub(crate) fn run(self) -> Result<ExitCode> {
        if self.alone {
            let outcome = run_here(self.seed, self.sabotage, false)?;
            anstream::println!("{}", serde_json::to_string(&outcome)?);
            return Ok(ExitCode::SUCCESS);
        }
        let claim = "Nothing is accepted twice, late, early, or unsent, nothing acknowledged is lost, and all is \
                     accepted once all is well: over crashes, partitions, delays, wrong clocks and replays.";
        let mut report = Running::start("simulate", claim, Some(self.seed));
        let found = self.all()?;
        report.count("runs, each from its own seed", found.runs);
        report.count("runs done twice with the same trace", found.compared);
        for (what, count) in &found.counts {
            report.count(what, *count);
        }
        for violation in found.violations.iter().take(MAX_VIOLATIONS) {
            report.violation(violation.clone());
        }
        if found.violations.len() > MAX_VIOLATIONS {
            report.violation(format!("and {} more", found.violations.len() - MAX_VIOLATIONS));
        }
        for what in MUST_HAPPEN {
            if found.runs >= ENOUGH_RUNS && !found.counts.contains_key(*what) {
                report.violation(format!("the simulation is too tame: no `{what}`"));
            }
        }
        if found.runs < self.runs {
            report.interrupted();
        }
        report.note("Each run covers 110 s of simulated time: faults for 40 s, then everything heals.");
        report.note(
            "Simulated, not real: network, time, the gateway's disk, and TLS (a host's address stands for its \
             certificate). TCP of the simulation does not repeat lost segments; a loss breaks the connection.",
        );
        report.finish()
    }

    fn all(&self) -> Result<Found> {
        let threads = if self.show {
            1
        } else {
            std::thread::available_parallelism().map_or(1, usize::from)
        };
        let bar = progress_bar(self.runs, "seeds")?;
        if self.show {
            bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
        }
        let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
        let found = Mutex::new(Found::default());
        let interrupted = stop_on_interrupt()?;
        std::thread::scope(|scope| {
            let worker = || {
                while !interrupted.load(Ordering::Relaxed) && !failed.load(Ordering::Relaxed) {
                    let run = next.fetch_add(1, Ordering::Relaxed);
                    if run >= self.runs {
                        return Ok(());
                    }
                    self.one(run, &found, &bar)
                        .inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
                }
                Ok(())
            };
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().try_for_each(|worker| match worker.join() {
                Ok(ended) => ended,
                Err(_) => bail!("a simulation panicked; its seed is one of the last"),
            })
        })?;
        bar.finish_and_clear();
        Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn one(&self, run: u64, found: &Mutex<Found>, bar: &ProgressBar) -> Result<()> {
        let seed = self.seed.wrapping_add(run);
        let Outcome {
            counts,
            mut violations,
            trace,
        } = if self.show {
            run_here(seed, self.sabotage, true)?
        } else {
            run_apart(seed, self.sabotage)?
        };
        let twice = run < RUN_TWICE && !self.show;
        if twice {
            let again = run_apart(seed, self.sabotage)?;
            if again.trace != trace {
                violations.push(format!(
                    "seed {seed}: two runs differ, {trace:016x} and {:016x}",
                    again.trace
                ));
            }
        }
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        found.runs += 1;
        found.compared += u64::from(twice);
        found.violations.append(&mut violations);
        for (what, count) in counts {
            *found.counts.entry(what).or_default() += count;
        }
        let accepted = found.counts.get("accepted").copied().unwrap_or(0);
        bar.set_message(format!(
            "{accepted} accepted, {} violations",
            found.violations.len()
        ));
        bar.inc(1);
        Ok(())
    }
}

fn run_here(seed: u64, sabotage: Option<Sabotage>, shown: bool) -> Result<Outcome> {
    run::run(seed, sabotage, memory_folder()?.path(), shown)
}

/// Runs a seed in a process of its own. Tokio counts its tasks for the whole process, and ends
/// those of a crashed host in an order that depends on their numbers.
fn run_apart(seed: u64, sabotage: Option<Sabotage>) -> Result<Outcome> {
    let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
    command.args(["simulate", "--alone", "--seed", &seed.to_string()]);
    if let Some(value) = sabotage.and_then(|sabotage| sabotage.to_possible_value()) {
        command.args(["--sabotage", value.get_name()]);
    }
    // Ctrl-C is for the parent, which lets the seeds under way end.
    let output = command
        .process_group(0)
        .output()
        .context("cannot start a simulation")?;
    serde_json::from_slice(&output.stdout).with_context(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        let status = output.status;
        format!("seed {seed} ended without an outcome ({status}): {}", said.trim())
    })
}

/// A folder in memory where there is one: devices sync their sequence files thousands of times.
fn memory_folder() -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    made.context("cannot create a temporary folder")
}
