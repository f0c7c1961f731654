//! `tidegate detect`: the model that judges accepted readings.

use super::table;
use crate::cli::Place;
use crate::config::Config;
use crate::devices::DevicesFile;
use crate::training;
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tidegate_detect::model::Model;
use tidegate_detect::train::TrainingData;
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::reading::Channels;
use tidegate_envelope::time::Timestamp;
use tidegate_store::reader::{Order, Reader, ReadingQuery};

/// Readings of one device that are used at most: the newest.
const MOST_READINGS: u64 = 200_000;

/// Train the model that judges accepted readings
#[derive(Debug, Args)]
pub(crate) struct Detect {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Train a new model, and put it in the place of the old one
    #[command(after_help = "Examples:
  tidegate detect train --from store
  tidegate detect train --from readings.csv

A CSV needs the columns device and timestamp (RFC 3339), and a column for each channel, as
`tidegate readings --format csv` writes it. A running Tidegate takes the model at its next start.")]
    Train {
        /// `store`, `simulator`, or a CSV file
        #[arg(long, default_value = "store")]
        from: String,
    },
    /// Show what the model in use was trained on
    Show,
}

impl Detect {
    pub(crate) fn run(self, place: &Place) -> Result<ExitCode> {
        let config = place.load()?;
        match self.action {
            Action::Train { from } => {
                let model = match from.as_str() {
                    "simulator" => training::save(&config, &training::from_simulator(&config)?)?,
                    "store" => training::save(&config, &from_store(&config)?)?,
                    file => training::save(&config, &from_csv(&PathBuf::from(file))?)?,
                };
                show(&config, &model);
            }
            Action::Show => {
                let path = config.files.model();
                let model = Model::load(&path).with_context(|| {
                    format!(
                        "cannot load {}; `tidegate detect train --from simulator` makes one",
                        path.display()
                    )
                })?;
                show(&config, &model);
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn show(config: &Config, model: &Model) {
    let about = model.about();
    anstream::println!("model      {}", config.files.model().display());
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
}

fn from_store(config: &Config) -> Result<TrainingData> {
    let path = config.files.database();
    let mut reader = Reader::open(&path).with_context(|| table::no_database(&path))?;
    let mut data = TrainingData::new("accepted readings of the database");
    for device in DevicesFile::load(&config.files.registry)?.devices {
        let id = DeviceId::new(&device.id)?;
        let query = ReadingQuery {
            device: Some(id.clone()),
            limit: Some(MOST_READINGS),
            order: Order::NewestFirst,
            ..ReadingQuery::default()
        };
        let mut rows = Vec::new();
        reader.readings(&query, |row| {
            rows.push((row.timestamp.unwrap_or(row.received), row.channels));
            ControlFlow::Continue(())
        })?;
        if rows.is_empty() {
            continue;
        }
        rows.reverse();
        data.add(id, rows);
    }
    Ok(data)
}

fn from_csv(path: &Path) -> Result<TrainingData> {
    let shown = path.display();
    let mut reader = csv::Reader::from_path(path)
        .with_context(|| format!("cannot read {shown}; --from takes `store`, `simulator` or a CSV file"))?;
    let header = reader
        .headers()
        .with_context(|| format!("{shown} has no header"))?
        .clone();
    let column = |name: &str| {
        header
            .iter()
            .position(|found| found == name)
            .with_context(|| format!("{shown} has no column `{name}`"))
    };
    let (device, timestamp) = (column("device")?, column("timestamp")?);
    let mut rows: BTreeMap<String, Vec<(Timestamp, Channels)>> = BTreeMap::new();
    for (number, record) in reader.records().enumerate() {
        let line = number + 2;
        let record = record.with_context(|| format!("{shown}, line {line}"))?;
        let at = record.get(timestamp).and_then(Timestamp::parse_rfc3339);
        let at = at.with_context(|| format!("{shown}, line {line}: the timestamp is not RFC 3339"))?;
        let mut values = Vec::new();
        for (position, name) in header.iter().enumerate() {
            let cell = record.get(position).unwrap_or_default();
            // Other columns are text, such as the status.
            if position != device && position != timestamp && !["sequence", "received"].contains(&name) {
                values.extend(cell.parse::<f64>().ok().map(|value| (name.into(), value)));
            }
        }
        let Some(channels) = Channels::new(values) else {
            bail!("{shown}, line {line}: too many columns, or a value that is not finite");
        };
        rows.entry(record.get(device).unwrap_or_default().to_owned())
            .or_default()
            .push((at, channels));
    }
    let mut data = TrainingData::new(&format!("{}", path.file_name().unwrap_or_default().display()));
    for (device, rows) in rows {
        data.add(DeviceId::new(&device).with_context(|| shown.to_string())?, rows);
    }
    Ok(data)
}
