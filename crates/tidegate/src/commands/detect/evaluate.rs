//! `tidegate detect evaluate`: how well a model does, and where a candidate would differ.

use super::options::{ForestFlags, alarms, rate};
use crate::cli::Place;
use crate::clock;
use crate::commands::table;
use crate::detection::measure::Summary;
use crate::detection::replay::{self, Replayed};
use crate::detection::report::Report;
use crate::detection::rows::Rows;
use crate::detection::shelf::{Evaluated, Shelf};
use crate::detection::source::{Gathered, Source};
use crate::training;
use anyhow::{Context, Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tidegate_detect::model::Model;
use tidegate_detect::population::DeviceReport;
use tidegate_detect::train::TrainOptions;

/// Differences between two models that are printed.
const DIFFERENCES: usize = 50;

/// Judge readings by a model: events found, delay, false alarms
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidegate detect evaluate --from store --since 7d
  tidegate detect evaluate --from store --shadow candidate
  tidegate detect evaluate --from hotel/*.csv.gz --fit --false-alarm-rate 0.001 --html report.html

With --fit a model is trained on the rows that the files mark `train` (or on --fit-rows) and judged
on the others; without it, the model in use or --model is. Readings that a model was trained on are
not counted; of the store, those are the ones before its training.

An event is found when an alarm is on inside it. The false-alarm rate is the share of ordinary
readings over the threshold: outside every event, and 240 readings after its end. Averages over
types leave out leak_burst, leak_slow and replay_all, which one sensor cannot see.")]
pub(super) struct Evaluate {
    /// `store`, `simulator`, or CSV files [default: store]
    #[arg(long, num_args = 1.., value_name = "SOURCE")]
    from: Vec<String>,
    /// Only readings since, of the store, as in 7d
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
    /// Only these columns of a CSV file
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    columns: Option<Vec<String>>,
    /// The model to judge [default: the one in use]
    #[arg(long, value_name = "NAME", conflicts_with_all = ["fit", "fit_rows"])]
    model: Option<String>,
    /// Train a model on the rows marked `train`, for this run only
    #[arg(long)]
    fit: bool,
    /// Train on these rows of each device instead, from 0, the last not included
    #[arg(long, value_name = "A..B")]
    fit_rows: Option<Rows>,
    /// Leave out of --fit what raised alarms or is labelled as an anomaly
    #[arg(long)]
    exclude_alarms: bool,
    /// The rate that --fit sets the threshold to [default: the configuration's]
    #[arg(long, value_name = "RATE", value_parser = rate)]
    false_alarm_rate: Option<f64>,
    #[command(flatten)]
    forest: ForestFlags,
    /// A candidate that judges the same readings; the report shows where it differs
    #[arg(long, value_name = "NAME")]
    shadow: Option<String>,
    /// Write a report with pictures, as one file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl Evaluate {
    pub(super) fn run(self, place: &Place) -> Result<()> {
        let config = place.load()?;
        let now = clock::now();
        let shelf = Shelf::new(&config.files);
        let since = self.since.map(|since| now.minus(since));
        let source = Source::parse(&self.from)?;
        let mut gathered = source.gather(&config, self.columns.as_deref(), since)?;
        let fit = (self.fit || self.fit_rows.is_some()).then(|| TrainOptions {
            alarms: alarms(self.exclude_alarms),
            ..self
                .forest
                .options(self.false_alarm_rate.unwrap_or(config.false_alarm_rate), now)
        });
        let model = match &fit {
            Some(options) => {
                self.mark_for_fit(&mut gathered)?;
                training::with_progress(&training::data(&gathered), options)?
            }
            None => shelf.load(self.model.as_deref())?,
        };
        let model = Arc::new(model);
        if fit.is_none() && source == Source::Store {
            // What came after training is unseen; what came before may have been trained on.
            for reading in gathered.series.iter_mut().flat_map(|series| &mut series.readings) {
                reading.training = Some(reading.at <= model.about().trained_at());
            }
        }
        let Replayed { fleet, population } = with_bar("judging readings", gathered.readings(), |progress| {
            replay::judge(&model, &gathered, progress)
        });
        if !fleet.iter().any(|judged| judged.tested.contains(&true)) {
            bail!(
                "all readings are ones that the model was trained on, or from before: there is nothing to test it on"
            );
        }
        let summary = Summary::of(&fleet, model.calibration().false_alarm_rate);
        let name = match (&fit, &self.model) {
            (Some(_), _) => None,
            (None, Some(name)) => Some(name.clone()),
            (None, None) => shelf.active(),
        };
        if let Some(obtained) = summary.false_alarm_rate.zip(name.as_ref()) {
            let evaluated = Evaluated {
                false_alarm_rate: obtained.0,
                readings: summary.ordinary_readings,
                at: now.to_string(),
            };
            shelf.note(obtained.1, evaluated)?;
        }
        let shifts = shifts(&gathered, &population);
        let differences = match &self.shadow {
            None => Vec::new(),
            Some(name) => self.differences(name, &model, &Arc::new(shelf.load(Some(name))?), &gathered),
        };
        if let Some(path) = &self.html {
            let halved = fit.map_or_else(Vec::new, |options| replay::halved(&gathered, &options));
            let unnamed = if fit.is_some() {
                "fitted for this report"
            } else {
                "in use"
            };
            let report = Report {
                data: &gathered.description,
                model: &model,
                name: name.as_deref().unwrap_or(unnamed),
                summary: &summary,
                fleet: &fleet,
                halved: &halved,
                shifts: &shifts,
                differences: &differences,
                made_at: &now.to_string(),
            };
            std::fs::write(path, report.html()?)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        if self.json {
            anstream::println!("{}", serde_json::to_string(&summary)?);
        } else {
            print(&summary);
            for line in shifts.iter().chain(&differences) {
                anstream::println!("{line}");
            }
        }
        Ok(())
    }

    fn mark_for_fit(&self, gathered: &mut Gathered) -> Result<()> {
        let marked = gathered
            .series
            .iter()
            .flat_map(|series| &series.readings)
            .any(|reading| reading.training == Some(true));
        if self.fit_rows.is_none() && !marked {
            bail!("no row is marked `train` in a column `split`; choose rows with --fit-rows");
        }
        gathered.mark_training(self.fit_rows.as_ref())
    }

    /// Where the candidate raises an alarm and the model does not, or the other way round.
    fn differences(
        &self,
        name: &str,
        model: &Arc<Model>,
        candidate: &Arc<Model>,
        gathered: &Gathered,
    ) -> Vec<String> {
        let report = with_bar("comparing models", gathered.readings(), |progress| {
            replay::compare(model, candidate, gathered, progress)
        });
        let mut lines = vec![format!(
            "candidate {name}: of {} readings, both flag {}, only the model {}, only the candidate {}",
            report.readings, report.both, report.only_active, report.only_candidate
        )];
        let spans = report.differences.iter().take(DIFFERENCES);
        lines.extend(spans.map(|difference| {
            let who = if difference.by_candidate {
                "candidate"
            } else {
                "model"
            };
            format!(
                "{} from {}: only the {who} raises an alarm: {}",
                gathered.series[difference.device.0 as usize].device, difference.at, difference.sentence
            )
        }));
        if report.differences.len() > DIFFERENCES {
            lines.push(format!("{DIFFERENCES} of these are shown"));
        }
        lines
    }
}

/// What speaks for training again, device by device.
fn shifts(gathered: &Gathered, population: &[DeviceReport]) -> Vec<String> {
    let reasons = population.iter().flat_map(|report| {
        let device = &gathered.series[report.device.0 as usize].device;
        let reasons = report.reasons.iter();
        reasons.map(move |reason| format!("{device} has changed since training: {reason}"))
    });
    reasons.collect()
}

/// Does `work`, which tells of each readings done, under a progress bar.
fn with_bar<T>(what: &str, readings: usize, work: impl FnOnce(&mut dyn FnMut(usize)) -> T) -> T {
    let bar = ProgressBar::new(readings as u64);
    if let Ok(style) = ProgressStyle::with_template("{msg} {bar:30} {percent}%") {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    let done = work(&mut |readings| bar.inc(readings as u64));
    bar.finish_and_clear();
    done
}

fn print(summary: &Summary) {
    let number = |number: Option<f64>, digits: usize| {
        number.map_or_else(|| "-".to_owned(), |number| format!("{number:.digits$}"))
    };
    anstream::println!(
        "ordinary      {} readings of {} devices",
        summary.ordinary_readings,
        summary.devices.len()
    );
    anstream::println!(
        "false alarms  rate set {}, obtained {} (mean over devices); {} episodes a device and day",
        summary.false_alarm_rate_set,
        number(summary.false_alarm_rate, 6),
        number(summary.false_episodes_per_device_day, 2)
    );
    if summary.types.is_empty() {
        anstream::println!("events        none are labelled");
    } else {
        anstream::println!(
            "events        {} of the observable ones found, {} of their readings; median delay {} s; AUROC {}",
            number(summary.event_recall_observable, 3),
            number(summary.reading_recall_observable, 3),
            number(summary.median_delay_s, 0),
            number(summary.auroc, 4)
        );
        let mut types = table::new(&["type", "found", "readings over", "median delay", ""]);
        for of_type in &summary.types {
            types.add_row([
                of_type.kind.clone(),
                format!("{} of {}", of_type.found, of_type.events),
                number(Some(of_type.reading_recall), 3),
                of_type
                    .median_delay_s
                    .map_or_else(|| "-".into(), |seconds| format!("{seconds:.0} s")),
                if of_type.observable { "" } else { "not observable" }.to_owned(),
            ]);
        }
        anstream::println!("{types}");
    }
    let mut devices = table::new(&["device", "rate obtained", "false episodes a day", "events found"]);
    for device in &summary.devices {
        devices.add_row([
            device.device.clone(),
            number(device.false_alarm_rate, 6),
            number(device.false_episodes_per_day, 2),
            format!("{} of {}", device.found, device.events),
        ]);
    }
    anstream::println!("{devices}");
}
