//! How well streaming detection does on labelled recordings of a fleet.
//!
//! Of each recording, the first half of the rows marked `train` fits a model, the second half
//! calibrates one threshold for the fleet, and the other rows test it.

use crate::detection::measure::{Judged, Summary, conformal};
use crate::detection::recording::Recording;
use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidegate_detect::debounce::Debounce;
use tidegate_detect::scorer::Scorer;
use tidegate_detect::train::{Alarms, TrainOptions, TrainingData, fit};
use tidegate_envelope::time::Timestamp;

/// The rates that the threshold is set to.
const RATES: [f64; 2] = [1e-3, 1e-4];

/// What was found in one folder.
#[derive(Debug, Serialize)]
pub(crate) struct Quality {
    folder: PathBuf,
    at_rates: Vec<Summary>,
}

pub(crate) fn run(folder: &Path) -> Result<Quality> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".csv") || name.ends_with(".csv.gz") {
            files.push(path);
        }
    }
    if files.is_empty() {
        bail!("{} holds no CSV file", folder.display());
    }
    files.sort();
    let mut fleet: Vec<Judged> = files
        .iter()
        .map(|path| judge(path).with_context(|| format!("cannot judge {}", path.display())))
        .collect::<Result<_>>()?;
    let mut calibrated: Vec<f32> = fleet
        .iter()
        .flat_map(|judged| judged.scores.iter().zip(&judged.calibrated))
        .filter_map(|(score, calibrated)| calibrated.then_some(*score))
        .collect();
    calibrated.sort_unstable_by(f32::total_cmp);
    let mut at_rates = Vec::new();
    for rate in RATES {
        let threshold = conformal(&calibrated, rate).context("no row calibrates")?;
        for judged in &mut fleet {
            let mut debounce = Debounce::default();
            judged.over = judged.scores.iter().map(|score| *score > threshold).collect();
            judged.alarm = judged.over.iter().map(|over| debounce.observe(*over)).collect();
        }
        at_rates.push(Summary::of(&fleet, rate));
    }
    Ok(Quality {
        folder: folder.to_owned(),
        at_rates,
    })
}

/// Scores a recording; over and alarm are set later, by a threshold of the whole fleet.
fn judge(path: &Path) -> Result<Judged> {
    let mut recording = Recording::open(path, None)?;
    let (mut rows, mut training) = (Vec::new(), Vec::new());
    let mut judged = Judged::default();
    while let Some(row) = recording.next()? {
        training.push(row.training == Some(true));
        judged.events.push(row.event.map(|event| event.to_string()));
        rows.push((row.at, row.channels));
    }
    let [device] = recording.devices() else {
        bail!("it holds several devices");
    };
    let trained = training.iter().filter(|training| **training).count();
    if !training[..trained].iter().all(|training| *training) || trained == rows.len() {
        bail!("its rows must begin with those marked `train` in a column `split`, and others must follow");
    }
    let mut data = TrainingData::new("a recording");
    data.add(device.clone(), rows[..trained / 2].to_vec());
    let options = TrainOptions {
        alarms: Alarms::LeaveOut,
        ..TrainOptions::new(1, Timestamp::from_micros(0))
    };
    let model = Arc::new(fit(&data, &options, &mut |_| ())?);
    let mut scorer = Scorer::new(model, device)?;
    judged.device = device.to_string();
    for (row, (at, channels)) in rows.iter().enumerate() {
        judged.times.push(*at);
        judged.scores.push(scorer.score(*at, channels)?);
        judged.tested.push(row >= trained);
        judged.calibrated.push((trained / 2..trained).contains(&row));
    }
    Ok(judged)
}

impl Quality {
    pub(super) fn print(&self) {
        anstream::println!("Labelled recordings of {}", self.folder.display());
        let number = |number: Option<f64>, digits: usize| {
            number.map_or_else(|| "-".to_owned(), |number| format!("{number:.digits$}"))
        };
        for summary in &self.at_rates {
            anstream::println!(
                "  rate set {:.4}: obtained {}; observable events found {}, median delay {} s; \
                 {} false episodes a device and day; AUROC {}",
                summary.false_alarm_rate_set,
                number(summary.false_alarm_rate, 5),
                number(summary.event_recall_observable, 3),
                number(summary.median_delay_s, 0),
                number(summary.false_episodes_per_device_day, 2),
                number(summary.auroc, 4)
            );
        }
    }
}
