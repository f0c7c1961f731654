//! `tidegate-prove fuzz`: many millions of inputs, and what must hold of each.
//!
//! `cargo fuzz` builds the targets of `fuzz/`; libFuzzer runs them. This file shares out the
//! executions, adds up what libFuzzer says, and keeps what it found.

mod libfuzzer;

use crate::progress::stop_on_interrupt;
use crate::report::Running;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use libfuzzer::{Found, Instance};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};

const CLAIM: &str = "Whatever bytes come, json-v1, cose-v1, the event stream's input, certificate requests and the \
     configuration are read without a crash, canonical forms are fixed points, MACs cover every byte, \
     certificates say what the registry says, and verifier and replay guard accept nothing twice, late or \
     forged.";
/// Where targets are built: apart from other builds, because everything in it is instrumented.
const BUILT_IN: &str = "target/fuzz";
/// Where corpora grow and inputs that were found are kept.
const WORK: &str = "target/fuzz-work";
/// Executions that every target gets at least: fewer say nothing.
const LEAST_RUNS: u64 = 20_000;

/// A target of `fuzz/`.
#[derive(Debug)]
struct Target {
    name: &'static str,
    /// Its part of all executions, in thousandths: much for what is fast and reads the most
    /// exposed input.
    share: u64,
    /// Longest input in bytes.
    max_length: u32,
    dictionary: Option<&'static str>,
    /// Whether it links the whole program, or the TLS library: both take minutes to build.
    program: bool,
}

const TARGETS: [Target; 7] = [
    Target {
        name: "json_v1",
        share: 340,
        max_length: 2_048,
        dictionary: Some("json"),
        program: false,
    },
    Target {
        name: "cose_v1",
        share: 340,
        max_length: 512,
        dictionary: None,
        program: false,
    },
    Target {
        name: "websocket",
        share: 200,
        max_length: 5_000,
        dictionary: Some("json"),
        program: false,
    },
    Target {
        name: "verify",
        share: 30,
        max_length: 1_024,
        dictionary: None,
        program: false,
    },
    Target {
        name: "configuration",
        share: 35,
        max_length: 8_192,
        dictionary: Some("configuration"),
        program: true,
    },
    Target {
        name: "registry",
        share: 35,
        max_length: 4_096,
        dictionary: Some("registry"),
        program: true,
    },
    Target {
        name: "enroll",
        share: 20,
        max_length: 4_096,
        dictionary: None,
        program: true,
    },
];

/// Give the parsers and checks millions of made-up inputs
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidegate-prove fuzz                                  100,000,000 executions over all targets
  tidegate-prove fuzz --target json_v1 --runs 1000000
  cargo fuzz run -s none --target-dir target/fuzz json_v1 FILE   one input that was found, again")]
pub(crate) struct Fuzz {
    /// Executions over all targets; each target gets at least 20,000
    #[arg(long, default_value_t = 100_000_000)]
    runs: u64,
    /// What the inputs are made of
    #[arg(long, default_value_t = 1)]
    seed: u32,
    /// Only this target; may be given several times
    #[arg(long = "target", value_name = "NAME", value_parser = TARGETS.map(|target| target.name))]
    targets: Vec<String>,
    /// Fuzzers at one time
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    jobs: u32,
    /// Where the sources are
    #[arg(long, default_value = ".", value_name = "FOLDER")]
    sources: PathBuf,
}

impl Fuzz {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let mut running = Running::start("fuzz", CLAIM, Some(u64::from(self.seed)));
        let targets = self.chosen();
        self.build(targets.iter().any(|target| target.program))?;
        let stop = stop_on_interrupt()?;
        let shares: u64 = targets.iter().map(|target| target.share).sum();
        let runs = |target: &Target| (self.runs * target.share / shares).max(LEAST_RUNS);
        let style = "{wide_bar} {percent} %  {elapsed} of {duration}  {msg}";
        let bar = ProgressBar::new(targets.iter().map(|target| runs(target)).sum())
            .with_style(ProgressStyle::with_template(style)?);
        let mut executions = 0;
        for target in targets {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let found = self.fuzz(target, runs(target), &bar, &stop)?;
            running.count(&format!("executions, {}", target.name), found.executions);
            running.count(&format!("edges covered, {}", target.name), found.edges);
            executions += found.executions;
            bar.set_position(executions);
            for crash in found.crashes {
                running.violation(format!("{}: {crash}", target.name));
            }
        }
        bar.finish_and_clear();
        running.count("executions", executions);
        if stop.load(Ordering::Relaxed) {
            running.interrupted();
        }
        running.finish()
    }

    fn chosen(&self) -> Vec<&'static Target> {
        let chosen =
            |target: &&Target| self.targets.is_empty() || self.targets.iter().any(|name| name == target.name);
        TARGETS.iter().filter(chosen).collect()
    }

    /// Builds the targets optimised, with debug assertions and overflow checks.
    fn build(&self, program: bool) -> Result<()> {
        let mut command = Command::new("cargo");
        command
            .args(["fuzz", "build", "--sanitizer", "none", "--codegen-units", "16"])
            .arg("--fuzz-dir")
            .arg(self.sources.join("fuzz"))
            .arg("--target-dir")
            .arg(self.sources.join(BUILT_IN));
        if program {
            command.args(["--features", "program"]);
        }
        let status = command.status().context("cannot run cargo")?;
        ensure!(
            status.success(),
            "cannot build the fuzz targets; `cargo install cargo-fuzz --locked` brings the builder"
        );
        Ok(())
    }

    fn fuzz(&self, target: &Target, runs: u64, bar: &ProgressBar, stop: &AtomicBool) -> Result<Found> {
        let work = self.sources.join(WORK).join(target.name);
        // A corpus that has grown in an earlier run would make this one another.
        if work.join("corpus").exists() {
            fs::remove_dir_all(work.join("corpus"))
                .with_context(|| format!("cannot clear {}", work.display()))?;
        }
        for folder in ["corpus", "found"] {
            let folder = work.join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let jobs = u64::from(self.jobs);
        let instances = (0..jobs).map(|job| {
            let mut command = Command::new(self.binary(target.name)?);
            command
                .arg(work.join("corpus"))
                .arg(self.sources.join("fuzz/corpus").join(target.name))
                .arg(format!("-artifact_prefix={}/", work.join("found").display()))
                .arg(format!("-runs={}", runs / jobs + u64::from(job < runs % jobs)))
                // 0 would let libFuzzer choose.
                .arg(format!("-seed={}", u64::from(self.seed) * jobs + job + 1))
                .arg(format!("-max_len={}", target.max_length))
                .args(["-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"]);
            if let Some(dictionary) = target.dictionary {
                let file = self.sources.join(format!("fuzz/dictionaries/{dictionary}.dict"));
                command.arg(format!("-dict={}", file.display()));
            }
            Instance::start(command)
        });
        let mut instances: Vec<_> = instances.collect::<Result<_>>()?;
        let before = bar.position();
        libfuzzer::watch(&mut instances, |executions, edges| {
            bar.set_position(before + executions);
            bar.set_message(format!(
                "{}: {}, {edges} edges",
                target.name,
                HumanCount(executions)
            ));
        });
        libfuzzer::end(instances, stop.load(Ordering::Relaxed))
    }

    fn binary(&self, name: &str) -> Result<PathBuf> {
        let built = self.sources.join(BUILT_IN);
        // Cargo fuzz builds for a target triple, whose name is the one folder that holds the binary.
        let folders =
            fs::read_dir(&built).with_context(|| format!("nothing was built in {}", built.display()))?;
        for folder in folders {
            let binary = folder?.path().join("release").join(name);
            if is_file(&binary) {
                return Ok(binary);
            }
        }
        bail!("the target {name} was not built in {}", built.display())
    }
}

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file())
}
