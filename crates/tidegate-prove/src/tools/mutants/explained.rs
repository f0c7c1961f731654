//! Mutants that no test can notice, each with the reason.

use super::outcomes::Mutant;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The committed list.
#[derive(Debug)]
pub(super) struct Explained {
    list: List,
    sources: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default, rename = "mutant")]
    mutants: Vec<Explanation>,
}

/// One of them. Lines move, so it is not named by their number.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Explanation {
    file: String,
    /// As `cargo mutants` names it: `replace < with <= in within`.
    change: String,
    /// The line that is changed, without the space around it: a function may hold several.
    line: String,
    /// Why the program does the same after it.
    reason: String,
}

impl Explained {
    /// Reads `file` in `sources`, which hold what is to be changed, too.
    pub(super) fn read(sources: &Path, file: &str) -> Result<Self> {
        let path = sources.join(file);
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let list = toml::from_str(&text)
            .with_context(|| format!("{} is no list of explained mutants", path.display()))?;
        Ok(Self {
            list,
            sources: sources.into(),
        })
    }

    /// Why this mutant changes nothing, where that is known.
    pub(super) fn reason(&self, mutant: &Mutant) -> Option<&str> {
        let mut explanations = self.list.mutants.iter();
        let explanation = explanations.find(|explanation| self.explains(explanation, mutant))?;
        Some(&explanation.reason)
    }

    /// Explanations of what is not there any more.
    pub(super) fn without_mutant(&self, all: &[Mutant]) -> Vec<String> {
        let names_none =
            |explanation: &&Explanation| !all.iter().any(|mutant| self.explains(explanation, mutant));
        let stale = self.list.mutants.iter().filter(names_none);
        stale
            .map(|explanation| format!("{}: {}", explanation.file, explanation.change))
            .collect()
    }

    fn explains(&self, explanation: &Explanation, mutant: &Mutant) -> bool {
        explanation.file == mutant.file
            && explanation.change == mutant.change()
            && self.line(mutant).as_deref() == Some(&explanation.line)
    }

    fn line(&self, mutant: &Mutant) -> Option<String> {
        let text = std::fs::read_to_string(self.sources.join(&mutant.file)).ok()?;
        let line = text.lines().nth(mutant.span.start.line.checked_sub(1)?)?;
        Some(line.trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::super::outcomes::{Position, Span};
    use super::*;

    fn mutant(file: &str, line: usize, change: &str) -> Mutant {
        Mutant {
            file: file.into(),
            name: format!("{file}:{line}:5: {change}"),
            span: Span {
                start: Position { line },
            },
        }
    }

    #[test]
    fn explanation_holds_for_its_file_line_and_change_only() {
        let sources = tempfile::tempdir().unwrap();
        for file in ["a.rs", "b.rs"] {
            std::fs::write(sources.path().join(file), "fn f() {\n    a < b\n    c < d\n}\n").unwrap();
        }
        let text = "[[mutant]]\nfile = \"a.rs\"\nchange = \"replace < with <= in f\"\nline = \"a < b\"\nreason = \"never equal\"\n";
        std::fs::write(sources.path().join("list.toml"), text).unwrap();
        let explained = Explained::read(sources.path(), "list.toml").unwrap();
        let right = mutant("a.rs", 2, "replace < with <= in f");
        assert_eq!(explained.reason(&right), Some("never equal"));
        for other in [
            mutant("b.rs", 2, "replace < with <= in f"),
            mutant("a.rs", 3, "replace < with <= in f"),
            mutant("a.rs", 2, "replace < with == in f"),
            mutant("a.rs", 9, "replace < with <= in f"),
        ] {
            assert_eq!(explained.reason(&other), None, "{}", other.name);
            assert_eq!(
                explained.without_mutant(&[other]),
                ["a.rs: replace < with <= in f"]
            );
        }
        assert!(explained.without_mutant(&[right]).is_empty());
    }
}
