//! kill -9 of the real gateway, thousands of times under load, with everything captured sent again.

mod campaign;
pub(crate) mod check;
pub(crate) mod client;
pub(crate) mod ledger;
pub(crate) mod site;
pub(crate) mod traffic;

use crate::progress::{progress_bar, stop_on_interrupt};
use crate::report::Running;
use anyhow::{Context, Result, anyhow};
use campaign::Plan;
use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use ledger::Counts;
use site::Broker;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Lives at one site; then a fresh one, so that "everything since the start" stays bounded.
const LIVES_PER_SITE: u32 = 1_000;

/// Kill the gateway at random moments under load, and send everything again
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidegate-prove kill                            10,000 kills, half of them behind Mosquitto
  tidegate-prove kill --runs 12 --binary target/debug/tidegate
  tidegate-prove kill --mode embedded --seed 7")]
pub(crate) struct Kill {
    /// How many kills
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// What the moments and the choice of copies start from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The program to kill
    #[arg(long, default_value = "target/release/tidegate", value_name = "FILE")]
    binary: PathBuf,
    /// Which broker devices speak to
    #[arg(long, value_enum, default_value_t = Mode::Both)]
    mode: Mode,
    /// Sites at one time
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    jobs: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// The gateway's own broker
    Embedded,
    /// A stock Mosquitto before the gateway
    Mosquitto,
    /// Half of the kills each
    Both,
}

/// What is shared by the threads that run campaigns.
struct Shared {
    waiting: Mutex<VecDeque<Plan>>,
    found: Mutex<Counts>,
    bar: ProgressBar,
    stop: Arc<AtomicBool>,
}

impl Kill {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let claim = "Through kill -9 of the gateway at any moment under load, with everything captured sent again \
                     after each restart, no message is accepted twice and none that was acknowledged is missing.";
        let mut running = Running::start("kill", claim, Some(self.seed));
        let shared = Shared {
            waiting: Mutex::new(self.plans()),
            found: Mutex::default(),
            bar: progress_bar(u64::from(self.runs), "kills")?,
            stop: stop_on_interrupt()?,
        };
        let ended: Result<()> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.jobs)
                .map(|_| scope.spawn(|| shared.work(&self.binary)))
                .collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, Result<()>>| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(anyhow!("a thread has failed")))
            };
            threads.into_iter().try_for_each(join)
        });
        shared.bar.finish_and_clear();
        ended?;
        let found = shared.found.into_inner().unwrap_or_else(PoisonError::into_inner);
        report(&mut running, &found, shared.stop.load(Ordering::Relaxed));
        running.finish()
    }

    fn plans(&self) -> VecDeque<Plan> {
        let of = |broker: Broker, lives: u32| {
            let sites = lives.div_ceil(LIVES_PER_SITE);
            (0..sites).map(move |site| (broker, (lives - site * LIVES_PER_SITE).min(LIVES_PER_SITE)))
        };
        let (embedded, mosquitto) = match self.mode {
            Mode::Embedded => (self.runs, 0),
            Mode::Mosquitto => (0, self.runs),
            Mode::Both => (self.runs - self.runs / 2, self.runs / 2),
        };
        let mut plans: Vec<_> = of(Broker::Embedded, embedded)
            .enumerate()
            .chain(of(Broker::Mosquitto, mosquitto).enumerate())
            .collect();
        // In turn, so that both kinds run beside each other.
        plans.sort_by_key(|(turn, _)| *turn);
        let plan = |(number, (_, (broker, lives))): (usize, (usize, (Broker, u32)))| Plan {
            broker,
            lives,
            seed: self.seed.wrapping_mul(1_000).wrapping_add(number as u64),
        };
        plans.into_iter().enumerate().map(plan).collect()
    }
}

impl Shared {
    fn work(&self, binary: &std::path::Path) -> Result<()> {
        while !self.stop.load(Ordering::Relaxed) {
            let plan = self
                .waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front();
            let Some(plan) = plan else { break };
            let next_life = |counts: &Counts| {
                self.bar.inc(1);
                let wrong = counts.violations().count();
                let acknowledged = counts.of(ledger::ACKNOWLEDGED);
                self.bar.set_message(format!(
                    "at this site: {acknowledged} acknowledged, {wrong} violations"
                ));
                !self.stop.load(Ordering::Relaxed)
            };
            let counts = campaign::run(plan, binary, next_life).inspect_err(|_| {
                // The other threads' sites are of no use any more.
                self.stop.store(true, Ordering::Relaxed);
            });
            let counts = counts.with_context(|| format!("a site with broker {:?}", plan.broker))?;
            let broker = match plan.broker {
                Broker::Embedded => "embedded broker",
                Broker::Mosquitto => "behind Mosquitto",
            };
            let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            found.merge(counts.of_site(broker));
        }
        Ok(())
    }
}

fn report(running: &mut Running, found: &Counts, interrupted: bool) {
    let sum = |part: &str| {
        let counts = found.all().filter(|(what, _)| what.contains(part));
        counts.map(|(_, number)| number).sum()
    };
    for what in FIRST {
        running.count(&format!("in all: {what}"), sum(&format!(": {what}")));
    }
    for (what, number) in found.all() {
        running.count(what, number);
    }
    for violation in found.violations() {
        running.violation(violation);
    }
    for note in NOTES {
        running.note(note);
    }
    if interrupted {
        running.interrupted();
    }
}

/// Sums over both brokers that stand first; each is the beginning of the names of some counts.
const FIRST: &[&str] = &[
    "kills",
    "accepted twice",
    "acknowledged and missing",
    "messages acknowledged",
    "replays published",
];

const NOTES: &[&str] = &[
    "Embedded: a successful PUBACK, and a message given to a subscriber, are the gateway's promise; each such message \
     must be in the database once, with its exact values. What the gateway said before it died is read to the end.",
    "Behind Mosquitto the gateway's acknowledgements are not seen by the device. There the claim is: once the gateway \
     has got through Mosquitto's queue, every message that Mosquitto had taken is in the database once, except those \
     older than 30 s when the gateway first saw them; these are made on purpose, and each is among the events as stale.",
    "Each life, a thief with the device's certificate and another client id sends all of the life before again, and 24 \
     older ones; every 200 lives and at the end everything since the site's start. 8 copies go through the devices' own connections.",
    "Half of the kills come 0 to 250 ms after the start (0 to 400 ms behind Mosquitto), a quarter 0 to 15 ms after it, a \
     quarter after 1 to 200 answers.",
    "A device's own sending can be refused when the thief's copy of a message that had no answer yet was accepted first.",
];
