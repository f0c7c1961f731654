//! What is ordinary for one device: fitted on normal readings, then frozen.

use super::residual::Basis;
use super::solve::ridge;
use super::stream::State;
use super::{CHANNEL_HEADS, RESIDUAL_HEADS};
use crate::channel::MAX_TRACKED;
use serde::{Deserialize, Serialize};
use tidegate_envelope::time::Timestamp;

/// Weight of the ridge penalty, relative to terms of size 1.
const RIDGE: f64 = 1e-6;
/// Mean absolute deviation to standard deviation, for normal noise: √(π/2).
const DEVIATION_PER_MEAN: f64 = 1.2533;
/// A residual whose scale is below this share of its target's spread is taken to have that scale:
/// a sensor's resolution would be judged otherwise.
const SMALLEST_SCALE: f64 = 0.02;
/// The same floor as a share of the channel's size, for a channel that never moved in training.
const SMALLEST_STEP: f64 = 1e-3;
/// Residuals that follow themselves more than this are slow: see [`ResidualProfile::is_slow`].
const SLOW: f64 = 0.5;
/// Upper bound of the autocorrelation, so that innovations never vanish.
const MOST_CORRELATED: f64 = 0.9995;
/// Share of training values at each end that count as out of range: a forest cannot learn from a
/// feature that is 0 in all of training.
const RANGE_TAIL: f64 = 0.005;
/// A channel that repeats its value more often than this in training (a gate at rest) is not
/// judged by its runs.
const MOST_REPEATS: f64 = 0.3;

/// One device's profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The device's name in the registry.
    pub device: String,
    /// Its channels, sorted by name; 1 to [`MAX_TRACKED`].
    pub channels: Vec<ChannelProfile>,
    /// Its regressions.
    pub residuals: Vec<ResidualProfile>,
    /// The ordinary size of each head: of every residual, of every channel, of the row.
    pub heads: Vec<HeadProfile>,
}

/// What is ordinary for one channel, in its unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelProfile {
    /// Its name in messages.
    pub name: String,
    /// Mean in training.
    pub mean: f64,
    /// Standard deviation in training, above 0.
    pub deviation: f64,
    /// Standard deviation of the change from reading to reading, above 0.
    pub step: f64,
    /// Lower end of the ordinary range.
    pub low: f64,
    /// Upper end of the ordinary range.
    pub high: f64,
    /// Most times in a row that a value was repeated in training.
    pub longest_run: u32,
    /// Whether a repeated value says anything about it.
    pub runs_count: bool,
}

/// One frozen regression.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResidualProfile {
    /// Of what on what.
    pub basis: Basis,
    /// A weight for each term.
    pub weights: Vec<f64>,
    /// Standard deviation of the residual where the driver (flow) is 0, above 0.
    pub scale: f64,
    /// How much that grows per unit of the driver, at least 0.
    pub scale_per_driver: f64,
    /// Correlation of a normalised residual with the one before, 0 to below 1.
    pub autocorrelation: f64,
    /// Standard deviation of what autocorrelation leaves unexplained, above 0.
    pub innovation: f64,
}

/// The ordinary size of one head.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadProfile {
    /// Median in training.
    pub median: f32,
    /// Standard deviation in training, above 0.
    pub spread: f32,
}

impl ChannelProfile {
    /// `value` in standard deviations from the mean.
    pub(crate) fn standard(&self, value: f64) -> f64 {
        (value - self.mean) / self.deviation
    }

    /// The channel's ordinary size: its mean, or its spread where the mean is near 0.
    pub(crate) fn size(&self) -> f64 {
        self.mean.abs().max(self.deviation)
    }
}

impl ResidualProfile {
    /// Whether the residual wanders by itself (supply pressure over a day). A slow one is judged by
    /// its innovations and by its fast mean against its slow one, never by its level.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        self.autocorrelation > SLOW
    }

    /// The value seen, the value explained, and the residual's standard deviation, in units.
    pub(crate) fn explain(&self, channels: &[ChannelProfile], x: &[f64]) -> (f64, f64, f64) {
        let equation = self.basis.equation(channels, x);
        let explained: f64 = equation
            .terms()
            .iter()
            .zip(&self.weights)
            .map(|(term, weight)| term * weight)
            .sum();
        (
            equation.target,
            explained,
            self.scale + self.scale_per_driver * equation.driver,
        )
    }

    /// The residual in standard deviations.
    pub(crate) fn normalised(&self, channels: &[ChannelProfile], x: &[f64]) -> f64 {
        let (seen, explained, scale) = self.explain(channels, x);
        (seen - explained) / scale
    }
}

impl Profile {
    /// Fits a profile on normal readings: `values` holds a value per name in `names` for each of
    /// `times`, reading after reading, oldest first.
    ///
    /// # Panics
    ///
    /// When there are no `times`, or `values` is not `times` × `names` long.
    #[must_use]
    pub fn fit(device: &str, names: &[&str], times: &[Timestamp], values: &[f64]) -> Self {
        assert!(!times.is_empty() && values.len() == times.len() * names.len());
        let rows = || values.chunks_exact(names.len());
        let channels: Vec<ChannelProfile> = (0..names.len())
            .map(|index| fit_channel(names[index], &rows().map(|row| row[index]).collect::<Vec<_>>()))
            .collect();
        let residuals = Basis::for_channels(names)
            .into_iter()
            .map(|basis| fit_residual(basis, &channels, rows()))
            .collect();
        let mut profile = Self {
            device: device.to_owned(),
            channels,
            residuals,
            heads: Vec::new(),
        };
        profile.heads = fit_heads(&profile, times, values);
        profile
    }

    /// How many heads there are.
    #[must_use]
    pub fn head_count(&self) -> usize {
        self.residuals.len() * RESIDUAL_HEADS + self.channels.len() * CHANNEL_HEADS + 1
    }

    /// Whether every number and position is one that [`Profile::fit`] could have made; a profile
    /// from a file is used only then.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let count = self.channels.len();
        let positive = |number: f64| number.is_finite() && number > 0.0;
        (1..=MAX_TRACKED).contains(&count)
            && self.channels.is_sorted_by(|a, b| a.name < b.name)
            && self.channels.iter().all(|c| {
                [c.mean, c.low, c.high].iter().all(|n| n.is_finite())
                    && positive(c.deviation)
                    && positive(c.step)
            })
            && self.residuals.len() <= count.max(2)
            && self.residuals.iter().all(|r| {
                usize::from(r.basis.last_channel()) < count
                    && r.weights.len() == r.basis.term_count(count)
                    && r.weights.iter().all(|weight| weight.is_finite())
                    && positive(r.scale)
                    && (0.0..f64::MAX).contains(&r.scale_per_driver)
                    && (0.0..1.0).contains(&r.autocorrelation)
                    && positive(r.innovation)
            })
            && self.heads.len() == self.head_count()
            && self
                .heads
                .iter()
                .all(|h| h.median.is_finite() && h.spread.is_finite() && h.spread > 0.0)
    }
}

fn fit_channel(name: &str, values: &[f64]) -> ChannelProfile {
    let (mean, deviation) = moments(values);
    let floor = (mean.abs() * SMALLEST_STEP).max(1e-6);
    let steps: Vec<f64> = values.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let repeats = steps.iter().filter(|&&step| step == 0.0).count();
    let runs = steps.split(|&step| step != 0.0).map(<[f64]>::len);
    let longest_run = runs.max().unwrap_or(0) as u32;
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let tail = (RANGE_TAIL * sorted.len() as f64) as usize;
    ChannelProfile {
        name: name.to_owned(),
        mean,
        deviation: deviation.max(floor),
        step: moments(&steps).1.max(floor * 0.1),
        low: sorted[tail],
        high: sorted[sorted.len() - 1 - tail],
        longest_run,
        runs_count: (repeats as f64) <= MOST_REPEATS * values.len() as f64,
    }
}

fn fit_residual<'a>(
    basis: Basis,
    channels: &[ChannelProfile],
    rows: impl Iterator<Item = &'a [f64]>,
) -> ResidualProfile {
    let equations: Vec<_> = rows.map(|row| basis.equation(channels, row)).collect();
    let targets: Vec<f64> = equations.iter().map(|equation| equation.target).collect();
    let (mean, deviation) = moments(&targets);
    let terms = basis.term_count(channels.len());
    // Only what moves is shrunk: a penalty on the level would bend the whole line.
    let mut weights = ridge(
        terms,
        RIDGE,
        equations.iter().map(|e| (e.terms(), e.target - mean)),
    );
    weights[0] += mean;
    let residuals: Vec<f64> = equations
        .iter()
        .map(|e| {
            e.target
                - e.terms()
                    .iter()
                    .zip(&weights)
                    .map(|(term, weight)| term * weight)
                    .sum::<f64>()
        })
        .collect();
    // The scale is a straight line over the driver, fitted to the absolute residuals.
    let drivers: Vec<[f64; 2]> = equations.iter().map(|equation| [1.0, equation.driver]).collect();
    let line = ridge(
        2,
        RIDGE,
        drivers
            .iter()
            .zip(&residuals)
            .map(|(driver, r)| (&driver[..], r.abs() * DEVIATION_PER_MEAN)),
    );
    let floor = (SMALLEST_SCALE * deviation)
        .max(SMALLEST_STEP * mean.abs())
        .max(1e-6);
    let (scale, scale_per_driver) = (line[0].max(floor), line[1].max(0.0));
    let normalised: Vec<f64> = residuals
        .iter()
        .zip(&drivers)
        .map(|(r, driver)| r / (scale + scale_per_driver * driver[1]))
        .collect();
    let autocorrelation = lag_one(&normalised).clamp(0.0, MOST_CORRELATED);
    let innovations: Vec<f64> = normalised
        .windows(2)
        .map(|pair| pair[1] - autocorrelation * pair[0])
        .collect();
    let innovation = moments(&innovations).1.max(1e-3);
    ResidualProfile {
        basis,
        weights,
        scale,
        scale_per_driver,
        autocorrelation,
        innovation,
    }
}

fn fit_heads(profile: &Profile, times: &[Timestamp], values: &[f64]) -> Vec<HeadProfile> {
    let count = profile.head_count();
    let mut state = State::new(profile);
    let mut columns = vec![Vec::with_capacity(times.len()); count];
    let mut heads = vec![0.0; count];
    for (row, &at) in values.chunks_exact(profile.channels.len()).zip(times) {
        state.observe(profile, at, row, &mut heads);
        for (column, &head) in columns.iter_mut().zip(&heads) {
            column.push(head);
        }
    }
    let channel_heads = profile.residuals.len() * RESIDUAL_HEADS;
    let fit = |(index, mut column): (usize, Vec<f32>)| {
        let middle = column.len() / 2;
        let median = *column.select_nth_unstable_by(middle, f32::total_cmp).1;
        let numbers: Vec<f64> = column.into_iter().map(f64::from).collect();
        // Runs and distances are in fixed units, as in training there may be none.
        let is_step =
            index >= channel_heads && index + 1 < count && (index - channel_heads) % CHANNEL_HEADS == 1;
        let spread = if index < channel_heads || is_step {
            (moments(&numbers).1 as f32).max(1e-3)
        } else {
            1.0
        };
        HeadProfile { median, spread }
    };
    columns.into_iter().enumerate().map(fit).collect()
}

/// Mean and standard deviation; zeros of nothing.
fn moments(values: &[f64]) -> (f64, f64) {
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    (
        mean,
        (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt(),
    )
}

/// Correlation of each value with the one before; 0 where nothing varies.
fn lag_one(values: &[f64]) -> f64 {
    let (mean, deviation) = moments(values);
    if deviation < 1e-9 {
        return 0.0;
    }
    let products = values
        .windows(2)
        .map(|pair| (pair[0] - mean) * (pair[1] - mean))
        .sum::<f64>();
    products / (values.len() as f64 * deviation * deviation)
}
