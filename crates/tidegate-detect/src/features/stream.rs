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
/// A single residual counts for at most this many standard deviations in the memory.
const CLIP: f32 = 3.0;
/// The cumulative sum grows by what a deviation exceeds this, in standard deviations.
const ALLOWANCE: f32 = 0.5;
/// The cumulative sum grows to this and no further, so that it falls soon after the cause is gone.
const SUM_LIMIT: f32 = 40.0;
/// After this many of the usual times between readings a course is anywhere.
const LOST_INTERVALS: i64 = 60;
/// Smallest variance that is told from none.
const LEAST_VARIANCE: f32 = 1e-3;

/// One device's memory, at most 1 KB.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    readings: u32,
    /// When the last reading was.
    last_us: i64,
    residuals: Vec<ResidualState>,
    channels: Vec<ChannelState>,
}

#[derive(Debug, Clone, PartialEq)]
struct ResidualState {
    /// Where the residual's course is, in its standard deviations.
    level: f32,
    fast: f32,
    slow: f32,
    variance_fast: f32,
    variance_slow: f32,
    /// Mean product of what is unexplained and what is explained, over the slow readings.
    product: f32,
    above: SumState,
    below: SumState,
}

/// A one-sided cumulative sum, and since when it has been above 0, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct SumState {
    sum: f32,
    readings: u32,
    since_s: u32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
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
            level: 0.0,
            fast: 0.0,
            slow: 0.0,
            variance_fast: 1.0,
            variance_slow: 1.0,
            product: 0.0,
            above: SumState::default(),
            below: SumState::default(),
        };
        Self {
            readings: 0,
            last_us: 0,
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
        let since_ms = at.as_micros().saturating_sub(self.last_us) / 1_000;
        let lost = first || since_ms > i64::from(profile.interval_ms) * LOST_INTERVALS;
        self.last_us = at.as_micros();
        self.readings = self.readings.saturating_add(1);
        let mut head = 0;
        for (state, residual) in self.residuals.iter_mut().zip(&profile.residuals) {
            let (value, explained) = residual.normalised(&profile.channels, x);
            state.observe(
                residual,
                (finite(value), finite(explained)),
                (first, lost),
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
            heads[head] = if channel.runs_count {
                (state.run as f32).ln_1p()
            } else {
                0.0
            };
            heads[head + 1] = finite(step.abs() / channel.step);
            heads[head + 2] = finite(channel.off_centre(value));
            head += CHANNEL_HEADS;
        }
        heads[head] = (row_run as f32).ln_1p();
    }

    /// The memory as bytes, little endian: u8 residuals, u8 channels, u32 readings, i64 time of the
    /// last one, then what is remembered of each residual and each channel.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend([self.residuals.len() as u8, self.channels.len() as u8]);
        out.extend(self.readings.to_le_bytes());
        out.extend(self.last_us.to_le_bytes());
        for residual in &self.residuals {
            for number in residual.numbers() {
                out.extend(number.to_le_bytes());
            }
            for sum in [residual.above, residual.below] {
                out.extend(sum.sum.to_le_bytes());
                out.extend(sum.readings.to_le_bytes());
                out.extend(sum.since_s.to_le_bytes());
            }
        }
        for channel in &self.channels {
            out.extend(channel.last.to_le_bytes());
            out.extend(channel.run.to_le_bytes());
        }
    }

    /// The memory that [`State::write`] wrote, of a device with `profile`; `None` where the bytes
    /// are not just that, or hold a number that no reading leaves behind.
    pub(crate) fn read(profile: &Profile, bytes: &[u8]) -> Option<Self> {
        let mut bytes = Bytes(bytes);
        let [residuals, channels] = bytes.take()?;
        let mut state = Self::new(profile);
        if (usize::from(residuals), usize::from(channels)) != (state.residuals.len(), state.channels.len()) {
            return None;
        }
        state.readings = u32::from_le_bytes(bytes.take()?);
        state.last_us = i64::from_le_bytes(bytes.take()?);
        for residual in &mut state.residuals {
            residual.level = bytes.number()?;
            residual.fast = bytes.number()?;
            residual.slow = bytes.number()?;
            residual.variance_fast = bytes.number().filter(|variance| *variance >= 0.0)?;
            residual.variance_slow = bytes.number().filter(|variance| *variance >= 0.0)?;
            residual.product = bytes.number()?;
            for sum in [&mut residual.above, &mut residual.below] {
                sum.sum = bytes.number().filter(|sum| (0.0..=SUM_LIMIT).contains(sum))?;
                sum.readings = u32::from_le_bytes(bytes.take()?);
                sum.since_s = u32::from_le_bytes(bytes.take()?);
            }
        }
        for channel in &mut state.channels {
            channel.last = Some(f64::from_le_bytes(bytes.take()?)).filter(|last| last.is_finite())?;
            channel.run = u32::from_le_bytes(bytes.take()?);
        }
        bytes.0.is_empty().then_some(state)
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
        mean * profile.residuals[index].course.innovation as f32
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
            since: Timestamp::from_micros(i64::from(sum.since_s) * 1_000_000),
        }
    }
}

/// What is left to read.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    /// A finite number.
    fn number(&mut self) -> Option<f32> {
        Some(f32::from_le_bytes(self.take()?)).filter(|number| number.is_finite())
    }
}

impl ResidualState {
    fn numbers(&self) -> [f32; 6] {
        [
            self.level,
            self.fast,
            self.slow,
            self.variance_fast,
            self.variance_slow,
            self.product,
        ]
    }

    fn observe(
        &mut self,
        profile: &ResidualProfile,
        (value, explained): (f32, f32),
        (first, lost): (bool, bool),
        at: Timestamp,
        heads: &mut [f32],
    ) {
        let course = profile.course;
        if lost && course.wanders() {
            // Where a course begins, or goes on after hours, says nothing. Without one the first reading counts, so that a
            // deviation that is older than this process is seen too.
            self.level = value / course.kept as f32;
        }
        let expected = course.kept as f32 * self.level;
        let off = value - expected;
        self.level = expected + course.gain as f32 * off;
        let innovation = off / course.innovation as f32;
        let clipped = innovation.clamp(-CLIP, CLIP);
        self.fast += FAST_RATE * (clipped - self.fast);
        self.slow += SLOW_RATE * (clipped - self.slow);
        let square = clipped * clipped;
        if !first {
            self.variance_fast += FAST_RATE * (square - self.variance_fast);
            self.variance_slow += SLOW_RATE * (square - self.variance_slow);
        }
        self.product += SLOW_RATE * (clipped * side(explained) - self.product);
        self.above.observe(clipped, at);
        self.below.observe(-clipped, at);

        heads[0] = innovation;
        heads[1] = self.fast;
        heads[2] = self.slow;
        heads[3] = (self.variance_fast + LEAST_VARIANCE).ln();
        heads[4] = (self.variance_slow + LEAST_VARIANCE).ln();
        heads[5] = self.above.sum.max(self.below.sum).sqrt();
        heads[6] = self.product;
    }
}

/// On which side of its mean an explained value is, −1 to 1. Its size would not do: while it stays
/// far off, every chance would be multiplied by it.
fn side(explained: f32) -> f32 {
    explained / (explained * explained + 0.25).sqrt()
}

impl SumState {
    fn observe(&mut self, deviation: f32, at: Timestamp) {
        if self.sum == 0.0 {
            *self = Self {
                sum: 0.0,
                readings: 0,
                since_s: (at.as_micros() / 1_000_000).clamp(0, i64::from(u32::MAX)) as u32,
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
        let pairs = [(FAST_READINGS, FAST_RATE), (SLOW_READINGS, SLOW_RATE)];
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
