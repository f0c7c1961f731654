//! A value that changed faster than water, or a gate's motor, can.

use super::{Last, Rule, Rules};
use crate::channel::{MAX_TRACKED, quantity, unit, words};
use crate::explain::Explanation;
use tidegate_envelope::time::Timestamp;

/// Readings closer together than this are taken to be this far apart: a sensor's noise would
/// otherwise be a fast change.
const SHORTEST_SPAN_S: f64 = 1.0;

/// The first value that changed too fast; `values` are in the order of the rules' channels.
pub(super) fn rate(
    rules: &Rules,
    last: &Last,
    at: Timestamp,
    values: &[f64; MAX_TRACKED],
) -> Option<Explanation> {
    let span_s = at.since(last.at).as_secs_f64().max(SHORTEST_SPAN_S);
    let changes = values.iter().zip(last.values);
    rules
        .channels
        .iter()
        .zip(changes)
        .find_map(|(limits, (value, before))| {
            let change = value - before;
            if change.is_nan() || change.abs() <= limits.change_per_second * span_s {
                return None;
            }
            let channel = &limits.channel;
            let unit = unit(channel);
            let sentence = format!(
                "{} changed by {} in {span_s:.0} s, from {}; at most {} per second is plausible",
                words(channel),
                quantity(change, 1, unit),
                quantity(before, 1, unit),
                quantity(limits.change_per_second, 0, unit)
            );
            Some(Explanation::of_rule(
                Rule::Rate,
                sentence,
                channel,
                before,
                *value,
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change_psi: f64, span_ms: i64) -> bool {
        let with = |upstream: f64| {
            let mut values = [f64::NAN; MAX_TRACKED];
            values[4] = upstream;
            values
        };
        let last = Last {
            at: Timestamp::from_micros(0),
            values: with(60.0),
        };
        let at = Timestamp::from_micros(span_ms * 1_000);
        rate(&Rules::default(), &last, at, &with(60.0 + change_psi)).is_some()
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
