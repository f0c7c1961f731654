//! What the forest is shown: thirteen streaming features of a device, each a maximum over its kind.
//!
//! A stuck, drifting or uncorrelated sensor has ordinary values, so a forest over raw readings
//! never sees it. Here [`residual`] says what a value should be given the others, [`profile`] holds
//! what is ordinary for one device (fitted once, then frozen), [`stream`] keeps the memory of past
//! readings, and this file aggregates the *heads* (one number per kind and residual or channel)
//! to [`COUNT`] features, because a forest over all heads sees less: each is rarely chosen.

pub mod course;
pub mod profile;
pub mod residual;
mod solve;
pub mod stream;

use crate::channel::MAX_TRACKED;
use profile::Profile;
use serde::{Deserialize, Serialize};

/// How many features there are.
pub const COUNT: usize = Feature::ALL.len();

/// Heads per residual: value, fast mean, slow mean, fast variance, slow variance, cumulative sum,
/// mean product with the value explained.
pub(crate) const RESIDUAL_HEADS: usize = 7;
/// Heads per channel: run length, step, distance out of range.
pub(crate) const CHANNEL_HEADS: usize = 3;

/// No feature is larger; keeps sums of features finite whatever a device sends.
const LIMIT: f32 = 1e4;
/// Deviations in a root mean square are cut here, so that one residual does not drown the others.
const RMS_LIMIT: f32 = 20.0;

/// One feature. All are in units of the device's own spread, and 0 is the most ordinary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Feature {
    /// A value away from what the other channels explain.
    Residual,
    /// The same, averaged over about 12 readings.
    MeanFast,
    /// The same, averaged over about 60 readings.
    MeanSlow,
    /// Scatter over about 12 readings: more or less than usual.
    ScatterFast,
    /// Scatter over about 60 readings.
    ScatterSlow,
    /// Cumulative sum of small deviations to one side: a drift.
    Drift,
    /// What a value leaves unexplained follows the explanation: the connection itself is gone, or
    /// its gain has changed.
    Coupling,
    /// A channel repeats exactly the same value.
    Stuck,
    /// All channels repeat exactly the same values.
    Frozen,
    /// Change since the last reading.
    Step,
    /// Distance beyond the values of training.
    Range,
    /// Root mean square of all fast means: many small deviations at once.
    SpreadFast,
    /// Root mean square of all slow means.
    SpreadSlow,
}

impl Feature {
    /// All, in the order in which they stand in a row.
    pub const ALL: [Self; 13] = [
        Self::Residual,
        Self::MeanFast,
        Self::MeanSlow,
        Self::ScatterFast,
        Self::ScatterSlow,
        Self::Drift,
        Self::Coupling,
        Self::Stuck,
        Self::Frozen,
        Self::Step,
        Self::Range,
        Self::SpreadFast,
        Self::SpreadSlow,
    ];

    /// The name for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Residual => "unexplained value",
            Self::MeanFast => "unexplained for a minute",
            Self::MeanSlow => "unexplained for minutes",
            Self::ScatterFast => "scatter",
            Self::ScatterSlow => "lasting scatter",
            Self::Drift => "drift",
            Self::Coupling => "broken connection",
            Self::Stuck => "stuck channel",
            Self::Frozen => "frozen reading",
            Self::Step => "step",
            Self::Range => "out of range",
            Self::SpreadFast => "several unexplained for a minute",
            Self::SpreadSlow => "several unexplained for minutes",
        }
    }
}

/// How a feature's heads are read: which they are, and what counts as large.
#[derive(Clone, Copy)]
enum Heads {
    /// Head `offset` of every residual.
    OfResiduals { offset: usize, two_sided: bool },
    /// Head `offset` of every channel.
    OfChannels { offset: usize },
    /// The one head of the whole row.
    OfRow,
    /// Root mean square of head `offset` of every residual.
    MeanSquare { offset: usize },
}

const fn heads_of(feature: Feature) -> Heads {
    match feature {
        Feature::Residual => Heads::OfResiduals {
            offset: 0,
            two_sided: true,
        },
        Feature::MeanFast => Heads::OfResiduals {
            offset: 1,
            two_sided: true,
        },
        Feature::MeanSlow => Heads::OfResiduals {
            offset: 2,
            two_sided: true,
        },
        Feature::ScatterFast => Heads::OfResiduals {
            offset: 3,
            two_sided: true,
        },
        Feature::ScatterSlow => Heads::OfResiduals {
            offset: 4,
            two_sided: true,
        },
        Feature::Drift => Heads::OfResiduals {
            offset: 5,
            two_sided: false,
        },
        Feature::Coupling => Heads::OfResiduals {
            offset: 6,
            two_sided: true,
        },
        Feature::Stuck => Heads::OfChannels { offset: 0 },
        Feature::Step => Heads::OfChannels { offset: 1 },
        Feature::Range => Heads::OfChannels { offset: 2 },
        Feature::Frozen => Heads::OfRow,
        Feature::SpreadFast => Heads::MeanSquare { offset: 1 },
        Feature::SpreadSlow => Heads::MeanSquare { offset: 2 },
    }
}

/// Widest row that a forest over readings is shown.
const MOST_WIDE: usize = if COUNT > MAX_TRACKED { COUNT } else { MAX_TRACKED };

/// What a forest is shown of one reading: its features or its raw values, without a heap.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct FeatureRow {
    values: [f32; MOST_WIDE],
    width: usize,
}

impl FeatureRow {
    pub(crate) fn new(features: &[f32]) -> Self {
        let mut row = Self {
            values: [0.0; MOST_WIDE],
            width: features.len(),
        };
        row.values[..features.len()].copy_from_slice(features);
        row
    }

    /// Raw values as f32, kept finite.
    pub(crate) fn raw(x: &[f64]) -> Self {
        let mut row = Self {
            values: [0.0; MOST_WIDE],
            width: x.len(),
        };
        for (slot, value) in row.values.iter_mut().zip(x) {
            *slot = value.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32;
        }
        row
    }

    pub(crate) fn as_slice(&self) -> &[f32] {
        &self.values[..self.width]
    }
}

/// The features of one reading from its `heads`, as [`stream::State::observe`] wrote them.
#[must_use]
pub fn aggregate(profile: &Profile, heads: &[f32]) -> [f32; COUNT] {
    Feature::ALL.map(|feature| largest(profile, heads, feature).1.clamp(-LIMIT, LIMIT))
}

/// Which residual or channel made `feature` as large as it is, by position in the profile.
#[must_use]
pub(crate) fn cause(profile: &Profile, heads: &[f32], feature: Feature) -> usize {
    largest(profile, heads, feature).0
}

fn largest(profile: &Profile, heads: &[f32], feature: Feature) -> (usize, f32) {
    let residuals = profile.residuals.len();
    let deviation = |head: usize| (heads[head] - profile.heads[head].median) / profile.heads[head].spread;
    let residual = |index: usize, offset: usize| deviation(index * RESIDUAL_HEADS + offset);
    match heads_of(feature) {
        Heads::OfResiduals { offset, two_sided } => maximum(residuals, |index| {
            let deviation = residual(index, offset);
            if two_sided { deviation.abs() } else { deviation }
        }),
        Heads::OfChannels { offset } => maximum(profile.channels.len(), |index| {
            deviation(residuals * RESIDUAL_HEADS + index * CHANNEL_HEADS + offset)
        }),
        Heads::OfRow => (0, deviation(heads.len() - 1)),
        Heads::MeanSquare { offset } => {
            let squares = (0..residuals)
                .map(|i| residual(i, offset).abs().min(RMS_LIMIT).powi(2))
                .sum::<f32>();
            let (index, _) = maximum(residuals, |index| residual(index, offset).abs());
            (index, (squares / residuals.max(1) as f32).sqrt())
        }
    }
}

/// The position and size of the largest of `count` values; (0, 0) of none.
fn maximum(count: usize, value: impl Fn(usize) -> f32) -> (usize, f32) {
    let mut best = (0, if count == 0 { 0.0 } else { f32::NEG_INFINITY });
    for index in 0..count {
        let candidate = value(index);
        if candidate > best.1 {
            best = (index, candidate);
        }
    }
    best
}
