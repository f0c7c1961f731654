//! `tidegate detect train`: a new model, kept beside the one in use.

use super::options::{ForestFlags, alarms, rate};
use super::show;
use crate::cli::Place;
use crate::clock;
use crate::detection::rows::Rows;
use crate::detection::shelf::Shelf;
use crate::detection::source::Source;
use crate::training;
use anyhow::{Context, Result};
use clap::Args;
use std::time::Duration;
use tidegate_detect::train::TrainOptions;

/// Train a new model, and keep it beside the one in use
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidegate detect train --from store --since 7d
  tidegate detect train --from plant/*.csv.gz --rows 0..34560 --name spring
  tidegate detect train --from store --exclude-alarms --activate

A CSV file, gzipped or not, has a column for each channel, and may have `device` (else it is one
device, named after the file), `timestamp` (RFC 3339) or `t` (seconds), `event` or `anomaly`
(labels), and `split` (rows with `train` are used), as `tidegate readings --format csv` writes it.

The threshold rests on readings as they look to a model that has not seen them. Readings that are
too few, do not move, are in another unit, or raised alarms are refused, and the rows are named. The model goes to
data/models/NAME.model; the first one is used at once, another one by `tidegate detect activate`.")]
pub(super) struct Train {
    /// `store`, `simulator`, or CSV files [default: store]
    #[arg(long, num_args = 1.., value_name = "SOURCE")]
    from: Vec<String>,
    /// Only readings since, of the store, as in 7d
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
    /// Only these rows of each device, from 0, the last not included
    #[arg(long, value_name = "A..B")]
    rows: Option<Rows>,
    /// Only these columns of a CSV file
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    columns: Option<Vec<String>>,
    /// Leave out readings that raised alarms or are labelled as anomalies
    #[arg(long)]
    exclude_alarms: bool,
    /// Share of ordinary readings that may be over the threshold [default: the configuration's]
    #[arg(long, value_name = "RATE", value_parser = rate)]
    false_alarm_rate: Option<f64>,
    #[command(flatten)]
    forest: ForestFlags,
    /// Name of the model [default: date and time]
    #[arg(long)]
    name: Option<String>,
    /// Use it from the next start on, whatever is in use now
    #[arg(long)]
    activate: bool,
}

impl Train {
    pub(super) fn run(self, place: &Place) -> Result<()> {
        let config = place.load()?;
        let now = clock::now();
        let since = self.since.map(|since| now.minus(since));
        let source = Source::parse(&self.from)?;
        let mut gathered = source.gather(&config, self.columns.as_deref(), since)?;
        gathered.mark_training(self.rows.as_ref())?;
        let data = training::data(&gathered);
        drop(gathered);
        let rate = self.false_alarm_rate.unwrap_or(config.false_alarm_rate);
        let options = TrainOptions {
            alarms: alarms(self.exclude_alarms),
            ..self.forest.options(rate, now)
        };
        let mut model = training::with_progress(&data, &options);
        if let Some(Rows(rows)) = self.rows.filter(|Rows(rows)| rows.start > 0) {
            model = model.with_context(|| format!("rows are counted from row {}", rows.start));
        }
        let model = model?;

        let shelf = Shelf::new(&config.files);
        let name = self.name.unwrap_or_else(|| shelf.name_of(now));
        let path = shelf.keep(&name, &model)?;
        show::print(&path, &model);
        if self.activate || !shelf.has_active() {
            shelf.activate(&name)?;
            anstream::println!("in use     from the next start on");
        } else {
            anstream::println!("in use     not yet: tidegate detect activate {name}");
        }
        Ok(())
    }
}
