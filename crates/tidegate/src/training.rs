//! Models are made here: of the simulated building for a first run, or of gathered readings.

use crate::cli::Place;
use crate::config::Config;
use crate::demo::{READING_EVERY, SEED};
use crate::detection::source::{Gathered, Reading, Series};
use crate::devices::DevicesFile;
use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use std::process::{Command, Stdio};
use std::time::Duration;
use tidegate_detect::model::Model;
use tidegate_detect::train::{KnownAlarm, TrainError, TrainOptions, TrainingData, check, train};
use tidegate_device::simulator::{Building, Zone};
use tidegate_envelope::id::{DeviceId, ZoneId};
use tidegate_envelope::time::Timestamp;

/// Readings of each device: one simulated day.
const READINGS: u32 = 17_280;
/// More devices than this learn nothing new about the building, and cost start-up time.
const MOST_DEVICES: usize = 12;
/// Devices whose data an error finds fault with.
const MOST_NAMED: usize = 5;
/// The simulated day that is learnt from: 2026-01-01.
const DAY: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

/// Has a first model trained if there is none yet; says whether it had.
///
/// In a process of its own: the memory that training needs goes back to the system with it,
/// instead of staying with a gateway that runs for months.
pub(crate) fn first_model(place: &Place, config: &Config) -> Result<bool> {
    if config.files.model().exists() {
        return Ok(false);
    }
    let program = std::env::current_exe().context("cannot find this program")?;
    let trained = Command::new(program)
        .arg("--dir")
        .arg(&place.dir)
        .arg("--config")
        .arg(place.config_path())
        .args(["detect", "train", "--from", "simulator"])
        .stdout(Stdio::null())
        .status()
        .context("cannot start the training")?;
    if !trained.success() {
        bail!("cannot train a first model: {trained}");
    }
    Ok(true)
}

/// One simulated day of the registered devices.
pub(crate) fn from_simulator(config: &Config) -> Result<Gathered> {
    let devices = DevicesFile::load(&config.files.registry)?;
    let mut gathered = Gathered {
        description: "one simulated day of the demo building".into(),
        series: Vec::new(),
    };
    for device in devices.devices.iter().take(MOST_DEVICES) {
        let id = DeviceId::new(&device.id)?;
        let mut sensor = Building::new(SEED).sensor(Zone::of(&ZoneId::new(&device.zone)?), &id);
        let readings = (0..READINGS).map(|number| {
            let at = DAY.plus(READING_EVERY * number);
            Reading::new(at, sensor.sample(at))
        });
        gathered.series.push(Series {
            device: id,
            readings: readings.collect(),
        });
    }
    Ok(gathered)
}

/// The readings that are marked for training, and the alarms that are known among them: what they
/// raised when they were accepted, or what they are labelled with.
pub(crate) fn data(gathered: &Gathered) -> TrainingData {
    let mut data = TrainingData::new(&gathered.description);
    for series in &gathered.series {
        let readings = || {
            let readings = series.readings.iter();
            readings.filter(|reading| reading.training != Some(false))
        };
        let rows: Vec<_> = readings()
            .map(|reading| (reading.at, reading.channels.clone()))
            .collect();
        if rows.is_empty() {
            continue;
        }
        data.add(series.device.clone(), rows);
        for alarm in alarms(readings()) {
            data.add_alarm(series.device.clone(), alarm);
        }
    }
    data
}

/// Each span of readings in a row that are no example of the ordinary.
fn alarms<'a>(readings: impl Iterator<Item = &'a Reading>) -> Vec<KnownAlarm> {
    let mut spans: Vec<KnownAlarm> = Vec::new();
    let mut lasting = false;
    for reading in readings {
        let why = reading.alarm.as_deref().or(reading.event.as_deref());
        match (why, spans.last_mut()) {
            // The sentence of an alarm changes with its numbers; what comes in a row is one.
            (Some(_), Some(span)) if lasting => span.until = reading.at,
            (Some(why), _) => spans.push(KnownAlarm {
                from: reading.at,
                until: reading.at,
                why: why.to_owned(),
            }),
            (None, _) => {}
        }
        lasting = why.is_some();
    }
    spans
}

/// Trains with a progress bar. All reasons why the data may not be learnt from are named at once.
pub(crate) fn with_progress(data: &TrainingData, options: &TrainOptions) -> Result<Model> {
    let refused = check(data, options.alarms);
    if !refused.is_empty() {
        let named: Vec<String> = refused.iter().take(MOST_NAMED).map(ToString::to_string).collect();
        let further = match refused.len() - named.len() {
            0 => String::new(),
            further => format!("; and {further} more devices"),
        };
        let poisoned = refused
            .iter()
            .any(|error| matches!(error, TrainError::Poisoned { .. }));
        let hint = if poisoned {
            "; --exclude-alarms leaves out what is known not to be ordinary"
        } else {
            ""
        };
        bail!("cannot train a model: {}{further}{hint}", named.join("; "));
    }
    let bar = ProgressBar::new(100);
    if let Ok(style) = ProgressStyle::with_template("training the isolation forest {bar:30} {percent}%") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    let model = train(data, options, &mut |share| {
        bar.set_position((share * 100.0) as u64);
    });
    bar.finish_and_clear();
    model.context("cannot train a model")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_in_a_row_are_one_span_with_its_first_reason() {
        let known = [(4, "drifting"), (5, "drifting more"), (8, "stuck")];
        let reading = |row: usize| Reading {
            alarm: known
                .iter()
                .find(|(at, _)| *at == row)
                .map(|(_, why)| (*why).to_owned()),
            ..Reading::new(Timestamp::from_micros(row as i64), Default::default())
        };
        let readings: Vec<Reading> = (0..10).map(reading).collect();
        let spans = alarms(readings.iter());
        let of = |span: &KnownAlarm| (span.from.as_micros(), span.until.as_micros(), span.why.clone());
        assert_eq!(
            spans.iter().map(of).collect::<Vec<_>>(),
            [(4, 5, "drifting".into()), (8, 8, "stuck".into())]
        );
    }
}
