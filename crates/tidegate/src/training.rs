//! The first model: trained on what the simulated building normally does.

use crate::cli::Place;
use crate::clock;
use crate::config::Config;
use crate::demo::{READING_EVERY, SEED};
use crate::devices::DevicesFile;
use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use std::process::{Command, Stdio};
use std::time::Duration;
use tidegate_detect::model::Model;
use tidegate_detect::train::{TrainOptions, TrainingData, train};
use tidegate_device::simulator::{Building, Zone};
use tidegate_envelope::id::{DeviceId, ZoneId};
use tidegate_envelope::time::Timestamp;

/// Readings of each device: one simulated day.
const READINGS: u32 = 17_280;
/// More devices than this learn nothing new about the building, and cost start-up time.
const MOST_DEVICES: usize = 12;
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
pub(crate) fn from_simulator(config: &Config) -> Result<TrainingData> {
    let devices = DevicesFile::load(&config.files.registry)?;
    let mut data = TrainingData::new("one simulated day of the demo building");
    for device in devices.devices.iter().take(MOST_DEVICES) {
        let id = DeviceId::new(&device.id)?;
        let mut sensor = Building::new(SEED).sensor(Zone::of(&ZoneId::new(&device.zone)?), &id);
        let readings = (0..READINGS).map(|number| {
            let at = DAY.plus(READING_EVERY * number);
            (at, sensor.sample(at))
        });
        data.add(id, readings.collect());
    }
    Ok(data)
}

/// Trains on `data` with a progress bar, and saves the model.
pub(crate) fn save(config: &Config, data: &TrainingData) -> Result<Model> {
    let bar = ProgressBar::new(100);
    if let Ok(style) = ProgressStyle::with_template("training the isolation forest {bar:30} {percent}%") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    let options = TrainOptions {
        false_alarm_rate: config.false_alarm_rate,
        ..TrainOptions::new(SEED, clock::now())
    };
    let model = train(data, &options, &mut |share| {
        bar.set_position((share * 100.0) as u64);
    });
    bar.finish_and_clear();
    let model = model.context("cannot train a model")?;
    let path = config.files.model();
    model
        .save(&path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(model)
}
