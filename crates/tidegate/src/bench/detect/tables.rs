//! Classical tables of anomalies: mean area under the ROC curve, beside scikit-learn.

use super::{Options, in_python};
use crate::detection::measure::{auroc, mean};
use crate::detection::table::Matrix;
use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use tidegate_detect::forest::Kind;
use tidegate_detect::table::{Table, TableForest, TableOptions};

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Tables {
    seeds: u64,
    sets: Vec<Set>,
    plain: Option<f64>,
    oblique: Option<f64>,
    scikit_learn: Option<f64>,
}

/// One table; areas are means over seeds.
#[derive(Debug, Serialize)]
struct Set {
    name: String,
    plain: f64,
    oblique: f64,
    scikit_learn: Option<f64>,
}

pub(crate) fn run(folder: &Path, options: &Options) -> Result<Tables> {
    let peer: Option<BTreeMap<String, Vec<f64>>> = match &options.python {
        None => None,
        Some(python) => {
            let folder = folder.to_str().context("the folder's name is not UTF-8")?;
            let arguments = ["tables".into(), folder.into(), options.seeds.to_string()];
            Some(in_python(python, &arguments)?)
        }
    };
    let mut sets = Vec::new();
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "npz") {
            continue;
        }
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let scikit_learn = peer
            .as_ref()
            .and_then(|areas| mean(areas.get(&name)?.iter().copied()));
        sets.push(measure(&path, name, options.seeds, scikit_learn)?);
    }
    if sets.is_empty() {
        bail!("{} holds no .npz file", folder.display());
    }
    sets.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Tables {
        seeds: options.seeds,
        plain: mean(sets.iter().map(|set| set.plain)),
        oblique: mean(sets.iter().map(|set| set.oblique)),
        scikit_learn: mean(sets.iter().filter_map(|set| set.scikit_learn)),
        sets,
    })
}

fn measure(path: &Path, name: String, seeds: u64, scikit_learn: Option<f64>) -> Result<Set> {
    let matrix = Matrix::read(path, None)?;
    let labels = matrix.labels.as_ref();
    let labels = labels.with_context(|| format!("{} has no labels y", path.display()))?;
    let table = Table::new(&matrix.values, matrix.columns).with_context(|| path.display().to_string())?;
    let area = |kind: Kind| -> Result<f64> {
        let mut areas = Vec::new();
        for seed in 0..seeds {
            let scores = TableForest::fit(&table, &TableOptions::new(kind, seed))?.scores(&table)?;
            let of = |wanted: bool| -> Vec<f32> {
                let picked = scores.iter().zip(labels).filter(|(_, label)| **label == wanted);
                picked.map(|(score, _)| *score).collect()
            };
            areas.extend(auroc(&of(false), &of(true)));
        }
        mean(areas.into_iter()).with_context(|| format!("{} has labels of one kind only", path.display()))
    };
    Ok(Set {
        name,
        plain: area(Kind::Plain)?,
        oblique: area(Kind::Oblique)?,
        scikit_learn,
    })
}

impl Tables {
    pub(super) fn print(&self) {
        anstream::println!("Tables, area under the ROC curve, mean over {} seeds", self.seeds);
        anstream::println!(
            "  {:<24} {:>7} {:>8} {:>13}",
            "",
            "plain",
            "oblique",
            "scikit-learn"
        );
        let line = |name: &str, plain: Option<f64>, oblique: Option<f64>, peer: Option<f64>| {
            let number =
                |number: Option<f64>| number.map_or_else(|| "-".into(), |number| format!("{number:.4}"));
            anstream::println!(
                "  {name:<24} {:>7} {:>8} {:>13}",
                number(plain),
                number(oblique),
                number(peer)
            );
        };
        for set in &self.sets {
            line(&set.name, Some(set.plain), Some(set.oblique), set.scikit_learn);
        }
        line(
            &format!("mean of {}", self.sets.len()),
            self.plain,
            self.oblique,
            self.scikit_learn,
        );
    }
}
