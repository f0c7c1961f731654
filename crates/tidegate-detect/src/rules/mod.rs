//! Limits that a single reading breaks, or that a silent device breaks; they hold without a model.
//!
//! One file per rule; each answers with an [`Explanation`] when it is broken. `missing` and
//! `stuck` alone need a model, as it says what is usual. [`config`] reads limits with units.

pub mod config;
mod gap;
mod impossible;
mod missing;
mod range;
mod rate;
mod silence;
mod status;
mod stuck;

pub(crate) use missing::missing;
pub(crate) use stuck::stuck;

pub use impossible::{Condition, Impossible, Relation, Side};

use crate::channel::MAX_TRACKED;
use crate::explain::Explanation;
use std::time::Duration;
use tidegate_envelope::reading::Channels;
use tidegate_envelope::time::Timestamp;

/// The rule that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// A channel of the model is not in the reading.
    Missing,
    /// A channel repeats its value far longer than in training.
    Stuck,
    /// A value is outside its physical range.
    Range,
    /// A value changed faster than water can.
    Rate,
    /// A device has said nothing for longer than it may.
    Silence,
    /// A reading came long after the one before it.
    Gap,
    /// The device's own status is not one of those that mean that all is well.
    Status,
    /// Values that cannot be true together.
    Impossible,
}

impl Rule {
    /// The name in words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing channel",
            Self::Stuck => "stuck channel",
            Self::Range => "out of range",
            Self::Rate => "rate of change",
            Self::Silence => "silence",
            Self::Gap => "gap",
            Self::Status => "status",
            Self::Impossible => "impossible combination",
        }
    }
}

/// What one channel may do, in the unit in which messages carry it.
#[derive(Debug, Clone, PartialEq)]
pub struct ChannelLimits {
    /// The channel's name in messages.
    pub channel: String,
    /// Least value.
    pub least: f64,
    /// Greatest value.
    pub greatest: f64,
    /// Greatest change per second.
    pub change_per_second: f64,
}

/// All limits of a fleet. They are wide: what is unusual for one device is the model's task.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// Sorted by channel, at most [`MAX_TRACKED`].
    pub(crate) channels: Vec<ChannelLimits>,
    /// How long a device may say nothing; `None`: as long as it likes.
    pub silence: Option<Duration>,
    /// How far apart two readings of a device may be; `None`: as far as they are.
    pub gap: Option<Duration>,
    /// The statuses that mean that all is well; every status where there are none.
    pub statuses: Vec<String>,
    /// What cannot be true together.
    pub impossible: Vec<Impossible>,
}

impl Default for Rules {
    /// Range and rate of change of the water channels.
    fn default() -> Self {
        let limits = |channel: &str, least, greatest, change_per_second| ChannelLimits {
            channel: channel.to_owned(),
            least,
            greatest,
            change_per_second,
        };
        Self {
            // Flow sensors show a little below 0 at rest, and no gauge shows less than vacuum.
            channels: vec![
                limits("flow_rate", -5.0, 500.0, 40.0),
                limits("gate_a_position", -1.0, 101.0, 25.0),
                limits("gate_b_position", -1.0, 101.0, 25.0),
                limits("pressure_downstream", -14.7, 150.0, 10.0),
                limits("pressure_upstream", -14.7, 150.0, 10.0),
            ],
            silence: None,
            gap: None,
            statuses: Vec::new(),
            impossible: Vec::new(),
        }
    }
}

impl Rules {
    /// Puts limits in the place of those of the same channel. `false`, and nothing is changed, when
    /// there would be more than [`MAX_TRACKED`] channels.
    pub fn limit(&mut self, limits: ChannelLimits) -> bool {
        match self
            .channels
            .binary_search_by(|known| known.channel.cmp(&limits.channel))
        {
            Ok(at) => self.channels[at] = limits,
            Err(_) if self.channels.len() == MAX_TRACKED => return false,
            Err(at) => self.channels.insert(at, limits),
        }
        true
    }

    /// The limits of all channels that have any, sorted by name.
    #[must_use]
    pub fn channels(&self) -> &[ChannelLimits] {
        &self.channels
    }

    /// The explanation for the first value outside what its sensor can mean.
    #[must_use]
    pub fn out_of_range(&self, channels: &Channels) -> Option<Explanation> {
        range::range(self, channels)
    }

    /// The explanation for a device that was last heard at `last` and may not be silent so long.
    #[must_use]
    pub fn silent(&self, last: Timestamp, now: Timestamp) -> Option<Explanation> {
        silence::silence(self.silence?, last, now)
    }
}

/// What the rules remember of one device: its last plausible reading.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct RuleState {
    pub(crate) last: Option<Last>,
}

/// A device's last plausible values, in the order of [`Rules::channels`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Last {
    pub(crate) at: Timestamp,
    /// Not a number where a channel was not there.
    pub(crate) values: [f64; MAX_TRACKED],
}

impl RuleState {
    /// The first broken rule. A reading out of range leaves the memory as it was, so that the
    /// return to ordinary values is no second alarm.
    pub(crate) fn check(
        &mut self,
        rules: &Rules,
        at: Timestamp,
        channels: &Channels,
        status: Option<&str>,
    ) -> Option<Explanation> {
        if let Some(broken) = range::range(rules, channels) {
            return Some(broken);
        }
        let mut values = [f64::NAN; MAX_TRACKED];
        for (slot, limits) in values.iter_mut().zip(&rules.channels) {
            *slot = channels.get(&limits.channel).unwrap_or(f64::NAN);
        }
        let last = self.last.replace(Last { at, values });
        let last = last.as_ref();
        last.and_then(|last| rate::rate(rules, last, at, &values))
            .or_else(|| impossible::impossible(&rules.impossible, channels))
            .or_else(|| status::status(&rules.statuses, status?))
            .or_else(|| gap::gap(rules.gap?, last?.at, at))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn water(upstream: f64, downstream: f64, flow: f64) -> Channels {
        let named = [
            ("pressure_upstream", upstream),
            ("pressure_downstream", downstream),
            ("flow_rate", flow),
        ];
        Channels::new(named.map(|(name, value)| (name.into(), value)).to_vec()).unwrap()
    }

    #[test]
    fn the_return_from_a_gross_outlier_is_no_second_alarm() {
        let mut state = RuleState::default();
        let mut check = |second: i64, upstream| {
            let at = Timestamp::from_micros(second * 1_000_000);
            state
                .check(&Rules::default(), at, &water(upstream, 58.0, 50.0), None)
                .map(|broken| broken.rule)
        };
        assert_eq!(check(0, 60.0), None);
        assert_eq!(check(5, 250.0), Some(Some(Rule::Range)));
        assert_eq!(check(10, 60.0), None);
    }

    #[test]
    fn limits_replace_those_of_the_channel_and_are_bounded() {
        let mut rules = Rules::default();
        let limits = |channel: String| ChannelLimits {
            channel,
            least: 0.0,
            greatest: 10.0,
            change_per_second: 1.0,
        };
        assert!(rules.limit(limits("flow_rate".into())));
        assert_eq!(rules.channels().len(), 5);
        assert!(rules.out_of_range(&water(60.0, 58.0, 10.1)).is_some());
        for more in 0..MAX_TRACKED - 5 {
            assert!(rules.limit(limits(format!("a{more:02}"))));
        }
        assert!(!rules.limit(limits("z".into())));
        assert!(rules.channels().is_sorted_by(|a, b| a.channel < b.channel));
    }
}
