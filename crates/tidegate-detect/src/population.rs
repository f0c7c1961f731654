//! Has what is ordinary changed since training? The operator is told, and decides.
//!
//! Nothing here changes a model: one that follows its readings by itself absorbs slow faults too.
//! For each device, readings since [`Population::new`] are compared with training in three ways: how
//! many are over the threshold, how their scores spread over the deciles of calibration (population
//! stability index), and how far each channel's mean has moved.

use crate::channel::{quantity, unit, words};
use crate::detector::{Assessment, RULE_SCORE};
use crate::features::profile::{ChannelProfile, Profile};
use crate::model::{Model, ProfilePosition};
use std::sync::Arc;
use tidegate_envelope::id::{DeviceId, DeviceIndex};
use tidegate_envelope::reading::Channels;

/// Fewest readings that anything is said about: an hour and a half at 5 s.
pub const MIN_READINGS: u64 = 1_000;
/// A stability index above this says that the scores are no longer those of training; the usual
/// reading of it is: below 0.1 the same, to 0.25 to be watched.
pub const UNSTABLE: f64 = 0.25;
/// So many times the set rate over the threshold is more than chance, readings being alike in a row …
const RATE_TIMES: f64 = 3.0;
/// … from this many readings over it.
const RATE_LEAST: u64 = 30;
/// A channel's mean this many of its standard deviations from that of training has moved.
const MOVED: f64 = 1.5;
/// A share of scores counts as at least this, so that an empty decile is no infinity.
const LEAST_SHARE: f64 = 1e-4;

/// What has been seen of each device since a moment.
#[derive(Debug, Clone)]
pub struct Population {
    model: Arc<Model>,
    devices: Vec<Option<Seen>>,
}

#[derive(Debug, Clone)]
struct Seen {
    position: ProfilePosition,
    judged: u64,
    over: u64,
    /// By decile of calibration.
    tenths: [u64; 10],
    sums: Vec<f64>,
}

/// One device, compared with training.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceReport {
    /// The device.
    pub device: DeviceIndex,
    /// How many readings were judged by the forest.
    pub readings: u64,
    /// The rate of readings over the threshold that was set.
    pub rate_set: f64,
    /// The rate of readings over the threshold, faults among them.
    pub rate: f64,
    /// Population stability index of the scores, at least 0: Σ (p − q)·ln(p/q) over deciles.
    pub stability: f64,
    /// How far each channel's mean is from that of training, in its standard deviations there.
    pub shifts: Vec<Shift>,
    /// Why training again may be due, in sentences; none where nothing speaks for it.
    pub reasons: Vec<String>,
}

/// How far a channel has moved.
#[derive(Debug, Clone, PartialEq)]
pub struct Shift {
    /// The channel's name in messages.
    pub channel: String,
    /// Mean of training, in the channel's unit.
    pub trained: f64,
    /// Mean since then.
    pub seen: f64,
    /// Their difference in standard deviations of training.
    pub deviations: f64,
}

impl Population {
    /// Nothing seen yet of `devices`, in the order of their [`DeviceIndex`].
    #[must_use]
    pub fn new<'a>(model: Arc<Model>, devices: impl IntoIterator<Item = &'a DeviceId>) -> Self {
        let seen = |device| {
            let position = model.profile_position(device)?;
            Some(Seen {
                position,
                judged: 0,
                over: 0,
                tenths: [0; 10],
                sums: vec![0.0; model.profile_at(position).channels.len()],
            })
        };
        Self {
            devices: devices.into_iter().map(seen).collect(),
            model,
        }
    }

    /// Takes in a reading and what a detector with the same model said of it. Readings that the
    /// forest did not judge, for a broken rule or in the warm-up, do not count; nor do those of a
    /// device that is not known.
    pub fn observe(&mut self, device: DeviceIndex, channels: &Channels, assessment: &Assessment) {
        let Some(Some(seen)) = self.devices.get_mut(device.0 as usize) else {
            return;
        };
        if assessment.score <= RULE_SCORE || assessment.score == 0.0 {
            return;
        }
        let calibration = self.model.calibration_at(seen.position);
        let anomaly = calibration.threshold - assessment.score;
        seen.judged += 1;
        seen.over += u64::from(assessment.score < 0.0);
        seen.tenths[calibration.deciles.partition_point(|decile| *decile < anomaly)] += 1;
        let profile = self.model.profile_at(seen.position);
        for (sum, channel) in seen.sums.iter_mut().zip(&profile.channels) {
            *sum += channels.get(&channel.name).unwrap_or(channel.mean);
        }
    }

    /// Every device of which enough has been seen.
    #[must_use]
    pub fn report(&self) -> Vec<DeviceReport> {
        let devices = (0_u32..).zip(&self.devices);
        let seen = devices.filter_map(|(index, seen)| Some((DeviceIndex(index), seen.as_ref()?)));
        let enough = seen.filter(|(_, seen)| seen.judged >= MIN_READINGS);
        enough.map(|(device, seen)| self.compare(device, seen)).collect()
    }

    fn compare(&self, device: DeviceIndex, seen: &Seen) -> DeviceReport {
        let calibration = self.model.calibration_at(seen.position);
        let profile = self.model.profile_at(seen.position);
        let rate_set = calibration.false_alarm_rate.max(calibration.least_rate);
        let rate = seen.over as f64 / seen.judged as f64;
        let stability = stability(&seen.tenths, seen.judged);
        let shifts = shifts(profile, &seen.sums, seen.judged);
        let mut reasons = Vec::new();
        if seen.over >= RATE_LEAST && rate > RATE_TIMES * rate_set {
            reasons.push(format!(
                "{:.2}% of readings are over the threshold, {:.2}% was set",
                100.0 * rate,
                100.0 * rate_set
            ));
        }
        if stability > UNSTABLE {
            reasons.push(format!(
                "scores are spread otherwise than in training: stability index {stability:.2}, above {UNSTABLE}"
            ));
        }
        for shift in shifts.iter().filter(|shift| shift.deviations.abs() > MOVED) {
            let unit = unit(&shift.channel);
            reasons.push(format!(
                "{} is {} on average, {} in training",
                words(&shift.channel),
                quantity(shift.seen, 1, unit),
                quantity(shift.trained, 1, unit)
            ));
        }
        DeviceReport {
            device,
            readings: seen.judged,
            rate_set,
            rate,
            stability,
            shifts,
            reasons,
        }
    }
}

fn stability(tenths: &[u64; 10], judged: u64) -> f64 {
    let term = |count: &u64| {
        let share = (*count as f64 / judged as f64).max(LEAST_SHARE);
        (share - 0.1) * (share / 0.1).ln()
    };
    tenths.iter().map(term).sum()
}

fn shifts(profile: &Profile, sums: &[f64], judged: u64) -> Vec<Shift> {
    let shift = |(channel, sum): (&ChannelProfile, &f64)| {
        let seen = sum / judged as f64;
        Shift {
            channel: channel.name.clone(),
            trained: channel.mean,
            seen,
            deviations: channel.standard(seen),
        }
    };
    profile.channels.iter().zip(sums).map(shift).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stability_index_is_0_of_the_same_and_large_of_another_spread() {
        assert!(stability(&[100; 10], 1_000).abs() < 1e-12);
        // By hand: half in two tenths each is 2·0.4·ln 5 − 8·(0.0001 − 0.1)·ln 1000 with the floor.
        let two = stability(&[0, 0, 0, 0, 0, 0, 0, 0, 500, 500], 1_000);
        let expected = 0.8 * 5.0_f64.ln() + 8.0 * 0.0999 * 1_000.0_f64.ln();
        assert!((two - expected).abs() < 1e-9, "{two}");
    }
}
