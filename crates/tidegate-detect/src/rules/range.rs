//! A value outside what the sensor can mean: 250 PSI, or a gate 300% open.

use super::{Rule, Rules};
use crate::channel::{quantity, unit, words};
use crate::explain::Explanation;
use tidegate_envelope::reading::Channels;

/// The first value out of range.
pub(super) fn range(rules: &Rules, channels: &Channels) -> Option<Explanation> {
    rules.channels.iter().find_map(|limits| {
        let channel = &limits.channel;
        let value = channels.get(channel)?;
        if (limits.least..=limits.greatest).contains(&value) {
            return None;
        }
        let (side, limit) = if value < limits.least {
            ("below", limits.least)
        } else {
            ("above", limits.greatest)
        };
        let unit = unit(channel);
        let sentence = format!(
            "{} {} is {side} the limit of {}",
            words(channel),
            quantity(value, 1, unit),
            quantity(limit, decimals(limit), unit)
        );
        Some(Explanation::of_rule(Rule::Range, sentence, channel, limit, value))
    })
}

/// A limit is shown as it was set: with a decimal only where it has one.
fn decimals(limit: f64) -> usize {
    usize::from(limit.fract() != 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::tests::water;

    fn check(upstream: f64) -> Option<String> {
        range(&Rules::default(), &water(upstream, 50.0, 50.0)).map(|broken| broken.sentence)
    }

    #[test]
    fn the_limits_belong_to_the_range_and_one_step_beyond_does_not() {
        assert_eq!(check(150.0), None);
        assert_eq!(check(-14.7), None);
        assert_eq!(
            check(150.1).as_deref(),
            Some("upstream pressure 150.1 PSI is above the limit of 150 PSI")
        );
        assert_eq!(
            check(-14.8).as_deref(),
            Some("upstream pressure -14.8 PSI is below the limit of -14.7 PSI")
        );
    }
}
