//! A value outside what the sensor can mean: 250 PSI, or a gate 300% open.

use super::{Rule, RuleLimits};
use crate::channel::{WATER, quantity, unit, words};
use crate::explain::Explanation;

/// The first value out of range; `values` are those of [`WATER`].
pub(super) fn range(limits: &RuleLimits, values: &[Option<f64>; 5]) -> Option<Explanation> {
    WATER.iter().zip(values).find_map(|(channel, value)| {
        let (value, limits) = ((*value)?, limits.of(channel)?);
        if (limits.least..=limits.greatest).contains(&value) {
            return None;
        }
        let side = if value < limits.least { "below" } else { "above" };
        let limit = if value < limits.least {
            limits.least
        } else {
            limits.greatest
        };
        let unit = unit(channel);
        let sentence = format!(
            "{} {} is {side} the limit of {}",
            words(channel),
            quantity(value, 1, unit),
            quantity(limit, 0, unit)
        );
        Some(Explanation::of_rule(Rule::Range, sentence, channel, limit, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(upstream: f64) -> Option<String> {
        let values = [None, None, None, None, Some(upstream)];
        range(&RuleLimits::default(), &values).map(|broken| broken.sentence)
    }

    #[test]
    fn the_limits_belong_to_the_range_and_one_step_beyond_does_not() {
        assert_eq!(check(150.0), None);
        assert_eq!(check(0.0), None);
        assert_eq!(
            check(150.1).as_deref(),
            Some("upstream pressure 150.1 PSI is above the limit of 150 PSI")
        );
        assert_eq!(
            check(-0.1).as_deref(),
            Some("upstream pressure -0.1 PSI is below the limit of 0 PSI")
        );
    }
}
