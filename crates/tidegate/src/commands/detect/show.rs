//! `tidegate detect show`: what a model was trained on.

use crate::cli::Place;
use crate::detection::shelf::Shelf;
use anyhow::Result;
use clap::Args;
use std::path::Path;
use tidegate_detect::model::Model;

/// Show what a model was trained on
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidegate detect show
  tidegate detect show 20260101-120000")]
pub(super) struct Show {
    /// A model [default: the one in use]
    name: Option<String>,
}

impl Show {
    pub(super) fn run(self, place: &Place) -> Result<()> {
        let shelf = Shelf::new(&place.load()?.files);
        let model = shelf.load(self.name.as_deref())?;
        match &self.name {
            Some(name) => print(&shelf.path(name), &model),
            None => {
                print(shelf.active_path(), &model);
                if let Some(name) = shelf.active() {
                    anstream::println!("name       {name}");
                }
            }
        }
        Ok(())
    }
}

/// Prints what a model says about itself.
pub(super) fn print(path: &Path, model: &Model) {
    let (about, calibration) = (model.about(), model.calibration());
    anstream::println!("model      {}", path.display());
    anstream::println!("trained    {} on {}", about.trained_at(), about.data);
    anstream::println!(
        "readings   {} of {} devices",
        about.training_readings,
        model.profiles().len()
    );
    anstream::println!(
        "forest     {:?}, {} trees of {} readings, seed {}",
        about.forest,
        about.trees,
        about.subsample,
        about.seed
    );
    anstream::println!("features   {}", about.features.len());
    anstream::println!(
        "threshold  {:.4}, for {} false alarms a reading, from {} readings",
        calibration.threshold,
        calibration.false_alarm_rate,
        calibration.readings
    );
    if calibration.least_rate > calibration.false_alarm_rate {
        anstream::println!(
            "           so few readings promise no less than {:.6} a reading",
            calibration.least_rate
        );
    }
}
