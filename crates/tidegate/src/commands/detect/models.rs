//! `tidegate detect models`: all models that are kept.

use crate::cli::Place;
use crate::commands::{Format, table};
use crate::detection::shelf::{Kept, Shelf};
use anyhow::Result;
use clap::Args;
use serde::Serialize;

/// List the models: which is in use, what they were trained on, how they did
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidegate detect models
  tidegate detect models --format json

`obtained` is the share of ordinary readings over the threshold that the last
`tidegate detect evaluate` of this model has found, on readings that it was not trained on.")]
pub(super) struct Models {
    /// How to print them
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// A model as it is exported.
#[derive(Serialize)]
struct Row {
    name: String,
    /// `active`, `previous`, or empty.
    state: &'static str,
    trained: Option<String>,
    data: Option<String>,
    devices: Option<usize>,
    readings: Option<u64>,
    forest: Option<String>,
    false_alarm_rate_set: Option<f64>,
    false_alarm_rate_obtained: Option<f64>,
    error: Option<String>,
}

impl Models {
    pub(super) fn run(self, place: &Place) -> Result<()> {
        let shelf = Shelf::new(&place.load()?.files);
        let rows: Vec<Row> = shelf.list()?.into_iter().map(row).collect();
        if self.format == Format::Json {
            for row in rows {
                anstream::println!("{}", serde_json::to_string(&row)?);
            }
            return Ok(());
        }
        if self.format == Format::Table && shelf.has_active() && shelf.active().is_none() {
            anstream::println!(
                "{} is in use and not among these; it is kept when another one is activated",
                shelf.active_path().display()
            );
        }
        let header = [
            "name", "state", "trained", "data", "devices", "forest", "rate set", "obtained",
        ];
        table::print(header, rows.into_iter().map(cells), self.format)
    }
}

fn row(kept: Kept) -> Row {
    let state = match (kept.active, kept.previous) {
        (true, _) => "active",
        (_, true) => "previous",
        _ => "",
    };
    let error = kept.model.as_ref().err().map(|error| format!("{error:#}"));
    let model = kept.model.ok();
    let about = model.as_ref().map(|model| model.about());
    Row {
        name: kept.name,
        state,
        trained: about.map(|about| about.trained_at().to_string()),
        data: about.map(|about| about.data.clone()),
        devices: model.as_ref().map(|model| model.profiles().len()),
        readings: about.map(|about| about.training_readings),
        forest: about.map(|about| format!("{:?}", about.forest).to_lowercase()),
        false_alarm_rate_set: model.as_ref().map(|model| model.calibration().false_alarm_rate),
        false_alarm_rate_obtained: kept.evaluated.map(|evaluated| evaluated.false_alarm_rate),
        error,
    }
}

fn cells(row: Row) -> [String; 8] {
    let number = |number: Option<f64>| number.map_or_else(|| "-".into(), |number| format!("{number:.6}"));
    let text = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    [
        row.name,
        row.state.into(),
        text(row.trained.map(|trained| trained.chars().take(19).collect())),
        text(row.data.or(row.error)),
        text(row.devices.map(|devices| devices.to_string())),
        text(row.forest),
        number(row.false_alarm_rate_set),
        number(row.false_alarm_rate_obtained),
    ]
}
