//! What a proof found: kept as JSON beside the build, and written together as one document.

use anyhow::{Context, Result};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

/// Where proofs leave their reports.
const FOLDER: &str = "target/prove";

/// One finished proof.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The proof's name, as on the command line.
    pub(crate) name: String,
    /// The claim, as one sentence.
    pub(crate) claim: String,
    /// The command line that ran it.
    command: String,
    /// What its random choices started from, where it makes any.
    pub(crate) seed: Option<u64>,
    /// What was counted, in the order of interest.
    pub(crate) counts: Vec<(String, u64)>,
    /// What went against the claim; empty when it held.
    pub(crate) violations: Vec<String>,
    /// What the counts do not say: limits, and how they are known.
    pub(crate) notes: Vec<String>,
    /// Whether it was stopped before its end.
    interrupted: bool,
    seconds: u64,
    /// Commit of the tree, with `+` when it was changed since.
    tree: String,
    /// UTC date of the run.
    date: String,
}

/// How a proof ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Held,
    DidNotHold,
    Interrupted,
}

impl Report {
    fn verdict(&self) -> Verdict {
        if !self.violations.is_empty() {
            Verdict::DidNotHold
        } else if self.interrupted {
            Verdict::Interrupted
        } else {
            Verdict::Held
        }
    }
}

/// A proof that is under way.
#[derive(Debug)]
pub(crate) struct Running {
    report: Report,
    started: Instant,
}

impl Running {
    /// Starts the clock.
    pub(crate) fn start(name: &str, claim: &str, seed: Option<u64>) -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let report = Report {
            name: name.into(),
            claim: claim.into(),
            command: format!("tidegate-prove {}", arguments.join(" ")),
            seed,
            counts: Vec::new(),
            violations: Vec::new(),
            notes: Vec::new(),
            interrupted: false,
            seconds: 0,
            tree: tree(),
            date: output("date", &["-u", "+%Y-%m-%d"]),
        };
        Self {
            report,
            started: Instant::now(),
        }
    }

    /// Adds a figure.
    pub(crate) fn count(&mut self, what: &str, number: u64) {
        self.report.counts.push((what.into(), number));
    }

    /// Adds something that went against the claim.
    pub(crate) fn violation(&mut self, what: String) {
        self.report.violations.push(what);
    }

    /// Adds what the figures do not say.
    pub(crate) fn note(&mut self, what: &str) {
        self.report.notes.push(what.into());
    }

    /// It was stopped before its end: what it has seen is not the whole proof.
    pub(crate) fn interrupted(&mut self) {
        self.report.interrupted = true;
    }

    /// Keeps the report, shows it, and says whether the claim held.
    pub(crate) fn finish(mut self) -> Result<ExitCode> {
        self.report.seconds = self.started.elapsed().as_secs();
        let folder = Path::new(FOLDER);
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {FOLDER}"))?;
        let path = folder.join(format!("{}.json", self.report.name));
        std::fs::write(&path, serde_json::to_string_pretty(&self.report)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        for (what, number) in &self.report.counts {
            anstream::println!("{number:>14}  {what}");
        }
        for violation in &self.report.violations {
            anstream::println!("VIOLATION: {violation}");
        }
        let (verdict, code) = match self.report.verdict() {
            Verdict::Held => ("held", ExitCode::SUCCESS),
            Verdict::DidNotHold => ("DID NOT HOLD", ExitCode::FAILURE),
            // As a shell says of a program that Ctrl-C has ended.
            Verdict::Interrupted => (
                "interrupted; nothing against the claim so far",
                ExitCode::from(130),
            ),
        };
        anstream::println!("{}: {verdict} ({} s)", self.report.name, self.report.seconds);
        Ok(code)
    }
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

fn tree() -> String {
    let commit = output("git", &["rev-parse", "--short", "HEAD"]);
    let changed = !output("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty();
    format!("{commit}{}", if changed { "+" } else { "" })
}

/// Write the reports of all proofs as one document
#[derive(Debug, Args)]
pub(crate) struct Write {
    /// Where to
    #[arg(long, default_value = "docs/proofs.md")]
    out: PathBuf,
}

impl Write {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let mut reports = BTreeMap::new();
        let entries = std::fs::read_dir(FOLDER).with_context(|| format!("no proof has run: no {FOLDER}"))?;
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let text = std::fs::read_to_string(&path)?;
                let report: Report = serde_json::from_str(&text)
                    .with_context(|| format!("{} is no report", path.display()))?;
                reports.insert(report.name.clone(), report);
            }
        }
        let mut text = String::from(
            "# Proofs\n\nWritten by `make prove`: each proof is a command that anyone can run again, with its seed.\n",
        );
        for report in reports.values() {
            describe(report, &mut text)?;
        }
        std::fs::write(&self.out, text).with_context(|| format!("cannot write {}", self.out.display()))?;
        anstream::println!("{} proofs in {}", reports.len(), self.out.display());
        Ok(ExitCode::SUCCESS)
    }
}

fn describe(report: &Report, text: &mut String) -> std::fmt::Result {
    let verdict = match report.verdict() {
        Verdict::Held => "Held.",
        Verdict::DidNotHold => "**Did not hold.**",
        Verdict::Interrupted => "**Interrupted**; nothing against it so far.",
    };
    write!(text, "\n## {}\n\n{} {verdict}\n\n", report.name, report.claim)?;
    writeln!(text, "    {}\n", report.command)?;
    writeln!(text, "| what | count |\n|---|---:|")?;
    for (what, number) in &report.counts {
        writeln!(text, "| {what} | {number} |")?;
    }
    let seed = report
        .seed
        .map_or_else(String::new, |seed| format!(", seed {seed}"));
    let (date, tree, seconds) = (&report.date, &report.tree, report.seconds);
    writeln!(text, "\n{date}, tree {tree}{seed}, {seconds} s.")?;
    for line in report.violations.iter().chain(&report.notes) {
        writeln!(text, "\n- {line}")?;
    }
    Ok(())
}
