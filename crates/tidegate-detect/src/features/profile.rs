//! What is ordinary for one device: fitted on normal readings, then frozen.

use super::course::Course;
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
/// How much more a distance counts outside the ordinary range than inside.
const OUTSIDE: f64 = 4.0;
/// The ordinary range goes beyond the values of training by this many standard deviations of a mean
/// of training: a day of a channel that wanders for hours is few values.
const MARGIN: f64 = 6.0;
/// A channel that repeats its value more often than this in training (a gate at rest) is not
/// judged by its runs.
const MOST_REPEATS: f64 = 0.3;

/// One device's profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The device's name in the registry.
    pub device: String,
    /// Time from reading to reading, the median of training, in milliseconds; above 0.
    pub interval_ms: u32,
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

/// One frozen regression, and how its residual behaves by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResidualProfile {
    /// Of what on what.
    pub basis: Basis,
    /// A weight for each term.
    pub weights: Vec<f64>,
    /// Standard deviation of the residual where flow does not come into it, above 0.
    pub scale: f64,
    /// Standard deviation of the flow sensor, which comes through by the regression's slope; at
    /// least 0.
    pub flow_noise: f64,
    /// What the regression does not know: the lower triangle, row after row, of a matrix M by which
    /// terms t add t·M·t to the variance. Small among the readings of training, large beyond them.
    pub doubt: Vec<f64>,
    /// Mean in training of the value explained.
    pub explained_mean: f64,
    /// Its standard deviation, above 0.
    pub explained_deviation: f64,
    /// How the residual wanders.
    pub course: Course,
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
    /// Distance of `value` from the middle of the ordinary range, in half widths; what is outside
    /// counts [`OUTSIDE`] times.
    pub(crate) fn off_centre(&self, value: f64) -> f64 {
        let half = 0.5 * (self.high - self.low);
        let off = (value - self.low - half).abs() / half;
        off + (OUTSIDE - 1.0) * (off - 1.0).max(0.0)
    }

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
    /// The value seen, the value explained, and the residual's standard deviation, in units.
    pub(crate) fn explain(&self, channels: &[ChannelProfile], x: &[f64]) -> (f64, f64, f64) {
        let equation = self.basis.equation(channels, x);
        let explained: f64 = equation
            .terms()
            .iter()
            .zip(&self.weights)
            .map(|(term, weight)| term * weight)
            .sum();
        let slope = self.basis.slope(channels, &equation, &self.weights);
        let noise = self.scale * self.scale + (self.flow_noise * slope).powi(2);
        let doubt = self.doubt(equation.terms()).max(0.0);
        (equation.target, explained, (noise + doubt).sqrt())
    }

    fn doubt(&self, terms: &[f64]) -> f64 {
        let mut sum = 0.0;
        let mut rest = &self.doubt[..];
        for (row, term) in terms.iter().enumerate() {
            let (left, diagonal) = (&rest[..row], rest[row]);
            let off: f64 = left.iter().zip(terms).map(|(m, t)| m * t).sum();
            sum += term * (2.0 * off + diagonal * term);
            rest = &rest[row + 1..];
        }
        sum
    }

    /// The residual in standard deviations, and the value explained in those of its own.
    pub(crate) fn normalised(&self, channels: &[ChannelProfile], x: &[f64]) -> (f64, f64) {
        let (seen, explained, scale) = self.explain(channels, x);
        (
            (seen - explained) / scale,
            (explained - self.explained_mean) / self.explained_deviation,
        )
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
        Self::fit_kept(device, names, times, values, &vec![true; times.len()])
    }

    /// The same on the readings that `kept` names; the others only pass through the memory.
    pub(crate) fn fit_kept(
        device: &str,
        names: &[&str],
        times: &[Timestamp],
        values: &[f64],
        kept: &[bool],
    ) -> Self {
        assert!(!times.is_empty() && values.len() == times.len() * names.len());
        let rows = || {
            let rows = values.chunks_exact(names.len()).zip(kept);
            rows.filter(|(_, kept)| **kept).map(|(row, _)| row)
        };
        let channels: Vec<ChannelProfile> = (0..names.len())
            .map(|index| fit_channel(names[index], &rows().map(|row| row[index]).collect::<Vec<_>>()))
            .collect();
        let residuals = Basis::for_channels(names)
            .into_iter()
            .map(|basis| fit_residual(basis, &channels, rows()))
            .collect();
        let mut profile = Self {
            device: device.to_owned(),
            interval_ms: usual_interval_ms(times),
            channels,
            residuals,
            heads: Vec::new(),
        };
        profile.heads = fit_heads(&profile, times, values, kept);
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
            && self.interval_ms > 0
            && self.channels.is_sorted_by(|a, b| a.name < b.name)
            && self.channels.iter().all(|c| {
                [c.mean, c.low, c.high].iter().all(|n| n.is_finite())
                    && positive(c.deviation)
                    && positive(c.step)
                    && c.low < c.high
            })
            && self.residuals.len() <= count.max(2)
            && self.residuals.iter().all(|r| {
                usize::from(r.basis.last_channel()) < count
                    && r.weights.len() == r.basis.term_count(count)
                    && r.weights.iter().chain(&r.doubt).all(|weight| weight.is_finite())
                    && r.doubt.len() == r.weights.len() * (r.weights.len() + 1) / 2
                    && positive(r.scale)
                    && (0.0..f64::MAX).contains(&r.flow_noise)
                    && r.explained_mean.is_finite()
                    && positive(r.explained_deviation)
                    && r.course.is_sound()
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
    let margin = MARGIN * deviation / independent(values, deviation).sqrt();
    let (low, high) = (sorted[0] - margin, sorted[sorted.len() - 1] + margin);
    ChannelProfile {
        name: name.to_owned(),
        mean,
        deviation: deviation.max(floor),
        step: moments(&steps).1.max(floor * 0.1),
        low,
        high,
        longest_run,
        runs_count: (repeats as f64) <= MOST_REPEATS * values.len() as f64,
    }
}

/// How many independent readings a regression is taken to know its terms from: a day's readings are
/// alike in a row, and the plant is not quite as the terms have it.
const KNOWN_AS: f64 = 200.0;
/// Times that weights and scale are fitted in turn: each needs the other.
const ROUNDS: usize = 4;

fn fit_residual<'a>(
    basis: Basis,
    channels: &[ChannelProfile],
    rows: impl Iterator<Item = &'a [f64]>,
) -> ResidualProfile {
    let equations: Vec<_> = rows.map(|row| basis.equation(channels, row)).collect();
    let targets: Vec<f64> = equations.iter().map(|equation| equation.target).collect();
    let (mean, deviation) = moments(&targets);
    let floor = (SMALLEST_SCALE * deviation)
        .max(SMALLEST_STEP * mean.abs())
        .max(1e-6);
    let mut fitted = ResidualProfile {
        basis,
        weights: Vec::new(),
        scale: deviation.max(floor),
        flow_noise: 0.0,
        doubt: Vec::new(),
        explained_mean: mean,
        explained_deviation: 1.0,
        course: Course::default(),
    };
    let mut variances = vec![1.0; equations.len()];
    let mut residuals = Vec::new();
    for _ in 0..ROUNDS {
        // Only what moves is shrunk: a penalty on the level would bend the whole line.
        let weighted = equations.iter().zip(&variances);
        let terms = basis.term_count(channels.len());
        let regression = ridge(
            terms,
            RIDGE,
            weighted.map(|(e, variance)| (e.terms(), e.target - mean, 1.0 / variance)),
        );
        fitted.weights = regression.weights;
        fitted.weights[0] += mean;
        let inverse_variance =
            variances.iter().map(|variance| 1.0 / variance).sum::<f64>() / variances.len() as f64;
        fitted.doubt = (0..terms)
            .flat_map(|row| (0..=row).map(move |column| row * terms + column))
            .map(|at| regression.inverse[at] / (inverse_variance * KNOWN_AS))
            .collect();
        residuals = equations
            .iter()
            .map(|e| {
                e.target
                    - e.terms()
                        .iter()
                        .zip(&fitted.weights)
                        .map(|(term, weight)| term * weight)
                        .sum::<f64>()
            })
            .collect();
        let slopes: Vec<[f64; 2]> = equations
            .iter()
            .map(|e| [1.0, basis.slope(channels, e, &fitted.weights).powi(2)])
            .collect();
        if variances[0] == 1.0 {
            // The first guess: absolute residuals on a straight line over the slope.
            let line = ridge(
                2,
                RIDGE,
                slopes
                    .iter()
                    .zip(&residuals)
                    .map(|(s, r)| ([1.0, s[1].sqrt()], r.abs() * DEVIATION_PER_MEAN))
                    .collect::<Vec<_>>()
                    .iter()
                    .map(|(x, y)| (&x[..], *y, 1.0)),
            )
            .weights;
            for (variance, slope) in variances.iter_mut().zip(&slopes) {
                *variance = (line[0] + line[1] * slope[1].sqrt()).max(floor).powi(2);
            }
        }
        let squares = slopes.iter().zip(&residuals).zip(&variances);
        let parts = ridge(
            2,
            0.0,
            squares.map(|((slope, residual), variance)| {
                (&slope[..], residual * residual, 1.0 / (variance * variance))
            }),
        )
        .weights;
        fitted.scale = parts[0].max(floor * floor).sqrt();
        fitted.flow_noise = parts[1].max(0.0).sqrt();
        for (variance, slope) in variances.iter_mut().zip(&slopes) {
            *variance = fitted.scale.powi(2) + fitted.flow_noise.powi(2) * slope[1];
        }
    }
    let normalised: Vec<f64> = residuals
        .iter()
        .zip(&variances)
        .map(|(residual, variance)| residual / variance.sqrt())
        .collect();
    let explained: Vec<f64> = targets.iter().zip(&residuals).map(|(t, r)| t - r).collect();
    let (explained_mean, explained_deviation) = moments(&explained);
    fitted.explained_mean = explained_mean;
    fitted.explained_deviation = explained_deviation.max(floor);
    fitted.course = Course::fit(&normalised);
    fitted
}

fn fit_heads(profile: &Profile, times: &[Timestamp], values: &[f64], kept: &[bool]) -> Vec<HeadProfile> {
    let count = profile.head_count();
    let mut state = State::new(profile);
    let mut columns = vec![Vec::with_capacity(times.len()); count];
    let mut heads = vec![0.0; count];
    let rows = values.chunks_exact(profile.channels.len());
    for ((row, &at), kept) in rows.zip(times).zip(kept) {
        state.observe(profile, at, row, &mut heads);
        if *kept {
            for (column, &head) in columns.iter_mut().zip(&heads) {
                column.push(head);
            }
        }
    }
    let channel_heads = profile.residuals.len() * RESIDUAL_HEADS;
    let fit = |(index, mut column): (usize, Vec<f32>)| {
        let middle = column.len() / 2;
        let median = *column.select_nth_unstable_by(middle, f32::total_cmp).1;
        let numbers: Vec<f64> = column.into_iter().map(f64::from).collect();
        // Runs and distances are in fixed units, as in training there may be none.
        let varies = index >= channel_heads
            && index + 1 < count
            && !(index - channel_heads).is_multiple_of(CHANNEL_HEADS);
        let spread = if index < channel_heads || varies {
            (moments(&numbers).1 as f32).max(1e-3)
        } else {
            1.0
        };
        HeadProfile { median, spread }
    };
    columns.into_iter().enumerate().map(fit).collect()
}

/// Median time from reading to reading, at least 1 ms; a second where there is one reading only.
fn usual_interval_ms(times: &[Timestamp]) -> u32 {
    let mut spans: Vec<u128> = times
        .windows(2)
        .map(|pair| pair[1].since(pair[0]).as_millis())
        .collect();
    let middle = spans.len() / 2;
    if spans.is_empty() {
        return 1_000;
    }
    let median = *spans.select_nth_unstable(middle).1;
    u32::try_from(median).unwrap_or(u32::MAX).max(1)
}

/// How many independent values would know their mean as well as these do, 1 to all of them: by the
/// means of batches, which are as many as their length is in readings to the power of one half.
fn independent(values: &[f64], deviation: f64) -> f64 {
    let count = values.len() as f64;
    let batch = (count.powf(2.0 / 3.0) as usize).max(1);
    let means: Vec<f64> = values.chunks_exact(batch).map(|batch| moments(batch).0).collect();
    let variance_of_mean = moments(&means).1.powi(2) / means.len().max(1) as f64;
    (deviation * deviation / variance_of_mean.max(f64::MIN_POSITIVE)).clamp(1.0, count)
}

/// Mean and standard deviation; zeros of nothing.
pub(super) fn moments(values: &[f64]) -> (f64, f64) {
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    (
        mean,
        (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt(),
    )
}
