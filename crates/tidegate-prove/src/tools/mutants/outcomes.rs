//! What `cargo mutants` writes: its list of mutants, and `outcomes.json`.

use anyhow::{Context, Result};
use serde::Deserialize;
use std::path::Path;

/// One change to the sources.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Mutant {
    /// Relative to the sources, with `/`.
    pub(super) file: String,
    /// File, line, column and what is changed.
    pub(super) name: String,
    pub(super) span: Span,
}

/// Where the change is.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Span {
    pub(super) start: Position,
}

/// A place in a file; the first line is 1.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Position {
    pub(super) line: usize,
}

impl Mutant {
    /// What is changed, without the line, which moves: `replace < with <= in within`.
    pub(super) fn change(&self) -> &str {
        let rest = self.name.strip_prefix(&self.file).unwrap_or(&self.name);
        rest.split_once(": ").map_or(rest, |(_, change)| change)
    }
}

/// What became of all that were tested so far.
#[derive(Debug, Deserialize)]
pub(super) struct Outcomes {
    outcomes: Vec<Outcome>,
}

#[derive(Debug, Deserialize)]
struct Outcome {
    scenario: Scenario,
    summary: Summary,
}

/// What was tested.
#[derive(Debug, Deserialize)]
enum Scenario {
    /// The sources as they are.
    Baseline,
    Mutant(Mutant),
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum Summary {
    Success,
    CaughtMutant,
    MissedMutant,
    Timeout,
    Unviable,
    Failure,
}

impl Outcomes {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text)
            .with_context(|| format!("{} has another form than expected", path.display()))
    }

    pub(super) fn baseline_passed(&self) -> bool {
        let mut baselines = self
            .outcomes
            .iter()
            .filter(|outcome| matches!(outcome.scenario, Scenario::Baseline));
        baselines.all(|outcome| outcome.summary == Summary::Success)
    }

    /// How many mutants there are with this outcome.
    pub(super) fn count(&self, summary: Summary) -> u64 {
        self.mutants().filter(|(_, outcome)| *outcome == summary).count() as u64
    }

    pub(super) fn tested(&self) -> u64 {
        self.mutants().count() as u64
    }

    /// The mutants that no test has noticed.
    pub(super) fn missed(&self) -> impl Iterator<Item = &Mutant> {
        let missed = self
            .mutants()
            .filter(|(_, summary)| *summary == Summary::MissedMutant);
        missed.map(|(mutant, _)| mutant)
    }

    fn mutants(&self) -> impl Iterator<Item = (&Mutant, Summary)> {
        self.outcomes
            .iter()
            .filter_map(|outcome| match &outcome.scenario {
                Scenario::Mutant(mutant) => Some((mutant, outcome.summary)),
                Scenario::Baseline => None,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As version 27.1 writes it, without the members that are not read.
    const WRITTEN: &str = r#"{"outcomes": [
        {"scenario": "Baseline", "summary": "Success", "log_path": "log/baseline.log"},
        {"scenario": {"Mutant": {"file": "a/b.rs", "name": "a/b.rs:4:2: replace < with <= in f",
            "span": {"start": {"line": 4, "column": 2}, "end": {"line": 4, "column": 3}}}},
         "summary": "CaughtMutant"},
        {"scenario": {"Mutant": {"file": "a/b.rs", "name": "a/b.rs:9:2: replace g -> bool with true",
            "span": {"start": {"line": 9, "column": 2}, "end": {"line": 9, "column": 6}}}},
         "summary": "MissedMutant"}
    ], "total_mutants": 2}"#;

    #[test]
    fn missed_mutant_is_told_from_a_caught_one_and_from_the_baseline() {
        let outcomes: Outcomes = serde_json::from_str(WRITTEN).unwrap();
        assert!(outcomes.baseline_passed());
        assert_eq!((outcomes.tested(), outcomes.count(Summary::CaughtMutant)), (2, 1));
        let missed: Vec<_> = outcomes.missed().map(Mutant::change).collect();
        assert_eq!(missed, ["replace g -> bool with true"]);
    }

    #[test]
    fn failing_baseline_is_seen() {
        let failing = WRITTEN.replace(r#""summary": "Success""#, r#""summary": "Failure""#);
        let outcomes: Outcomes = serde_json::from_str(&failing).unwrap();
        assert!(!outcomes.baseline_passed());
    }
}
