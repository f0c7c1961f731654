//! Training: ordinary readings of a fleet in, a frozen model out.
//!
//! The older half of each device's readings fits its profile and grows the forest; the newer half,
//! which neither has seen, calibrates the threshold. A random split would leak: neighbours in time
//! are alike.

use crate::calibrate::Calibration;
use crate::channel::MAX_TRACKED;
use crate::features::profile::Profile;
use crate::features::stream::State;
use crate::features::{COUNT, Feature, aggregate};
use crate::forest::{Forest, Kind, MAX_SUBSAMPLE, MAX_TREES, Rows};
use crate::model::{About, Model};
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::reading::Channels;
use tidegate_envelope::time::Timestamp;

/// Fewest readings per device: an hour and a half at 5 s.
pub const MIN_READINGS: usize = 1_000;

/// Ordinary readings of a fleet. They should cover what is ordinary: a whole day of use, as night
/// and morning differ.
#[derive(Debug, Clone, Default)]
pub struct TrainingData {
    description: String,
    devices: Vec<(DeviceId, Vec<(Timestamp, Channels)>)>,
}

impl TrainingData {
    /// No data yet; `description` goes into the model.
    #[must_use]
    pub fn new(description: &str) -> Self {
        Self {
            description: description.to_owned(),
            devices: Vec::new(),
        }
    }

    /// Adds a device's readings, oldest first. Readings of a device that is there already are
    /// appended to it.
    pub fn add(&mut self, device: DeviceId, readings: Vec<(Timestamp, Channels)>) {
        match self.devices.iter_mut().find(|(known, _)| *known == device) {
            Some((_, rows)) => rows.extend(readings),
            None => self.devices.push((device, readings)),
        }
    }

    /// How many readings there are in all.
    #[must_use]
    pub fn readings(&self) -> usize {
        self.devices.iter().map(|(_, rows)| rows.len()).sum()
    }
}

/// How to train.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainOptions {
    /// The same seed, data and build give the same model.
    pub seed: u64,
    /// When: the date that the model states.
    pub trained_at: Timestamp,
    /// Trees of the forest, 1 to [`MAX_TREES`].
    pub trees: usize,
    /// Rows per tree, 2 to [`MAX_SUBSAMPLE`].
    pub subsample: usize,
    /// Share of ordinary readings that may be over the threshold, above 0 to below 1.
    pub false_alarm_rate: f64,
    /// How the forest splits.
    pub forest: Kind,
}

impl TrainOptions {
    /// 100 oblique trees on 256 rows each, one false alarm in 10,000 readings.
    #[must_use]
    pub fn new(seed: u64, trained_at: Timestamp) -> Self {
        Self {
            seed,
            trained_at,
            trees: 100,
            subsample: 256,
            false_alarm_rate: 1e-4,
            forest: Kind::Oblique,
        }
    }
}

/// Why there is no model.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TrainError {
    /// No device has been added.
    #[error("there is no training data")]
    NoData,
    /// Too little to tell ordinary from not.
    #[error("device {device} has {readings} readings, at least {MIN_READINGS} are needed")]
    TooShort {
        /// The device.
        device: DeviceId,
        /// How many readings it has.
        readings: usize,
    },
    /// Nothing can be learned from a sensor that never moves.
    #[error("device {device} always shows the same values: is it stuck?")]
    Constant {
        /// The device.
        device: DeviceId,
    },
    /// No channel is in every reading.
    #[error("device {device} has no channel that is in all of its readings")]
    NoChannel {
        /// The device.
        device: DeviceId,
    },
    /// More channels than a device's state has room for.
    #[error("device {device} has {channels} channels, at most {MAX_TRACKED} can be judged")]
    TooManyChannels {
        /// The device.
        device: DeviceId,
        /// How many channels it has.
        channels: usize,
    },
    /// An option is out of range.
    #[error("{option} is {value}, it must be {allowed}")]
    Option {
        /// Which.
        option: &'static str,
        /// Its value.
        value: f64,
        /// What it may be.
        allowed: &'static str,
    },
}

/// One device's readings as numbers.
struct Series<'a> {
    device: &'a DeviceId,
    names: Vec<&'a str>,
    times: Vec<Timestamp>,
    /// A value per name, reading after reading.
    values: Vec<f64>,
}

/// Trains a model. `progress` is told the share that is done, 0 to 1.
///
/// # Errors
///
/// See [`TrainError`].
pub fn train(
    data: &TrainingData,
    options: &TrainOptions,
    progress: &mut dyn FnMut(f32),
) -> Result<Model, TrainError> {
    check(options)?;
    if data.devices.is_empty() {
        return Err(TrainError::NoData);
    }
    let fleet: Vec<Series<'_>> = data
        .devices
        .iter()
        .map(|(device, rows)| series(device, rows))
        .collect::<Result<_, _>>()?;
    let devices = fleet.len() as f32;
    let mut profiles = Vec::with_capacity(fleet.len());
    let mut grown_on = Vec::new();
    let mut held_out = Vec::new();
    for (done, series) in (0_u16..).zip(&fleet) {
        let profile = series.fit();
        let features = series.features(&profile);
        let (older, newer) = features.split_at(series.half() * COUNT);
        grown_on.extend_from_slice(older);
        held_out.extend_from_slice(newer);
        profiles.push(profile);
        progress(0.4 * (f32::from(done) + 1.0) / devices);
    }
    let rows = Rows::new(&grown_on, COUNT);
    let forest = Forest::grow(
        options.forest,
        rows,
        options.trees,
        options.subsample,
        options.seed,
    );
    progress(0.5);
    let held_out = Rows::new(&held_out, COUNT);
    let block = held_out.len().div_ceil(10).max(1);
    let mut scores = Vec::with_capacity(held_out.len());
    for index in 0..held_out.len() {
        scores.push(forest.score(held_out.row(index)));
        if index % block == 0 {
            progress(0.5 + 0.5 * index as f32 / held_out.len() as f32);
        }
    }
    let about = About {
        data: data.description.clone(),
        trained_at_us: options.trained_at.as_micros(),
        seed: options.seed,
        training_readings: rows.len() as u64,
        forest: options.forest,
        trees: options.trees as u64,
        subsample: options.subsample.min(rows.len()) as u64,
        features: Feature::ALL.to_vec(),
    };
    let calibration = Calibration::fit(scores, options.false_alarm_rate);
    let model = Model::new(about, calibration, profiles, fit_fleet(&fleet), forest);
    progress(1.0);
    Ok(model)
}

fn check(options: &TrainOptions) -> Result<(), TrainError> {
    let refuse = |option, value, allowed| {
        Err(TrainError::Option {
            option,
            value,
            allowed,
        })
    };
    if !(1..=MAX_TREES).contains(&options.trees) {
        return refuse("trees", options.trees as f64, "1 to 1000");
    }
    if !(2..=MAX_SUBSAMPLE).contains(&options.subsample) {
        return refuse("subsample", options.subsample as f64, "2 to 4096");
    }
    if !(options.false_alarm_rate > 0.0 && options.false_alarm_rate < 1.0) {
        return refuse(
            "false_alarm_rate",
            options.false_alarm_rate,
            "above 0 and below 1",
        );
    }
    Ok(())
}

fn series<'a>(device: &'a DeviceId, rows: &'a [(Timestamp, Channels)]) -> Result<Series<'a>, TrainError> {
    let owned = || device.clone();
    if rows.len() < MIN_READINGS {
        return Err(TrainError::TooShort {
            device: owned(),
            readings: rows.len(),
        });
    }
    let mut names: Vec<&str> = rows[0].1.iter().map(|(name, _)| name).collect();
    names.retain(|name| rows.iter().all(|(_, channels)| channels.get(name).is_some()));
    if names.is_empty() {
        return Err(TrainError::NoChannel { device: owned() });
    }
    if names.len() > MAX_TRACKED {
        return Err(TrainError::TooManyChannels {
            device: owned(),
            channels: names.len(),
        });
    }
    let values: Vec<f64> = rows
        .iter()
        .flat_map(|(_, channels)| names.iter().filter_map(|name| channels.get(name)))
        .collect();
    let constant = |rows: &[f64]| {
        rows.chunks_exact(names.len())
            .all(|row| *row == rows[..names.len()])
    };
    let (older, newer) = values.split_at(rows.len() / 2 * names.len());
    if constant(older) || constant(newer) {
        return Err(TrainError::Constant { device: owned() });
    }
    Ok(Series {
        device,
        names,
        times: rows.iter().map(|(at, _)| *at).collect(),
        values,
    })
}

impl Series<'_> {
    /// How many readings train; the others calibrate.
    fn half(&self) -> usize {
        self.times.len() / 2
    }

    fn fit(&self) -> Profile {
        let half = self.half();
        Profile::fit(
            self.device.as_str(),
            &self.names,
            &self.times[..half],
            &self.values[..half * self.names.len()],
        )
    }

    /// The features of all readings, computed as a detector computes them.
    fn features(&self, profile: &Profile) -> Vec<f32> {
        let mut state = State::new(profile);
        let mut heads = vec![0.0; profile.head_count()];
        let readings = self.values.chunks_exact(self.names.len()).zip(&self.times);
        let features = |(x, &at)| {
            state.observe(profile, at, x, &mut heads);
            aggregate(profile, &heads)
        };
        readings.flat_map(features).collect()
    }
}

/// One profile over the training readings of all devices, where they have the same channels.
fn fit_fleet(fleet: &[Series<'_>]) -> Option<Profile> {
    let names = &fleet[0].names;
    if fleet.iter().any(|series| series.names != *names) {
        return None;
    }
    let half = |series: &Series<'_>| series.half() * names.len();
    let times: Vec<_> = fleet
        .iter()
        .flat_map(|series| &series.times[..series.half()])
        .copied()
        .collect();
    let values: Vec<_> = fleet
        .iter()
        .flat_map(|series| &series.values[..half(series)])
        .copied()
        .collect();
    Some(Profile::fit("", names, &times, &values))
}
