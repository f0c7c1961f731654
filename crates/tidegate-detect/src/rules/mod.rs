//! Limits that a single reading breaks; range and rate of change hold without a model too.
//!
//! One file per rule; each answers with an [`Explanation`] when it is broken.

mod missing;
mod range;
mod rate;
mod stuck;

pub(crate) use missing::missing;
pub(crate) use stuck::stuck;

use crate::channel::WATER;
use crate::explain::Explanation;
use rate::Last;
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
}

/// What one kind of channel may do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChannelLimits {
    /// Least value, in the channel's unit.
    pub least: f64,
    /// Greatest value, in the channel's unit.
    pub greatest: f64,
    /// Greatest change per second, in the channel's unit.
    pub change_per_second: f64,
}

/// Limits of the water channels. They are wide: what is unusual for one device is the model's task.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RuleLimits {
    /// Both pressures, in PSI.
    pub pressure_psi: ChannelLimits,
    /// Flow, in L/min; sensors show a little below 0 at rest.
    pub flow_lpm: ChannelLimits,
    /// Both gates, in percent open.
    pub gate_percent: ChannelLimits,
}

impl Default for RuleLimits {
    fn default() -> Self {
        Self {
            pressure_psi: ChannelLimits {
                least: 0.0,
                greatest: 150.0,
                change_per_second: 10.0,
            },
            flow_lpm: ChannelLimits {
                least: -5.0,
                greatest: 500.0,
                change_per_second: 40.0,
            },
            gate_percent: ChannelLimits {
                least: -1.0,
                greatest: 101.0,
                change_per_second: 25.0,
            },
        }
    }
}

impl RuleLimits {
    /// The limits of a channel, where it has any.
    #[must_use]
    pub fn of(&self, channel: &str) -> Option<&ChannelLimits> {
        match channel {
            "pressure_upstream" | "pressure_downstream" => Some(&self.pressure_psi),
            "flow_rate" => Some(&self.flow_lpm),
            "gate_a_position" | "gate_b_position" => Some(&self.gate_percent),
            _ => None,
        }
    }
}

/// What the rules remember of one device: its last plausible values.
#[derive(Debug, Clone, Default)]
pub(crate) struct RuleState {
    last: Option<Last>,
}

impl RuleState {
    /// The first broken rule. A reading out of range leaves the memory as it was, so that the
    /// return to ordinary values is no second alarm.
    pub(crate) fn check(
        &mut self,
        limits: &RuleLimits,
        at: Timestamp,
        channels: &Channels,
    ) -> Option<Explanation> {
        let values = WATER.map(|name| channels.get(name));
        if let Some(broken) = range::range(limits, &values) {
            return Some(broken);
        }
        let broken = self
            .last
            .as_ref()
            .and_then(|last| rate::rate(limits, last, at, &values));
        self.last = Some(Last {
            at,
            values: values.map(|value| value.unwrap_or(f64::NAN)),
        });
        broken
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
                .check(&RuleLimits::default(), at, &water(upstream, 58.0, 50.0))
                .map(|broken| broken.rule)
        };
        assert_eq!(check(0, 60.0), None);
        assert_eq!(check(5, 250.0), Some(Some(Rule::Range)));
        assert_eq!(check(10, 60.0), None);
    }
}
