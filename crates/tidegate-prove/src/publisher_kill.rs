//! Kills a publisher thousands of times over one device folder: no sequence number is used twice.
//!
//! The publisher is this very program, started again with `--child`. Two lives of three sign and
//! count at full speed and tell each number through a pipe; every third runs the whole publisher
//! over a socket, and what counts is what a broker received. `kill -9` comes at a random moment,
//! often while the next block is being reserved, which is where most of the time goes. Simulated
//! power cuts ([`power_cut`]) follow, since a kill leaves the page cache alone.

mod child;
mod ledger;
mod power_cut;
mod wire;

use self::child::Way;
use self::ledger::{Ledger, Life};
use self::wire::Wire;
use crate::report::Running;
use anyhow::{Context, Result};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use tidegate_device::sequence::BLOCK;

/// Longest life after the first number has left the process.
const LIFE: Duration = Duration::from_millis(30);
/// Longest life of those that are killed while they start.
const START: Duration = Duration::from_millis(12);
/// One life of so many is killed while it starts.
const STARTS: u32 = 4;
/// How long a start may take before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks at whether it still lives.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// SIGINT. Ctrl-C reaches the publisher too.
const INTERRUPT: i32 = 2;
/// The publisher's state, its lock, and one half-made successor.
const MAX_FILES: usize = 3;

/// Kill a publisher: no sequence number is ever used twice, and one write serves 1,024 messages
#[derive(Debug, Args)]
pub(crate) struct PublisherKill {
    /// How often to kill
    #[arg(long, default_value_t = 10_000)]
    runs: u64,
    /// Simulated power cuts, for each kill
    #[arg(long, default_value_t = 10)]
    cuts_per_kill: u64,
    /// What the random choices start from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Be the publisher that is killed, with its state in this folder
    #[arg(long, hide = true, value_name = "FOLDER")]
    child: Option<PathBuf>,
    /// The broker of a `--child` that publishes
    #[arg(long, hide = true, value_name = "PORT")]
    port: Option<u16>,
}

impl PublisherKill {
    pub(crate) fn run(self) -> Result<ExitCode> {
        if let Some(folder) = &self.child {
            child::live(folder, self.port.map_or(Way::Pipe, Way::Broker))?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut report = Running::start(
            "publisher-kill",
            "Through kills and power cuts at any moment, a publisher never uses a sequence number twice, \
             its start counter rises, and it writes at most once per start and once per 1,024 messages.",
            Some(self.seed),
        );
        let wire = Wire::open()?;
        let folder = tempfile::tempdir().context("cannot make a folder for the device")?;
        let mut ledger = self.kills(folder.path(), &wire)?;
        let cuts = self.runs.saturating_mul(self.cuts_per_kill);
        let cuts = power_cut::prove(cuts, self.seed, &wire.stopped);
        if wire.stopped() {
            report.interrupted();
        }
        // The broker has by now read what was in a socket when its publisher died.
        ledger.enter_late(wire.close());
        ledger.report(&mut report);
        cuts.report(&mut report);
        report.note(
            "A number counts as used when it leaves the process: through the pipe, or in a PUBLISH that \
             the broker read. Writes are counted by what they reserved on the disk, not by what the \
             publisher says.",
        );
        report.finish()
    }

    fn kills(&self, folder: &Path, wire: &Wire) -> Result<Ledger> {
        let mut random = StdRng::seed_from_u64(self.seed);
        let mut ledger = Ledger::default();
        let progress = bar(self.runs, "kills")?;
        for run in 0..self.runs {
            if wire.stopped() {
                break;
            }
            let way = if run % 3 == 2 {
                Way::Broker(wire.port)
            } else {
                Way::Pipe
            };
            let moment = if random.random_ratio(1, STARTS) {
                Moment::WhileItStarts(random.random_range(Duration::ZERO..START))
            } else {
                Moment::AfterTheFirst(random.random_range(Duration::ZERO..LIFE))
            };
            let lived = live_and_die(folder, wire, way, moment)?;
            if wire.stopped() {
                // The publisher may have felt the same Ctrl-C.
                break;
            }
            let life = Life {
                told: lived.told,
                sent: wire.take(),
                failed: lived.failed,
                state: ledger::State::read(&child::state(folder))?,
                files: fs::read_dir(folder)?.count(),
                torn: child::next_state(folder).exists(),
            };
            ledger.enter(life);
            progress.set_message(ledger.summary());
            progress.inc(1);
        }
        progress.finish_and_clear();
        Ok(ledger)
    }
}

/// A progress bar of `length` things.
fn bar(length: u64, what: &'static str) -> Result<ProgressBar> {
    let style = ProgressStyle::with_template(&format!(
        "{{wide_bar}} {{pos}}/{{len}} {what} {{msg}} {{elapsed}} of {{duration}}"
    ))?;
    Ok(ProgressBar::new(length).with_style(style))
}

/// When a publisher is killed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// So long after the process was made.
    WhileItStarts(Duration),
    /// So long after its first number has left it.
    AfterTheFirst(Duration),
}

/// What one life left behind.
struct Lived {
    /// What came through the pipe.
    told: Vec<u8>,
    /// What it said when it ended by itself, or that it hung.
    failed: Option<String>,
}

fn live_and_die(folder: &Path, wire: &Wire, way: Way, moment: Moment) -> Result<Lived> {
    let mut command = Command::new(std::env::current_exe().context("this program has no path")?);
    command.arg("publisher-kill").arg("--child").arg(folder);
    if let Way::Broker(port) = way {
        command.arg("--port").arg(port.to_string());
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start the publisher")?;
    let pipe = child.stdout.take().context("the publisher has no pipe")?;
    let (first, first_told) = mpsc::channel();
    let reader = thread::spawn(move || read_all(pipe, &first));
    let mut hung = None;
    match moment {
        Moment::WhileItStarts(after) => thread::sleep(after),
        Moment::AfterTheFirst(after) => {
            let has_begun = || match way {
                Way::Pipe => first_told.recv_timeout(LOOK_EVERY).is_ok(),
                Way::Broker(_) => wire.has_received(LOOK_EVERY),
            };
            let born = Instant::now();
            // The pipe ends where it has died by itself, which shows below.
            while !reader.is_finished() && hung.is_none() {
                if has_begun() {
                    thread::sleep(after);
                    break;
                }
                hung = (born.elapsed() > PATIENCE).then(|| format!("it sent nothing for {PATIENCE:?}"));
            }
        }
    }
    let failed = end(&mut child)?.or(hung);
    let told = reader.join().expect("the reader does not panic")?;
    Ok(Lived { told, failed })
}

/// Everything until the pipe ends; tells when the first of it comes.
fn read_all(mut pipe: impl Read, first: &mpsc::Sender<()>) -> std::io::Result<Vec<u8>> {
    let mut told = Vec::new();
    let mut piece = [0; 64 * 1_024];
    loop {
        match pipe.read(&mut piece)? {
            0 => return Ok(told),
            length => told.extend_from_slice(&piece[..length]),
        }
        // Nobody listens when it is killed while it starts.
        let _ = first.send(());
    }
}

/// Kills it. What it said, if it had ended before.
fn end(child: &mut Child) -> Result<Option<String>> {
    let ended = child.try_wait()?;
    if ended.is_none_or(|status| status.signal() == Some(INTERRUPT)) {
        child.kill().context("cannot kill the publisher")?;
        child.wait()?;
        return Ok(None);
    }
    let mut said = String::new();
    if let Some(mut pipe) = child.stderr.take() {
        pipe.read_to_string(&mut said)?;
    }
    Ok(Some(said.trim().to_owned()))
}

/// How many writes a publisher may make for so many numbers in one life.
const fn writes_allowed(numbers: u64) -> u64 {
    1 + numbers / BLOCK
}
