//! Training: ordinary readings of a fleet in, a frozen model out.
//!
//! The model's profiles and forest rest on all readings. Its threshold rests on each half of them,
//! older and newer, as a model of the other half alone scores it: no reading is judged by what has
//! seen it. A random split would leak, as neighbours in time are alike.

use crate::calibrate::Calibration;
use crate::channel::MAX_TRACKED;
use crate::detector::WARM_UP_READINGS;
use crate::features::profile::Profile;
use crate::features::{COUNT, Feature};
use crate::forest::{Forest, Kind, MAX_SUBSAMPLE, MAX_TREES, Rows};
use crate::model::{About, Fleet, Model};
use crate::series::{Demands, Series, units_mistaken};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::time::Timestamp;

pub use crate::data::{KnownAlarm, TrainingData};
pub use crate::series::RECOVERY_READINGS;

/// Fewest readings per device: an hour and a half at 5 s.
pub const MIN_READINGS: usize = 1_000;
/// Fewest readings per device for [`fit`], which promises no threshold.
pub const MIN_FIT_READINGS: usize = 100;
/// Fewest devices of which one that differs by the factor of a unit is taken to be the mistake.
const MIN_FLEET: usize = 3;

/// What training does about readings that are known not to be ordinary: those of a
/// [`KnownAlarm`], and those outside what a sensor can mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Alarms {
    /// Refuses all, and names the first.
    #[default]
    Refuse,
    /// Leaves them out, and the [`RECOVERY_READINGS`] after each alarm with them.
    LeaveOut,
}

/// What the forest is shown of a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureSet {
    /// The streaming features of [`crate::features`].
    #[default]
    Stream,
    /// The values of the channels themselves, as the original system had it: for comparison.
    Raw,
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
    /// What the forest is shown.
    pub features: FeatureSet,
    /// What becomes of readings that are known not to be ordinary.
    pub alarms: Alarms,
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
            features: FeatureSet::Stream,
            alarms: Alarms::Refuse,
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
    #[error("device {device} has {readings} readings, at least {least} are needed")]
    TooShort {
        /// The device.
        device: DeviceId,
        /// How many readings it has to learn from.
        readings: usize,
        /// How many are needed.
        least: usize,
    },
    /// Nothing can be learned from a sensor that never moves.
    #[error(
        "device {device} always shows the same values in rows {} to {}: is it stuck?",
        .rows.start, .rows.end
    )]
    Constant {
        /// The device.
        device: DeviceId,
        /// Its rows, from 0 to below the end.
        rows: Range<usize>,
    },
    /// Readings that are known not to be ordinary would be learnt as ordinary.
    #[error(
        "device {device}, rows {} to {} are not ordinary ({why}): leave them out",
        .rows.start, .rows.end
    )]
    Poisoned {
        /// The device.
        device: DeviceId,
        /// Its rows, from 0 to below the end.
        rows: Range<usize>,
        /// What is known about them.
        why: String,
    },
    /// The features look back, so a reading must not come before an older one.
    #[error("device {device}, row {row} is older than the row before it: sort by time")]
    Order {
        /// The device.
        device: DeviceId,
        /// The row, from 0.
        row: usize,
    },
    /// A channel differs from the same device's other half, or from the fleet, by just the factor
    /// between two units.
    #[error(
        "device {device} shows {channel} around {here:.3} and {there:.3} elsewhere, \
         the factor between {units}: is its unit right?"
    )]
    Unit {
        /// The device.
        device: DeviceId,
        /// The channel's name in messages.
        channel: String,
        /// Its mean in this device's newer half.
        here: f64,
        /// Its mean in the older half, or the median of the fleet.
        there: f64,
        /// The two units.
        units: &'static str,
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
    /// Raw values of different channels cannot stand in one table.
    #[error("devices {device} and {other} have different channels: raw values need the same ones")]
    ChannelsDiffer {
        /// A device.
        device: DeviceId,
        /// One that differs from it.
        other: DeviceId,
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

/// Every reason why `data` may not be learnt from, at most one for each device.
#[must_use]
pub fn check(data: &TrainingData, alarms: Alarms) -> Vec<TrainError> {
    if data.devices.is_empty() {
        return vec![TrainError::NoData];
    }
    let (mut sound, mut refused) = (Vec::new(), Vec::new());
    for data in &data.devices {
        match Series::new(data, strict(alarms)) {
            Ok(series) => sound.push(series),
            Err(error) => refused.push(error),
        }
    }
    refused.extend(check_fleet_units(&sound));
    refused
}

/// Trains a model whose threshold is calibrated on readings as they look to a model that has not
/// seen them. `progress` is told the share that is done, 0 to 1.
///
/// # Errors
///
/// See [`TrainError`].
pub fn train(
    data: &TrainingData,
    options: &TrainOptions,
    progress: &mut dyn FnMut(f32),
) -> Result<Model, TrainError> {
    let fleet = prepare(data, options, strict(options.alarms))?;
    if let Some(error) = check_fleet_units(&fleet) {
        return Err(error);
    }
    let older: Vec<_> = fleet.iter().map(|series| 0..series.middle()).collect();
    let newer: Vec<_> = fleet.iter().map(|series| series.middle()..series.len()).collect();
    let mut scores = Vec::new();
    for (done, (seen, unseen)) in [(&older, &newer), (&newer, &older)].into_iter().enumerate() {
        let half = Fit::new(&fleet, seen, options);
        progress(0.3 * done as f32 + 0.2);
        for ((series, profile), unseen) in fleet.iter().zip(&half.profiles).zip(unseen) {
            scores.extend(half.scores(series, profile, options.features, unseen.clone()));
        }
        progress(0.3 * done as f32 + 0.3);
    }
    let calibration = Calibration::fit(scores, options.false_alarm_rate);
    let model = assemble(data, &fleet, options, |_, _| calibration);
    progress(1.0);
    Ok(model)
}

/// Fits profiles and forest to all of `data`, and calibrates on the same readings: for scores that
/// somebody else sets a threshold for, as [`Scorer`](crate::scorer::Scorer) gives them. Its own
/// threshold promises nothing about other readings. The readings are taken at their word: no value is
/// too large, and [`MIN_FIT_READINGS`] are enough.
///
/// # Errors
///
/// See [`TrainError`].
pub fn fit(
    data: &TrainingData,
    options: &TrainOptions,
    progress: &mut dyn FnMut(f32),
) -> Result<Model, TrainError> {
    let demands = Demands {
        alarms: options.alarms,
        least: MIN_FIT_READINGS,
        plausible: false,
    };
    let fleet = prepare(data, options, demands)?;
    let model = assemble(data, &fleet, options, |fit, whole| {
        let scores = fleet
            .iter()
            .zip(&fit.profiles)
            .zip(whole)
            .flat_map(|((series, profile), range)| {
                fit.scores(series, profile, options.features, range.clone())
            })
            .collect();
        Calibration::fit(scores, options.false_alarm_rate)
    });
    progress(1.0);
    Ok(model)
}

/// Profiles and a forest, of a part of each device's readings.
struct Fit {
    profiles: Vec<Profile>,
    forest: Forest,
    /// How many readings the forest was grown from.
    readings: usize,
}

impl Fit {
    fn new(fleet: &[Series<'_>], ranges: &[Range<usize>], options: &TrainOptions) -> Self {
        let mut profiles = Vec::with_capacity(fleet.len());
        let mut rows = Vec::new();
        for (series, range) in fleet.iter().zip(ranges) {
            let profile = series.fit(range.clone());
            rows.extend(series.rows(&profile, options.features, range.clone()));
            profiles.push(profile);
        }
        let rows = Rows::new(&rows, width(fleet, options.features));
        Self {
            forest: Forest::grow(
                options.forest,
                rows,
                options.trees,
                options.subsample,
                options.seed,
            ),
            readings: rows.len(),
            profiles,
        }
    }

    /// The scores of what a detector would judge: not the warm-up.
    fn scores(
        &self,
        series: &Series<'_>,
        profile: &Profile,
        set: FeatureSet,
        range: Range<usize>,
    ) -> Vec<f32> {
        let rows = series.rows(profile, set, range);
        let width = match set {
            FeatureSet::Stream => COUNT,
            FeatureSet::Raw => series.names.len(),
        };
        let judged = rows.get(WARM_UP_READINGS as usize * width..).unwrap_or_default();
        let rows = Rows::new(judged, width);
        let mut scores = vec![0.0; rows.len()];
        self.forest.score_batch(rows, &mut scores);
        scores
    }
}

/// The model of all readings.
fn assemble(
    data: &TrainingData,
    fleet: &[Series<'_>],
    options: &TrainOptions,
    calibrate: impl FnOnce(&Fit, &[Range<usize>]) -> Calibration,
) -> Model {
    let whole: Vec<_> = fleet.iter().map(|series| 0..series.len()).collect();
    let fit = Fit::new(fleet, &whole, options);
    let calibration = calibrate(&fit, &whole);
    let about = About {
        data: data.description.clone(),
        trained_at_us: options.trained_at.as_micros(),
        seed: options.seed,
        training_readings: fit.readings as u64,
        forest: options.forest,
        trees: options.trees as u64,
        subsample: options.subsample.min(fit.readings) as u64,
        feature_set: options.features,
        features: match options.features {
            FeatureSet::Stream => Feature::ALL.to_vec(),
            FeatureSet::Raw => Vec::new(),
        },
    };
    let strangers = fit_fleet(fleet, &fit, &calibration, options);
    Model::new(about, calibration, fit.profiles, strangers, fit.forest)
}

/// What devices that are not in training are judged by, where all devices have the same channels:
/// one profile of all, with a threshold from devices as a profile of other devices scores them.
fn fit_fleet(fleet: &[Series<'_>], fit: &Fit, own: &Calibration, options: &TrainOptions) -> Option<Fleet> {
    if fleet.iter().any(|series| series.names != fleet[0].names) {
        return None;
    }
    let (even, odd): (Vec<_>, Vec<_>) = fleet.iter().enumerate().partition(|(index, _)| index % 2 == 0);
    let mut scores = Vec::new();
    if !odd.is_empty() {
        for (seen, unseen) in [(&even, &odd), (&odd, &even)] {
            let profile = Series::joined(seen.iter().map(|(_, series)| *series));
            for (_, series) in unseen {
                scores.extend(fit.scores(series, &profile, options.features, 0..series.len()));
            }
        }
    }
    Some(Fleet {
        profile: Series::joined(fleet.iter()),
        calibration: if scores.is_empty() {
            *own
        } else {
            Calibration::fit(scores, options.false_alarm_rate)
        },
    })
}

fn width(fleet: &[Series<'_>], set: FeatureSet) -> usize {
    match set {
        FeatureSet::Stream => COUNT,
        FeatureSet::Raw => fleet[0].names.len(),
    }
}

/// What [`train`] asks of readings.
fn strict(alarms: Alarms) -> Demands {
    Demands {
        alarms,
        least: MIN_READINGS,
        plausible: true,
    }
}

fn prepare<'a>(
    data: &'a TrainingData,
    options: &TrainOptions,
    demands: Demands,
) -> Result<Vec<Series<'a>>, TrainError> {
    check_options(options)?;
    if data.devices.is_empty() {
        return Err(TrainError::NoData);
    }
    let fleet: Vec<Series<'_>> = data
        .devices
        .iter()
        .map(|data| Series::new(data, demands))
        .collect::<Result<_, _>>()?;
    let differs = fleet.iter().find(|series| series.names != fleet[0].names);
    match differs.filter(|_| options.features == FeatureSet::Raw) {
        Some(other) => Err(TrainError::ChannelsDiffer {
            device: other.device.clone(),
            other: fleet[0].device.clone(),
        }),
        None => Ok(fleet),
    }
}

/// The first device of which a channel lies apart from the fleet's median by the factor of units.
fn check_fleet_units(fleet: &[Series<'_>]) -> Option<TrainError> {
    for series in fleet {
        for (channel, name) in series.names.iter().enumerate() {
            let mut means: Vec<f64> = fleet
                .iter()
                .filter_map(|other| {
                    let at = other.names.iter().position(|known| known == name)?;
                    Some(other.mean(at, 0..other.len()))
                })
                .collect();
            if means.len() < MIN_FLEET {
                continue;
            }
            means.sort_unstable_by(f64::total_cmp);
            let (here, there) = (series.mean(channel, 0..series.len()), means[means.len() / 2]);
            if let Some(units) = units_mistaken(name, here, there) {
                return Some(TrainError::Unit {
                    device: series.device.clone(),
                    channel: (*name).to_owned(),
                    here,
                    there,
                    units,
                });
            }
        }
    }
    None
}

fn check_options(options: &TrainOptions) -> Result<(), TrainError> {
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
