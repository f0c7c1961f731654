//! `tidegate-prove model`: every order of events within bounds, against the real checks.
//!
//! `stateright` walks through all states that devices, a broker, an attacker, a disk and clocks
//! can reach together. The gateway among them is no model: it is the verifier and the replay
//! guard that run in production, fed with messages that are really signed.

mod coverage;
mod devices;
mod disk;
mod events;
mod world;

use crate::progress::stop_on_interrupt;
use crate::report::Running;
use anyhow::Result;
use clap::Args;
use coverage::MUST_BE_REACHED;
use events::{Event, SETTINGS, Setting};
use indicatif::{ProgressBar, ProgressStyle};
use stateright::{Checker, HasDiscoveries, Model as _, Path};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use world::{Broken, State, World};

const CLAIM: &str = "In every order of sending, redelivery, replay, clock change, crash and failed commit within the \
     bounds, no message is accepted twice or outside the window, what is acknowledged or released is \
     durable, a refusal changes nothing, and nobody is locked out.";
/// How often progress is shown.
const PROGRESS: Duration = Duration::from_millis(200);

/// Explore every order of events within bounds, against the real checks
#[derive(Debug, Args)]
pub(crate) struct Model {
    /// Stop each setting after so many states; without it every state is visited
    #[arg(long)]
    runs: Option<usize>,
    /// What the devices' keys are made of; the order of visiting has no chance in it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Take bounds that take seconds
    #[arg(long)]
    small: bool,
    /// Threads
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

impl Model {
    pub(crate) fn run(self) -> Result<std::process::ExitCode> {
        let mut running = Running::start("model", CLAIM, Some(self.seed));
        let stop = stop_on_interrupt()?;
        let (mut states, mut unique, mut depth) = (0, 0, 0);
        let coverage = Arc::new(coverage::Coverage::default());
        let bar = ProgressBar::no_length().with_style(
            ProgressStyle::with_template("{spinner} {elapsed} {msg}").expect("the template is sound"),
        );
        for setting in &SETTINGS {
            let bounds = setting.bounds(self.small);
            let world = World::new(
                setting,
                bounds,
                self.seed,
                Arc::clone(&coverage),
                Arc::clone(&stop),
            );
            let explored = self.explore(setting, world, &bar);
            running.count(&format!("states, {}", setting.name), explored.unique);
            if explored.panicked > 0 {
                running.violation(format!("{}: a panic", setting.name));
            }
            for (broken, path) in &explored.counterexamples {
                running.violation(format!("{}: {broken}: {path}", setting.name));
            }
            states += explored.states;
            unique += explored.unique;
            depth = depth.max(explored.depth);
        }
        bar.finish_and_clear();
        running.count("states visited, each time counted", states);
        running.count("states visited, each once", unique);
        running.count("events in the longest order", depth);
        for (what, times) in coverage.counts() {
            running.count(&format!("times reached: {what}"), times);
        }
        if stop.load(Ordering::Relaxed) {
            running.interrupted();
        } else if self.runs.is_none() {
            for what in MUST_BE_REACHED.iter().filter(|what| coverage.times(what) == 0) {
                running.violation(format!("{what} was never reached, so nothing is shown about it"));
            }
        } else {
            running.note("Stopped before every state was visited.");
        }
        let bounds: Vec<_> = SETTINGS
            .iter()
            .map(|setting| setting.described(self.small))
            .collect();
        running.note(&format!(
            "At most so often in each order, with deliveries, commits and acknowledgements as often as possible: {}.",
            bounds.join("; ")
        ));
        running.finish()
    }

    fn explore(&self, setting: &Setting, world: World, bar: &ProgressBar) -> Explored {
        let name = setting.name;
        let mut checker = world
            .checker()
            .threads(self.jobs)
            .finish_when(HasDiscoveries::AnyFailures);
        if let Some(runs) = self.runs {
            checker = checker.target_state_count(runs);
        }
        let mut checker = checker.spawn_bfs();
        let threads = checker.handles();
        while !threads.iter().all(std::thread::JoinHandle::is_finished) {
            bar.set_message(format!(
                "{name}: {} states, depth {}",
                checker.unique_state_count(),
                checker.max_depth()
            ));
            bar.tick();
            std::thread::park_timeout(PROGRESS);
        }
        let panicked = threads
            .into_iter()
            .filter_map(|thread| thread.join().err())
            .count();
        Explored {
            panicked,
            states: checker.state_count() as u64,
            unique: checker.unique_state_count() as u64,
            // The state before the first event counts for stateright.
            depth: checker.max_depth().saturating_sub(1) as u64,
            counterexamples: Broken::ALL
                .into_iter()
                .filter_map(|broken| Some((broken, described(checker.discovery(broken.name())?))))
                .collect(),
        }
    }
}

struct Explored {
    /// Threads that ended so, within the gateway or the model; the message is on standard error.
    panicked: usize,
    states: u64,
    unique: u64,
    depth: u64,
    counterexamples: Vec<(Broken, String)>,
}

/// The events that lead to a state, in order.
fn described(path: Path<State, Event>) -> String {
    let events: Vec<_> = path
        .into_actions()
        .iter()
        .map(|event| format!("{event:?}"))
        .collect();
    events.join(", ")
}
