//! Detection: what it costs, beside scikit-learn, and how well it does on labelled sets.

pub(super) mod quality;
pub(super) mod speed;
pub(super) mod tables;

use anyhow::{Context, Result, bail};
use quality::Quality;
use serde::Serialize;
use serde::de::DeserializeOwned;
use speed::Speed;
use std::path::{Path, PathBuf};
use std::process::Command;
use tables::Tables;

/// The same measurements with scikit-learn.
const PEER: &str = include_str!("detect_peer.py");
/// Names the folder with ADBench's `.npz` files, which are not ours to pass on.
pub(crate) const TABLES_VARIABLE: &str = "TIDEGATE_ADBENCH";

/// What to measure.
pub(crate) struct Options {
    /// Rows of the large fit.
    pub(crate) rows: usize,
    pub(crate) rounds: usize,
    /// Folders with labelled recordings.
    pub(crate) data: Vec<PathBuf>,
    /// A folder with `.npz` files.
    pub(crate) tables: Option<PathBuf>,
    /// Seeds that the tables are fitted with.
    pub(crate) seeds: u64,
    /// A Python that has scikit-learn.
    pub(crate) python: Option<PathBuf>,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    speed: Speed,
    quality: Vec<Quality>,
    tables: Option<Tables>,
}

/// Measures all of it; `progress` is told after each step.
pub(crate) fn run(options: &Options, progress: impl Fn(usize)) -> Result<Report> {
    let mut done = 0;
    let mut step = || {
        done += 1;
        progress(done);
    };
    let speed = speed::run(options, &mut step)?;
    let mut quality = Vec::new();
    for folder in &options.data {
        quality.push(quality::run(folder)?);
        step();
    }
    let tables = match &options.tables {
        Some(folder) => Some(tables::run(folder, options)?),
        None => None,
    };
    step();
    Ok(Report {
        speed,
        quality,
        tables,
    })
}

impl Options {
    /// How often [`run`] tells of a step.
    pub(crate) fn steps(&self) -> usize {
        self.rounds + self.data.len() + 2
    }
}

impl Report {
    /// The report for people.
    pub(crate) fn print(&self) {
        self.speed.print();
        for quality in &self.quality {
            quality.print();
        }
        match &self.tables {
            Some(tables) => tables.print(),
            None => anstream::println!("Tables: {TABLES_VARIABLE} names no folder, so there are none"),
        }
    }
}

/// Runs the peer, and reads what it prints as JSON.
fn in_python<T: DeserializeOwned>(python: &Path, arguments: &[String]) -> Result<T> {
    let output = Command::new(python)
        .args(["-c", PEER])
        .args(arguments)
        .output()
        .with_context(|| format!("cannot start {}", python.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "scikit-learn under {} failed: {}",
            python.display(),
            said.lines().last().unwrap_or_default()
        );
    }
    serde_json::from_slice(&output.stdout).context("the Python peer does not print JSON")
}
