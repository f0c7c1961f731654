//! `tidegate detect explain`: why one reading was flagged, or how far it was from that.

use crate::cli::Place;
use crate::commands::table;
use crate::config::Config;
use crate::detection::recording::Recording;
use crate::detection::shelf::Shelf;
use crate::detection::source::{of_device, open_store};
use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidegate_detect::channel::quantity;
use tidegate_detect::detector::Detector;
use tidegate_detect::features::Feature;
use tidegate_detect::model::Model;
use tidegate_detect::scorer::Scorer;
use tidegate_envelope::id::{DeviceId, DeviceIndex};
use tidegate_envelope::reading::Channels;
use tidegate_envelope::time::Timestamp;
use tidegate_store::event::Event;
use tidegate_store::reader::EventQuery;

/// Say why a reading was flagged: the sentence, what was expected, and each feature's share
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidegate detect explain --device device-001                                newest reading
  tidegate detect explain --device device-001 --at 2026-01-01T14:02:00Z      last one up to then
  tidegate detect explain --event 812                                        of `tidegate events`
  tidegate detect explain --file plant.csv.gz --row 35100 --model spring

The readings before it are replayed, as means and runs depend on them.")]
pub(super) struct Explain {
    /// A device of the store
    #[arg(long, required_unless_present_any = ["event", "file"], conflicts_with_all = ["event", "file"])]
    device: Option<String>,
    /// Its last reading up to this time (RFC 3339) [default: its newest]
    #[arg(long, value_name = "TIME", requires = "device", value_parser = time)]
    at: Option<Timestamp>,
    /// The number of an event in the store
    #[arg(long, value_name = "ID", conflicts_with = "file")]
    event: Option<i64>,
    /// A recording
    #[arg(long, requires = "row")]
    file: Option<PathBuf>,
    /// The row of the recording, from 0
    #[arg(long, requires = "file")]
    row: Option<usize>,
    /// Which model judges [default: the one in use]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// One device's readings up to the one that is asked about.
struct Past {
    device: DeviceId,
    readings: Vec<(Timestamp, Channels)>,
}

/// What is known about the reading.
#[derive(Serialize)]
struct Explained {
    device: String,
    at: String,
    /// How many readings before it were replayed.
    replayed: usize,
    score: f32,
    threshold: f32,
    flagged: bool,
    sentence: String,
    subject: String,
    unit: &'static str,
    expected: f64,
    seen: Option<f64>,
    features: Vec<FeatureShare>,
}

#[derive(Serialize)]
struct FeatureShare {
    feature: Feature,
    /// Share of the score, 0 to 1.
    share: f32,
    /// In units of the device's own spread; 0 is the most ordinary.
    value: f32,
}

impl Explain {
    pub(super) fn run(self, place: &Place) -> Result<()> {
        let config = place.load()?;
        let model = Arc::new(Shelf::new(&config.files).load(self.model.as_deref())?);
        let past = match (&self.file, self.row, self.event, &self.device) {
            (Some(file), Some(row), ..) => of_file(file, row)?,
            (.., Some(id), _) => of_event(&config, id)?,
            (.., Some(device)) => of_store(&config, &DeviceId::new(device)?, self.at)?,
            _ => bail!("name a --device, an --event, or a --file and its --row"),
        };
        let explained = explain(&model, &past)?;
        if self.json {
            anstream::println!("{}", serde_json::to_string(&explained)?);
        } else {
            explained.print();
        }
        Ok(())
    }
}

fn time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse_rfc3339(text).ok_or_else(|| format!("`{text}` is not an RFC 3339 time"))
}

fn of_file(path: &Path, wanted: usize) -> Result<Past> {
    let mut recording = Recording::open(path, None)?;
    let mut rows = Vec::new();
    while rows.len() <= wanted {
        let Some(row) = recording.next()? else { break };
        rows.push(row);
    }
    let Some(last) = rows.get(wanted) else {
        bail!(
            "{} has {} rows: there is no row {wanted}",
            path.display(),
            rows.len()
        );
    };
    let device = last.device;
    let readings = rows.into_iter().filter(|row| row.device == device);
    Ok(Past {
        device: recording.devices()[device].clone(),
        readings: readings.map(|row| (row.at, row.channels)).collect(),
    })
}

fn of_event(config: &Config, id: i64) -> Result<Past> {
    let mut found: Option<Event> = None;
    let query = EventQuery {
        after_id: Some(id.saturating_sub(1)),
        limit: Some(1),
        ..EventQuery::default()
    };
    open_store(config)?.events(&query, |event| {
        found = Some(event);
        ControlFlow::Break(())
    })?;
    let event = found.filter(|event| event.id == id);
    let event = event.with_context(|| format!("there is no event {id}; `tidegate events` lists them"))?;
    let device = event
        .device
        .with_context(|| format!("event {id} is of no device"))?;
    if event.channels.is_empty() {
        bail!("event {id} has no reading");
    }
    of_store(config, &device, Some(event.timestamp.unwrap_or(event.at)))
}

fn of_store(config: &Config, device: &DeviceId, until: Option<Timestamp>) -> Result<Past> {
    let mut readings = of_device(&mut open_store(config)?, device, None)?;
    if let Some(until) = until {
        let end = readings.iter().rposition(|reading| reading.at <= until);
        readings.truncate(end.map_or(0, |last| last + 1));
    }
    if readings.is_empty() {
        bail!("there is no reading of {device} in the store up to then");
    }
    Ok(Past {
        device: device.clone(),
        readings: readings
            .into_iter()
            .map(|reading| (reading.at, reading.channels))
            .collect(),
    })
}

fn explain(model: &Arc<Model>, past: &Past) -> Result<Explained> {
    let mut scorer = Scorer::new(Arc::clone(model), &past.device)?;
    let mut detector = Detector::new(Arc::clone(model), [&past.device]);
    let (last, before) = past.readings.split_last().context("there is no reading")?;
    for (at, channels) in before {
        // A reading without a channel moves no state; the pipeline flags it by a rule.
        drop(scorer.score(*at, channels));
        detector.assess(DeviceIndex(0), *at, channels);
    }
    let (at, channels) = last;
    let score = scorer.score(*at, channels)?;
    let assessment = detector.assess(DeviceIndex(0), *at, channels);
    let of_forest = scorer.explain().context("there is nothing to explain")?;
    // What was flagged by a rule has the rule's words; the shares are always the forest's.
    let told = assessment.reason.as_deref().unwrap_or(&of_forest);
    let position = |feature| Feature::ALL.iter().position(|known| *known == feature);
    let value = |feature| {
        position(feature)
            .and_then(|index| scorer.features().get(index))
            .copied()
    };
    let features = of_forest.shares.iter().map(|share| FeatureShare {
        feature: share.feature,
        share: share.share,
        value: value(share.feature).unwrap_or_default(),
    });
    Ok(Explained {
        device: past.device.to_string(),
        at: at.to_string(),
        replayed: before.len(),
        score,
        threshold: threshold(model, &past.device),
        flagged: assessment.flagged,
        sentence: told.sentence.clone(),
        subject: told.subject.clone(),
        unit: told.unit,
        expected: told.expected,
        seen: told.seen,
        features: features.collect(),
    })
}

/// The device's own threshold, or that of devices which were not in training.
fn threshold(model: &Model, device: &DeviceId) -> f32 {
    let own = model
        .profiles()
        .iter()
        .any(|profile| profile.device == device.as_str());
    let fleet = model.fleet().filter(|_| !own);
    fleet
        .map_or(model.calibration(), |fleet| &fleet.calibration)
        .threshold
}

impl Explained {
    fn print(&self) {
        let state = if self.flagged { "flagged" } else { "not flagged" };
        anstream::println!(
            "reading    {} of {}, after {} before it",
            self.at,
            self.device,
            self.replayed
        );
        anstream::println!(
            "score      {:.4}, threshold {:.4}: {state}",
            self.score,
            self.threshold
        );
        let most = if self.flagged { "because" } else { "most unusual" };
        anstream::println!("{most:<10} {}", self.sentence);
        let seen = self
            .seen
            .map_or_else(|| "nothing".into(), |seen| quantity(seen, 2, self.unit));
        anstream::println!(
            "{:<10} {seen}, expected {}",
            self.subject,
            quantity(self.expected, 2, self.unit)
        );
        if !self.features.is_empty() {
            let mut features = table::new(&["feature", "share of the score", "value"]);
            for feature in &self.features {
                features.add_row([
                    feature.feature.as_str().to_owned(),
                    format!("{:.1}%", feature.share * 100.0),
                    format!("{:.2}", feature.value),
                ]);
            }
            anstream::println!("{features}");
        }
    }
}
