//! `tidegate bench`: measurements that anyone can rerun.

use crate::bench::{
    detect, durable, flood, footprint, handshake, latency, rate, revocation, scale, sessions, verification,
};
use crate::runtime;
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Commits of one message in a round of `durable`, some tenths of a second's worth.
const SINGLE_COMMITS: u32 = 200;

/// Measure this machine, beside Mosquitto and Python in the same run
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidegate bench verify
  tidegate bench scale --rounds 3
  tidegate bench latency --per-s 1000 --seconds 20
  tidegate bench rate --messages 200000 --json
  tidegate bench handshake --rounds 3
  tidegate bench revoke --sessions 500 --revocations 10
  tidegate bench detect --python venv/bin/python --data hotel --data hotel_hard

Each runs in a temporary folder on free ports, and touches nothing of yours.")]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: What,
    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    json: bool,
    /// Repetitions; median and spread are over them
    #[arg(long, global = true, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=100))]
    rounds: u8,
}

#[derive(Debug, Subcommand)]
enum What {
    /// All checks of json-v1 and cose-v1 on one core, stage by stage, beside Python
    Verify,
    /// Cost of a message and memory of a device, from ten registered devices to a million
    Scale {
        /// Most registered devices; a million take 2 GB of memory
        #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
        most: u32,
    },
    /// Messages per second from memory through all checks into the database, on one thread
    Durable {
        /// Messages in a round that are committed in groups
        #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1_000..=10_000_000))]
        messages: u32,
        /// Registered devices, which send in turn
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        devices: u32,
    },
    /// From publish to event, over mTLS with signature, commit and scoring
    Latency {
        /// Messages per second, of all devices together
        #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(50..=100_000))]
        per_s: u32,
        /// Length of a round
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3_600))]
        seconds: u32,
    },
    /// Messages per second through the embedded broker, beside Mosquitto
    Rate {
        /// Messages in a round
        #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(50..))]
        messages: u64,
        /// Publishing devices
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        devices: u32,
        /// Unacknowledged messages of one device at one time
        #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=256))]
        window: u16,
    },
    /// Memory with 12 simulated devices, and time to the first message on the page
    Footprint,
    /// TLS, mutual TLS and resumption up to CONNACK: rate, time and processor, beside Mosquitto
    Handshake {
        /// Handshakes of each kind in a round
        #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=5_000))]
        handshakes: u32,
        /// Clients that connect at one time
        #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=100))]
        concurrent: u32,
    },
    /// Memory of an idle session over mutual TLS, beside Mosquitto
    Sessions {
        /// Sessions, each of a device of its own
        #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=5_000))]
        sessions: u32,
        /// How long they are idle
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3_000))]
        seconds: u32,
    },
    /// From `certs revoke` to the closed session, with many sessions open
    Revoke {
        /// Sessions that are open all the time
        #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=5_000))]
        sessions: u32,
        /// Revocations in a round, one after the other
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=50))]
        revocations: u32,
    },
    /// Mute sockets and refused handshakes by the thousand, and what working devices notice of them
    Flood {
        /// Sockets in a round, a quarter of each kind
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(4..=100_000))]
        sockets: u32,
        /// Time in which they are opened, and length of the quiet time before
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
        seconds: u32,
        /// Devices that publish all the time
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        devices: u32,
        /// Messages per second, of all devices together
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(50..=10_000))]
        per_s: u32,
    },
    /// Cost of the isolation forest, and how well it does on labelled sets, beside scikit-learn
    Detect(Detection),
}

/// What is measured of detection.
#[derive(Debug, Args)]
struct Detection {
    /// Rows of the large fit
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1_000..=4_000_000))]
    rows: u32,
    /// A folder of labelled recordings; several are measured one by one
    #[arg(long, value_name = "FOLDER")]
    data: Vec<PathBuf>,
    /// A folder of .npz tables with X and y, as of ADBench
    #[arg(long, value_name = "FOLDER", env = detect::TABLES_VARIABLE)]
    tables: Option<PathBuf>,
    /// Seeds that each table is fitted with
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    seeds: u64,
    /// A Python with NumPy and scikit-learn, to measure beside it
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
}

impl Detection {
    fn options(&self, rounds: usize) -> detect::Options {
        detect::Options {
            rows: self.rows as usize,
            rounds,
            data: self.data.clone(),
            tables: self.tables.clone(),
            seeds: self.seeds,
            python: self.python.clone(),
        }
    }
}

impl What {
    /// How progress is shown.
    const fn template(&self) -> &'static str {
        match self {
            Self::Handshake { .. } | Self::Sessions { .. } | Self::Revoke { .. } | Self::Flood { .. } => {
                "{bar:30} {pos}/{len} {msg}, {elapsed} so far, {eta} to go"
            }
            _ => "{bar:30} round {pos}/{len}, {elapsed} so far, {eta} to go",
        }
    }
}

impl Bench {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let rounds = usize::from(self.rounds);
        let steps = match &self.what {
            What::Scale { most } => scale::Options { most: *most, rounds }.steps(),
            What::Detect(detection) => detection.options(rounds).steps(),
            _ => rounds,
        };
        let bar = progress_bar(steps as u64, self.what.template());
        let progress = |done: usize| bar.set_position(done as u64);
        let json = self.json;
        match self.what {
            What::Detect(detection) => {
                let report = detect::run(&detection.options(rounds), progress)?;
                show(json, &report, detect::Report::print, &bar)?;
            }
            What::Verify => show(
                json,
                &verification::run(rounds, progress)?,
                verification::Report::print,
                &bar,
            )?,
            What::Scale { most } => {
                let report = scale::run(scale::Options { most, rounds }, progress)?;
                show(json, &report, scale::Report::print, &bar)?;
            }
            What::Durable { messages, devices } => {
                let options = durable::Options {
                    devices,
                    messages,
                    singly: SINGLE_COMMITS,
                    rounds,
                };
                show(
                    json,
                    &durable::run(options, progress)?,
                    durable::Report::print,
                    &bar,
                )?;
            }
            What::Latency { per_s, seconds } => {
                let options = latency::Options {
                    devices: 50,
                    per_s,
                    seconds,
                    rounds,
                };
                let report = stoppable(latency::run(options, progress))?;
                show(json, &report, latency::Report::print, &bar)?;
            }
            What::Rate {
                messages,
                devices,
                window,
            } => {
                let messages = messages - messages % u64::from(devices);
                let options = rate::Options {
                    devices,
                    messages,
                    window: usize::from(window),
                    rounds,
                };
                let report = stoppable(rate::run(options, progress))?;
                show(json, &report, rate::Report::print, &bar)?;
            }
            What::Handshake {
                handshakes,
                concurrent,
            } => {
                let options = handshake::Options {
                    handshakes: handshakes as usize,
                    concurrent: concurrent as usize,
                    rounds,
                };
                let report = stoppable(handshake::run(options, &bar))?;
                show(json, &report, handshake::Report::print, &bar)?;
            }
            What::Sessions { sessions, seconds } => {
                let options = sessions::Options {
                    sessions,
                    idle: Duration::from_secs(u64::from(seconds)),
                    rounds,
                };
                let report = stoppable(sessions::run(options, &bar))?;
                show(json, &report, sessions::Report::print, &bar)?;
            }
            What::Revoke {
                sessions,
                revocations,
            } => {
                let options = revocation::Options {
                    sessions,
                    revocations,
                    rounds,
                };
                let report = stoppable(revocation::run(options, &bar))?;
                show(json, &report, revocation::Report::print, &bar)?;
            }
            What::Flood {
                sockets,
                seconds,
                devices,
                per_s,
            } => {
                let options = flood::Options {
                    sockets: sockets as usize,
                    seconds,
                    devices,
                    per_s,
                    rounds,
                };
                let report = stoppable(flood::run(options, &bar))?;
                show(json, &report, flood::Report::print, &bar)?;
            }
            What::Footprint => {
                let report = stoppable(footprint::run(rounds, progress))?;
                show(json, &report, footprint::Report::print, &bar)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn show<R: Serialize>(json: bool, report: &R, print: impl Fn(&R), bar: &ProgressBar) -> Result<()> {
    bar.finish_and_clear();
    if json {
        anstream::println!("{}", serde_json::to_string(report)?);
    } else {
        print(report);
    }
    Ok(())
}

/// Runs a benchmark that starts processes, with as many open files as there may be. Ctrl-C ends it, its
/// processes and its folder.
fn stoppable<R>(benchmark: impl Future<Output = Result<R>>) -> Result<R> {
    runtime::raise_open_files();
    runtime::tokio_runtime()?.block_on(async {
        tokio::select! {
            // Signals first: from the first step on, there is something to clean up.
            biased;
            asked = runtime::asked_to_stop() => {
                asked?;
                bail!("stopped before the end; nothing is left behind")
            }
            report = benchmark => report,
        }
    })
}

fn progress_bar(steps: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(steps);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}
