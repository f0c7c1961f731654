//! Mutants that no test can notice, each with the reason.

use super::outcomes::Mutant;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::path::Path;

/// The committed list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Explained {
    #[serde(default, rename = "mutant")]
    mutants: Vec<Explanation>,
}

/// One of them. Lines move, so it is named by its file and change.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Explanation {
    file: String,
    /// As `cargo mutants` names it: `replace < with <= in within`.
    change: String,
    /// Why the program does the same after it.
    reason: String,
}

impl Explained {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} is no list of explained mutants", path.display()))
    }

    /// Why this mutant changes nothing, where that is known.
    pub(super) fn reason(&self, mutant: &Mutant) -> Option<&str> {
        let explanation = self
            .mutants
            .iter()
            .find(|explanation| explanation.explains(mutant));
        explanation.map(|explanation| explanation.reason.as_str())
    }

    /// Explanations of what is not there any more.
    pub(super) fn without_mutant(&self, all: &[Mutant]) -> Vec<String> {
        let stale = self
            .mutants
            .iter()
            .filter(|explanation| !all.iter().any(|mutant| explanation.explains(mutant)));
        stale
            .map(|explanation| format!("{}: {}", explanation.file, explanation.change))
            .collect()
    }
}

impl Explanation {
    fn explains(&self, mutant: &Mutant) -> bool {
        self.file == mutant.file && self.change == mutant.change()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutant(file: &str, change: &str) -> Mutant {
        Mutant {
            file: file.into(),
            name: format!("{file}:12:5: {change}"),
        }
    }

    #[test]
    fn explanation_holds_for_its_file_and_change_only() {
        let text =
            "[[mutant]]\nfile = \"a.rs\"\nchange = \"replace < with <= in f\"\nreason = \"never equal\"\n";
        let explained: Explained = toml::from_str(text).unwrap();
        let right = mutant("a.rs", "replace < with <= in f");
        assert_eq!(explained.reason(&right), Some("never equal"));
        for other in [
            mutant("b.rs", "replace < with <= in f"),
            mutant("a.rs", "replace < with <= in g"),
        ] {
            assert_eq!(explained.reason(&other), None);
            assert_eq!(
                explained.without_mutant(&[other]),
                ["a.rs: replace < with <= in f"]
            );
        }
        assert!(explained.without_mutant(&[right]).is_empty());
    }
}
