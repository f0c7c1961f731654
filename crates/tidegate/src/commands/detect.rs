//! `tidegate detect`: models that judge accepted readings: made, compared, switched and explained.

mod activate;
mod evaluate;
mod explain;
mod models;
mod options;
mod score;
mod show;
mod train;

use crate::cli::Place;
use anyhow::Result;
use clap::{Args, Subcommand};
use std::process::ExitCode;

/// Make, judge and switch the models that judge accepted readings
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidegate detect train --from store --since 7d    a new model from the last week
  tidegate detect evaluate --from store            how the model in use does
  tidegate detect models                           which there are
  tidegate detect activate 20260101-120000         use this one from the next start on
  tidegate detect activate --previous              go back
  tidegate detect explain --device device-001      why a reading was flagged, or was not")]
pub(crate) struct Detect {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Train(train::Train),
    Evaluate(evaluate::Evaluate),
    Explain(explain::Explain),
    Models(models::Models),
    Activate(activate::Activate),
    Score(score::Score),
    Show(show::Show),
}

impl Detect {
    pub(crate) fn run(self, place: &Place) -> Result<ExitCode> {
        match self.action {
            Action::Train(train) => train.run(place)?,
            Action::Evaluate(evaluate) => evaluate.run(place)?,
            Action::Explain(explain) => explain.run(place)?,
            Action::Models(models) => models.run(place)?,
            Action::Activate(activate) => activate.run(place)?,
            Action::Score(score) => score.run()?,
            Action::Show(show) => show.run(place)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
