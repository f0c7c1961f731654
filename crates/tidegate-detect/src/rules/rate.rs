//! A value that changed faster than water, or a gate's motor, can.

use super::{Rule, RuleLimits};
use crate::channel::{WATER, quantity, unit, words};
use crate::explain::Explanation;
use tidegate_envelope::time::Timestamp;

/// Readings closer together than this are taken to be this far apart: a sensor's noise would
/// otherwise be a fast change.
const SHORTEST_SPAN_S: f64 = 1.0;

/// A device's last plausible values, those of [`WATER`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Last {
    pub(super) at: Timestamp,
    /// Not a number where a channel was not there.
    pub(super) values: [f64; 5],
}

/// The first value that changed too fast.
pub(super) fn rate(
    limits: &RuleLimits,
    last: &Last,
    at: Timestamp,
    values: &[Option<f64>; 5],
) -> Option<Explanation> {
    let span_s = at.since(last.at).as_secs_f64().max(SHORTEST_SPAN_S);
    WATER
        .iter()
        .zip(values)
        .zip(last.values)
        .find_map(|((channel, value), before)| {
            let (value, limits) = ((*value)?, limits.of(channel)?);
            let change = value - before;
            if change.is_nan() || change.abs() <= limits.change_per_second * span_s {
                return None;
            }
            let unit = unit(channel);
            let sentence = format!(
                "{} changed by {} in {span_s:.0} s, from {}; at most {} per second is plausible",
                words(channel),
                quantity(change, 1, unit),
                quantity(before, 1, unit),
                quantity(limits.change_per_second, 0, unit)
            );
            Some(Explanation::of_rule(Rule::Rate, sentence, channel, before, value))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change_psi: f64, span_ms: i64) -> bool {
        let last = Last {
            at: Timestamp::from_micros(0),
            values: [f64::NAN, f64::NAN, f64::NAN, f64::NAN, 60.0],
        };
        let values = [None, None, None, None, Some(60.0 + change_psi)];
        rate(
            &RuleLimits::default(),
            &last,
            Timestamp::from_micros(span_ms * 1_000),
            &values,
        )
        .is_some()
    }

    #[test]
    fn a_change_is_judged_by_the_time_it_took() {
        assert!(!check(50.0, 5_000));
        assert!(check(50.1, 5_000));
        assert!(check(-50.1, 5_000));
        assert!(!check(50.1, 10_000));
    }

    #[test]
    fn readings_close_together_or_out_of_order_count_as_a_second_apart() {
        assert!(!check(10.0, 1));
        assert!(check(10.1, 1));
        assert!(!check(10.0, -5_000));
    }
}
