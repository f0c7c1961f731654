//! A device's memory of its past readings: a few numbers, updated once per reading.

use super::profile::{Profile, ResidualProfile};
use super::{CHANNEL_HEADS, RESIDUAL_HEADS};
use tidegate_envelope::time::Timestamp;

/// Readings that the fast mean looks back on, and its rate 1 − e^(−1/12).
pub const FAST_READINGS: u32 = 12;
const FAST_RATE: f32 = 0.079_955_6;
/// Readings that the slow mean looks back on, and its rate 1 − e^(−1/60).
pub const SLOW_READINGS: u32 = 60;
const SLOW_RATE: f32 = 0.016_528_55;
/// Readings that the baseline of a slow residual looks back on, an hour at 5 s, and its rate.
pub const BASELINE_READINGS: u32 = 720;
const BASELINE_RATE: f32 = 0.001_387_925;
/// A single residual counts for at most this many standard deviations in the memory.
const CLIP: f32 = 6.0;
/// A single residual moves the baseline as if it were at most this many standard deviations off, so
/// that an event of minutes is no new normal, and its end no second alarm.
const BASELINE_CLIP: f32 = 1.0;
/// The cumulative sum grows by what a deviation exceeds this, in standard deviations.
const ALLOWANCE: f32 = 0.5;
/// The cumulative sum grows to this and no further, so that it falls soon after the cause is gone.
const SUM_LIMIT: f32 = 40.0;
/// Smallest variance that is told from none.
const LEAST_VARIANCE: f32 = 1e-3;

/// One device's memory, at most 1 KB.
#[derive(Debug, Clone)]
pub struct State {
    readings: u32,
    residuals: Vec<ResidualState>,
    channels: Vec<ChannelState>,
}

#[derive(Debug, Clone)]
struct ResidualState {
    /// The last residual, clipped to ±[`LAST_LIMIT`].
    last: f32,
    fast: f32,
    slow: f32,
    baseline: f32,
    variance_fast: f32,
    variance_slow: f32,
    above: SumState,
    below: SumState,
}

/// A one-sided cumulative sum, and since when it has been above 0.
#[derive(Debug, Clone, Copy, Default)]
struct SumState {
    sum: f32,
    readings: u32,
    since_us: i64,
}

#[derive(Debug, Clone, Copy)]
struct ChannelState {
    last: f64,
    /// How many readings before the last one had the same value.
    run: u32,
}

/// Keeps what follows from a residual representable whatever a device sends.
const LAST_LIMIT: f64 = 1e6;

/// What the memory says about a residual that drifts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trend {
    /// Mean over the last readings, in standard deviations.
    pub(crate) mean: f32,
    /// For how many readings.
    pub(crate) readings: u32,
    /// Since when.
    pub(crate) since: Timestamp,
}

impl State {
    /// The memory of a device that has not been heard yet.
    #[must_use]
    pub fn new(profile: &Profile) -> Self {
        let residual = ResidualState {
            last: 0.0,
            fast: 0.0,
            slow: 0.0,
            baseline: 0.0,
            variance_fast: 1.0,
            variance_slow: 1.0,
            above: SumState::default(),
            below: SumState::default(),
        };
        Self {
            readings: 0,
            residuals: vec![residual; profile.residuals.len()],
            channels: vec![ChannelState { last: 0.0, run: 0 }; profile.channels.len()],
        }
    }

    /// Takes in one reading: `x` has a value per channel of `profile`, and `heads` gets one number
    /// per head. Only this and earlier readings count.
    ///
    /// # Panics
    ///
    /// When `x` or `heads` is too short for `profile`, or the state was made for another one.
    pub fn observe(&mut self, profile: &Profile, at: Timestamp, x: &[f64], heads: &mut [f32]) {
        let first = self.readings == 0;
        self.readings = self.readings.saturating_add(1);
        let mut head = 0;
        for (state, residual) in self.residuals.iter_mut().zip(&profile.residuals) {
            let value = finite(residual.normalised(&profile.channels, x));
            state.observe(
                residual,
                value,
                self.readings,
                at,
                &mut heads[head..head + RESIDUAL_HEADS],
            );
            head += RESIDUAL_HEADS;
        }
        let mut row_run = u32::MAX;
        for ((state, channel), &value) in self.channels.iter_mut().zip(&profile.channels).zip(x) {
            let step = if first { 0.0 } else { value - state.last };
            state.run = if !first && step == 0.0 {
                state.run.saturating_add(1)
            } else {
                0
            };
            state.last = value;
            row_run = row_run.min(state.run);
            let beyond = (channel.low - value).max(value - channel.high).max(0.0) / channel.deviation;
            heads[head] = if channel.runs_count {
                (state.run as f32).ln_1p()
            } else {
                0.0
            };
            heads[head + 1] = finite(step.abs() / channel.step);
            heads[head + 2] = finite(beyond);
            head += CHANNEL_HEADS;
        }
        heads[head] = (row_run as f32).ln_1p();
    }

    /// How many readings have been taken in.
    #[must_use]
    pub fn readings(&self) -> u32 {
        self.readings
    }

    /// Bytes of memory, on the heap and off it.
    #[must_use]
    pub fn size(&self) -> usize {
        size_of::<Self>() + size_of_val(&self.residuals[..]) + size_of_val(&self.channels[..])
    }

    pub(crate) fn run(&self, channel: usize) -> u32 {
        self.channels[channel].run
    }

    /// Mean of residual `index` over the last fast (or slow) readings, in standard deviations.
    pub(crate) fn mean(&self, profile: &Profile, index: usize, slow: bool) -> f32 {
        let state = &self.residuals[index];
        let mean = if slow { state.slow } else { state.fast };
        mean - state.reference(&profile.residuals[index])
    }

    /// Scatter of residual `index` against the ordinary: 1 is ordinary, 2 twice as much.
    pub(crate) fn scatter(&self, index: usize, slow: bool) -> f32 {
        let state = &self.residuals[index];
        if slow {
            state.variance_slow
        } else {
            state.variance_fast
        }
        .sqrt()
    }

    pub(crate) fn trend(&self, profile: &Profile, index: usize) -> Trend {
        let state = &self.residuals[index];
        let sum = if state.above.sum >= state.below.sum {
            state.above
        } else {
            state.below
        };
        Trend {
            mean: self.mean(profile, index, false),
            readings: sum.readings,
            since: Timestamp::from_micros(sum.since_us),
        }
    }
}

impl ResidualState {
    fn observe(
        &mut self,
        profile: &ResidualProfile,
        value: f32,
        readings: u32,
        at: Timestamp,
        heads: &mut [f32],
    ) {
        let innovation = if readings == 1 {
            0.0
        } else {
            (value - profile.autocorrelation as f32 * self.last) / profile.innovation as f32
        };
        self.last = value;
        let clipped = value.clamp(-CLIP, CLIP);
        let clipped_innovation = innovation.clamp(-CLIP, CLIP);
        // The means of a slow residual start where it is, as its level says nothing; those of any
        // other start at 0, so that a deviation that is older than this process is seen too.
        let rate = |usual: f32| {
            if profile.is_slow() {
                usual.max(1.0 / readings as f32)
            } else {
                usual
            }
        };
        self.fast += rate(FAST_RATE) * (clipped - self.fast);
        self.slow += rate(SLOW_RATE) * (clipped - self.slow);
        self.baseline += rate(BASELINE_RATE) * (clipped - self.baseline).clamp(-BASELINE_CLIP, BASELINE_CLIP);
        let square = clipped_innovation * clipped_innovation;
        if readings > 1 {
            self.variance_fast += FAST_RATE * (square - self.variance_fast);
            self.variance_slow += SLOW_RATE * (square - self.variance_slow);
        }
        self.above.observe(clipped_innovation, at);
        self.below.observe(-clipped_innovation, at);

        let reference = self.reference(profile);
        heads[0] = if profile.is_slow() { innovation } else { value };
        heads[1] = self.fast - reference;
        heads[2] = self.slow - reference;
        heads[3] = (self.variance_fast + LEAST_VARIANCE).ln();
        heads[4] = (self.variance_slow + LEAST_VARIANCE).ln();
        heads[5] = self.above.sum.max(self.below.sum).sqrt();
    }

    /// What the means are compared with.
    fn reference(&self, profile: &ResidualProfile) -> f32 {
        if profile.is_slow() { self.baseline } else { 0.0 }
    }
}

impl SumState {
    fn observe(&mut self, deviation: f32, at: Timestamp) {
        if self.sum == 0.0 {
            *self = Self {
                sum: 0.0,
                readings: 0,
                since_us: at.as_micros(),
            };
        }
        self.sum = (self.sum + deviation - ALLOWANCE).clamp(0.0, SUM_LIMIT);
        self.readings = self.readings.saturating_add(1);
    }
}

/// As f32, within ±[`LAST_LIMIT`]. Terms that overflow against each other give no number; that is
/// as far from ordinary as can be.
fn finite(value: f64) -> f32 {
    if value.is_nan() {
        LAST_LIMIT as f32
    } else {
        value.clamp(-LAST_LIMIT, LAST_LIMIT) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_follow_from_the_readings_looked_back_on() {
        let pairs = [
            (FAST_READINGS, FAST_RATE),
            (SLOW_READINGS, SLOW_RATE),
            (BASELINE_READINGS, BASELINE_RATE),
        ];
        for (readings, rate) in pairs {
            let exact = 1.0 - (-1.0 / f64::from(readings)).exp();
            assert!(
                (f64::from(rate) - exact).abs() < 1e-7,
                "{readings}: {rate} against {exact}"
            );
        }
    }

    #[test]
    fn numbers_beyond_representation_become_the_limit() {
        assert_eq!(finite(f64::NAN), LAST_LIMIT as f32);
        assert_eq!(finite(f64::NEG_INFINITY), -LAST_LIMIT as f32);
    }
}
