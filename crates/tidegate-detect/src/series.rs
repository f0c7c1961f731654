//! One device's training readings as numbers, and why they may not be learnt from.

use crate::channel::{MAX_TRACKED, unit};
use crate::data::DeviceData;
use crate::features::profile::Profile;
use crate::features::stream::State;
use crate::rules::Rules;
use crate::scorer::row_of;
use crate::train::{Alarms, FeatureSet, TrainError};
use std::ops::Range;
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::time::Timestamp;

/// Readings after an alarm that are left out with it: the means of the features still remember it.
pub const RECOVERY_READINGS: usize = 240;
/// Mistakes in units that are looked for: the unit of the channel, the factor, and the two units.
const UNIT_FACTORS: [(&str, f64, &str); 3] = [
    ("PSI", 6.894_757, "PSI and kPa"),
    ("PSI", 14.503_77, "bar and PSI"),
    ("%", 100.0, "fractions and percent"),
];
/// A ratio counts as a factor within this share of it.
const UNIT_TOLERANCE: f64 = 0.1;

/// What is asked of readings before they are learnt from.
#[derive(Clone, Copy)]
pub(crate) struct Demands {
    /// What becomes of readings that are known not to be ordinary.
    pub(crate) alarms: Alarms,
    /// Fewest readings that are left.
    pub(crate) least: usize,
    /// Whether values must be such as sensors can mean, in the unit that they are said to have.
    pub(crate) plausible: bool,
}

/// One device's readings as numbers.
pub(crate) struct Series<'a> {
    pub(crate) device: &'a DeviceId,
    pub(crate) names: Vec<&'a str>,
    pub(crate) times: Vec<Timestamp>,
    /// A value per name, reading after reading.
    pub(crate) values: Vec<f64>,
    /// Whether each reading is learnt from. The others only pass through the memory of features.
    pub(crate) kept: Vec<bool>,
}

impl<'a> Series<'a> {
    /// # Errors
    ///
    /// The first reason why these readings may not be learnt from.
    pub(crate) fn new(data: &'a DeviceData, demands: Demands) -> Result<Self, TrainError> {
        let device = || data.device.clone();
        if let Some(at) = data.rows.windows(2).position(|pair| pair[1].0 < pair[0].0) {
            return Err(TrainError::Order {
                device: device(),
                row: at + 1,
            });
        }
        let out_of_range = if demands.plausible {
            out_of_range(data)
        } else {
            Vec::new()
        };
        let known = known(data);
        if demands.alarms == Alarms::Refuse
            && let Some((rows, why)) = known.iter().chain(&out_of_range).next()
        {
            return Err(TrainError::Poisoned {
                device: device(),
                rows: rows.clone(),
                why: why.clone(),
            });
        }
        let mut gross = vec![false; data.rows.len()];
        out_of_range
            .iter()
            .for_each(|(rows, _)| gross[rows.clone()].fill(true));
        let mut kept = vec![true; data.rows.len()];
        for (rows, _) in &known {
            let end = (rows.end + RECOVERY_READINGS).min(kept.len());
            kept[rows.start..end].fill(false);
        }
        // What breaks a range never reaches a device's memory, so it does not here.
        let rows: Vec<_> = (0..data.rows.len()).filter(|&row| !gross[row]).collect();
        let kept: Vec<bool> = rows.iter().map(|&row| kept[row]).collect();
        let readings = kept.iter().filter(|&&kept| kept).count();
        if readings < demands.least {
            return Err(TrainError::TooShort {
                device: device(),
                readings,
                least: demands.least,
            });
        }
        let first = &data.rows[rows[0]].1;
        let mut names: Vec<&str> = first.iter().map(|(name, _)| name).collect();
        names.retain(|name| rows.iter().all(|&row| data.rows[row].1.get(name).is_some()));
        if names.is_empty() {
            return Err(TrainError::NoChannel { device: device() });
        }
        if names.len() > MAX_TRACKED {
            return Err(TrainError::TooManyChannels {
                device: device(),
                channels: names.len(),
            });
        }
        let values = rows
            .iter()
            .flat_map(|&row| names.iter().filter_map(move |name| data.rows[row].1.get(name)))
            .collect();
        let series = Self {
            device: &data.device,
            names,
            times: rows.iter().map(|&row| data.rows[row].0).collect(),
            values,
            kept,
        };
        series.check_variation()?;
        if demands.plausible {
            series.check_units()?;
        }
        Ok(series)
    }

    /// How many readings there are.
    pub(crate) fn len(&self) -> usize {
        self.times.len()
    }

    /// How many of the readings in `range` are learnt from.
    pub(crate) fn kept_in(&self, range: Range<usize>) -> usize {
        self.kept[range].iter().filter(|&&kept| kept).count()
    }

    /// The index from which the newer half of what is learnt from begins.
    pub(crate) fn middle(&self) -> usize {
        let half = self.kept_in(0..self.len()) / 2;
        let mut kept = (0..self.len()).filter(|&row| self.kept[row]);
        kept.nth(half).unwrap_or(self.len())
    }

    /// A profile of the readings in `range`.
    pub(crate) fn fit(&self, range: Range<usize>) -> Profile {
        let width = self.names.len();
        Profile::fit_kept(
            self.device.as_str(),
            &self.names,
            &self.times[range.clone()],
            &self.values[range.start * width..range.end * width],
            &self.kept[range],
        )
    }

    /// One profile of all readings of `fleet`, which have the same channels and are not empty.
    pub(crate) fn joined<'s>(fleet: impl Iterator<Item = &'s Self>) -> Profile
    where
        'a: 's,
    {
        let (mut names, mut times, mut values, mut kept) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for series in fleet {
            names.clone_from(&series.names);
            times.extend_from_slice(&series.times);
            values.extend_from_slice(&series.values);
            kept.extend_from_slice(&series.kept);
        }
        Profile::fit_kept("", &names, &times, &values, &kept)
    }

    /// What the forest is shown of the readings in `range` that are learnt from, computed as a
    /// detector computes it that hears the device for the first time at the start of `range`.
    pub(crate) fn rows(&self, profile: &Profile, set: FeatureSet, range: Range<usize>) -> Vec<f32> {
        let mut state = State::new(profile);
        let mut heads = vec![0.0; profile.head_count()];
        let mut rows = Vec::new();
        let width = self.names.len();
        for index in range {
            let x = &self.values[index * width..(index + 1) * width];
            state.observe(profile, self.times[index], x, &mut heads);
            if self.kept[index] {
                rows.extend_from_slice(row_of(set, profile, &heads, x).as_slice());
            }
        }
        rows
    }

    /// Mean of one channel over the readings in `range` that are learnt from.
    pub(crate) fn mean(&self, channel: usize, range: Range<usize>) -> f64 {
        let kept = range.filter(|&row| self.kept[row]);
        let values = kept.map(|row| self.values[row * self.names.len() + channel]);
        let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
        if count > 0.0 { sum / count } else { 0.0 }
    }

    fn check_variation(&self) -> Result<(), TrainError> {
        let width = self.names.len();
        let constant = |range: Range<usize>| {
            let row = |index: usize| &self.values[index * width..(index + 1) * width];
            let mut kept = range.filter(|&index| self.kept[index]);
            let first = kept.next().map(row);
            kept.all(|index| Some(row(index)) == first)
        };
        let middle = self.middle();
        for half in [0..middle, middle..self.len()] {
            if constant(half.clone()) {
                return Err(TrainError::Constant {
                    device: self.device.clone(),
                    rows: half,
                });
            }
        }
        Ok(())
    }

    /// A channel whose two halves lie apart by the factor of two units was changed in between.
    fn check_units(&self) -> Result<(), TrainError> {
        let middle = self.middle();
        for (channel, name) in self.names.iter().enumerate() {
            let means = [0..middle, middle..self.len()].map(|half| self.mean(channel, half));
            if let Some(units) = units_mistaken(name, means[0], means[1]) {
                return Err(TrainError::Unit {
                    device: self.device.clone(),
                    channel: (*name).to_owned(),
                    here: means[1],
                    there: means[0],
                    units,
                });
            }
        }
        Ok(())
    }
}

/// The two units between which `a` and `b` would be the same, where they lie that far apart.
/// Only for pressures and gates: a day's flow may well be several times another's.
pub(crate) fn units_mistaken(channel: &str, a: f64, b: f64) -> Option<&'static str> {
    if a <= 0.0 || b <= 0.0 {
        return None;
    }
    let ratio = (a / b).max(b / a);
    let near = |factor: f64| (ratio / factor - 1.0).abs() < UNIT_TOLERANCE;
    let mut factors = UNIT_FACTORS.iter();
    let found = factors.find(|(of, factor, _)| *of == unit(channel) && near(*factor));
    found.map(|(_, _, units)| *units)
}

/// The rows of each known alarm that has any, and why.
fn known(data: &DeviceData) -> Vec<(Range<usize>, String)> {
    let rows = |from: Timestamp, until: Timestamp| {
        let start = data.rows.partition_point(|(at, _)| *at < from);
        let end = data.rows.partition_point(|(at, _)| *at <= until);
        (start < end).then_some(start..end)
    };
    let found = data
        .alarms
        .iter()
        .filter_map(|alarm| Some((rows(alarm.from, alarm.until)?, alarm.why.clone())));
    found.collect()
}

/// Runs of rows with a value that no sensor can mean, and the first one's reason.
fn out_of_range(data: &DeviceData) -> Vec<(Range<usize>, String)> {
    let rules = Rules::default();
    let mut found: Vec<(Range<usize>, String)> = Vec::new();
    for (row, (_, channels)) in data.rows.iter().enumerate() {
        let Some(broken) = rules.out_of_range(channels) else {
            continue;
        };
        match found.last_mut() {
            Some((rows, _)) if rows.end == row => rows.end = row + 1,
            _ => found.push((row..row + 1, broken.sentence)),
        }
    }
    found
}
