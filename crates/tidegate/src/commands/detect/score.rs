//! `tidegate detect score`: a file's scores, for others to judge.

use super::options::{Features, ForestFlags};
use crate::detection::recording::Recording;
use crate::detection::rows::Rows;
use crate::detection::table::Matrix;
use anyhow::{Context, Result, bail};
use clap::Args;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidegate_detect::model::Model;
use tidegate_detect::scorer::Scorer;
use tidegate_detect::table::{Table, TableForest, TableOptions};
use tidegate_detect::train::{Alarms, TrainOptions, TrainingData, fit};
use tidegate_envelope::time::Timestamp;

/// The false-alarm rate of a threshold that is not used: whoever reads the scores sets one.
const UNUSED_RATE: f64 = 1e-3;
/// Readings that are fitted at most, about a gigabyte.
const MOST_FITTED: usize = 5_000_000;

/// Fit on some rows of a file and write a score for each, for others to judge
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidegate detect score hotel_101.csv.gz --fit-rows 0..17280 --scores hotel_101.scores
  tidegate detect score plant.csv --fit-rows 0..5000 --columns flow,level --scores plant.scores
  tidegate detect score cardio.npz --features raw --forest plain --scores cardio.scores

The scores are one little-endian f64 a row, above 0, higher is more anomalous; in Python:
numpy.fromfile(\"cardio.scores\", \"<f8\").

With stream features the file is read in order, as a device's readings come; see
`tidegate detect train --help` for its columns. With raw features every row stands for itself:
fitted and scored as scikit-learn's IsolationForest does, where score_samples is our score
with the sign turned. A file in NumPy's .npz format holds X (rows x columns), and may hold y.")]
pub(super) struct Score {
    /// A CSV file, gzipped or not, or with raw features an .npz file
    file: PathBuf,
    /// Rows to fit, from 0, the last not included [default: all]
    #[arg(long, value_name = "A..B")]
    fit_rows: Option<Rows>,
    /// Where the scores go
    #[arg(long, value_name = "OUT")]
    scores: PathBuf,
    /// Only these columns; of an .npz file by number, from 0
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    columns: Option<Vec<String>>,
    #[command(flatten)]
    forest: ForestFlags,
}

impl Score {
    pub(super) fn run(self) -> Result<()> {
        let npz = self.file.extension().is_some_and(|extension| extension == "npz");
        let scores = match self.forest.features {
            Features::Raw => self.raw()?,
            Features::Stream if npz => {
                bail!("rows of an .npz file have no order in time: use --features raw")
            }
            Features::Stream => self.stream()?,
        };
        write(&self.scores, &scores)?;
        anstream::println!(
            "{} scores of {} written to {}",
            scores.len(),
            self.file.display(),
            self.scores.display()
        );
        Ok(())
    }

    fn raw(&self) -> Result<Vec<f32>> {
        let matrix = Matrix::read(&self.file, self.columns.as_deref())?;
        let rows = self.fitted(matrix.rows())?;
        let fitted = &matrix.values[rows.start * matrix.columns..rows.end * matrix.columns];
        let options = TableOptions {
            trees: self.forest.trees,
            subsample: self.forest.subsample,
            ..TableOptions::new(self.forest.kind(), self.forest.seed)
        };
        let shown = || self.file.display().to_string();
        let forest = TableForest::fit(&Table::new(fitted, matrix.columns).with_context(shown)?, &options);
        let all = Table::new(&matrix.values, matrix.columns).with_context(shown)?;
        Ok(forest.with_context(shown)?.scores(&all)?)
    }

    /// The rows to fit of a file with `rows`.
    fn fitted(&self, rows: usize) -> Result<std::ops::Range<usize>> {
        match &self.fit_rows {
            None => Ok(0..rows),
            Some(Rows(range)) if range.end <= rows => Ok(range.clone()),
            Some(Rows(range)) => bail!(
                "--fit-rows {}..{} is beyond {}, which has {rows} rows",
                range.start,
                range.end,
                self.file.display()
            ),
        }
    }

    fn stream(&self) -> Result<Vec<f32>> {
        let model = self.fit_stream()?;
        let mut recording = Recording::open(&self.file, self.columns.as_deref())?;
        let mut scorers: HashMap<usize, Scorer> = HashMap::new();
        let mut scores = Vec::new();
        while let Some(row) = recording.next()? {
            let shown = || format!("{}, row {}", self.file.display(), row.number);
            let scorer = match scorers.entry(row.device) {
                std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
                std::collections::hash_map::Entry::Vacant(new) => {
                    let device = &recording.devices()[row.device];
                    new.insert(Scorer::new(Arc::clone(&model), device).with_context(shown)?)
                }
            };
            scores.push(scorer.score(row.at, &row.channels).with_context(shown)?);
        }
        Ok(scores)
    }

    fn fit_stream(&self) -> Result<Arc<Model>> {
        let wanted = self
            .fit_rows
            .as_ref()
            .map_or(0..usize::MAX, |Rows(rows)| rows.clone());
        let mut recording = Recording::open(&self.file, self.columns.as_deref())?;
        let mut readings: Vec<Vec<_>> = Vec::new();
        let mut fitted = 0;
        let mut rows = 0;
        while rows < wanted.end {
            let Some(row) = recording.next()? else { break };
            rows = row.number + 1;
            if row.number < wanted.start {
                continue;
            }
            fitted += 1;
            if fitted > MOST_FITTED {
                bail!("at most {MOST_FITTED} rows are fitted; choose some with --fit-rows");
            }
            readings.resize_with(recording.devices().len(), Vec::new);
            readings[row.device].push((row.at, row.channels));
        }
        if self.fit_rows.is_some() {
            self.fitted(rows)?;
        }
        let mut data = TrainingData::new(&self.file.display().to_string());
        for (device, readings) in recording.devices().iter().zip(readings) {
            if !readings.is_empty() {
                data.add(device.clone(), readings);
            }
        }
        // The date goes into no score, so that the same file always gives the same bytes. Whoever
        // judges the scores has chosen the rows: what no sensor can mean is left out, not refused.
        let options = TrainOptions {
            alarms: Alarms::LeaveOut,
            ..self.forest.options(UNUSED_RATE, Timestamp::from_micros(0))
        };
        let model = fit(&data, &options, &mut |_| ());
        Ok(Arc::new(model.with_context(|| {
            format!("cannot fit rows of {}", self.file.display())
        })?))
    }
}

fn write(path: &Path, scores: &[f32]) -> Result<()> {
    let write = || {
        let mut file = BufWriter::new(File::create(path)?);
        for score in scores {
            file.write_all(&f64::from(*score).to_le_bytes())?;
        }
        file.flush()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
