//! `tidegate bench`: measurements that anyone can rerun.

use crate::bench::{durable, footprint, latency, rate, scale, verification};
use crate::runtime;
use anyhow::Result;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::process::ExitCode;

/// Commits of one message in a round of `durable`, some tenths of a second's worth.
const SINGLE_COMMITS: u32 = 200;

/// Measure this machine, beside Mosquitto and Python in the same run
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidegate bench verify
  tidegate bench scale --rounds 3
  tidegate bench latency --per-s 1000 --seconds 20
  tidegate bench rate --messages 200000 --json

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
}

impl Bench {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let rounds = usize::from(self.rounds);
        let steps = match self.what {
            What::Scale { most } => scale::Options { most, rounds }.steps(),
            _ => rounds,
        };
        let bar = progress_bar(steps as u64);
        let progress = |done: usize| bar.set_position(done as u64);
        let json = self.json;
        match self.what {
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
                let report = runtime::tokio_runtime()?.block_on(latency::run(options, progress))?;
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
                let report = runtime::tokio_runtime()?.block_on(rate::run(options, progress))?;
                show(json, &report, rate::Report::print, &bar)?;
            }
            What::Footprint => {
                let report = runtime::tokio_runtime()?.block_on(footprint::run(rounds, progress))?;
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

fn progress_bar(rounds: u64) -> ProgressBar {
    let bar = ProgressBar::new(rounds);
    let style = ProgressStyle::with_template("{bar:30} round {pos}/{len}, {elapsed} so far, {eta} to go");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.enable_steady_tick(std::time::Duration::from_millis(500));
    bar
}
