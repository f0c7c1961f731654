//! A channel that repeats one value for far longer than it ever did in training.
//!
//! The forest sees runs too, but cannot tell a run of 20 from one of 200: in training there was
//! neither.

use super::Rule;
use crate::channel::{quantity, unit, words};
use crate::explain::Explanation;
use crate::features::profile::{ChannelProfile, Profile};

/// A run counts as stuck from this many times the longest run of training on …
const TIMES: u32 = 3;
/// … and this many readings more.
const READINGS: u32 = 12;

/// The explanation for the first channel of `profile` that is stuck. `x` are its values and `run`
/// says how many readings before this one had the same value.
pub(crate) fn stuck(profile: &Profile, x: &[f64], run: impl Fn(usize) -> u32) -> Option<Explanation> {
    let channels = &profile.channels;
    let index = (0..channels.len()).find(|&index| is_stuck(&channels[index], run(index)))?;
    let (channel, value) = (&channels[index], x[index]);
    let row_run = (0..channels.len()).map(&run).min().unwrap_or(0);
    let sentence = if row_run >= READINGS && channels.len() > 1 {
        format!(
            "all channels unchanged for {} readings",
            row_run.saturating_add(1)
        )
    } else {
        format!(
            "{} stuck at {} for {} readings",
            words(&channel.name),
            quantity(value, 2, unit(&channel.name)),
            run(index).saturating_add(1)
        )
    };
    Some(Explanation::of_rule(
        Rule::Stuck,
        sentence,
        &channel.name,
        channel.mean,
        value,
    ))
}

fn is_stuck(channel: &ChannelProfile, run: u32) -> bool {
    channel.runs_count && run >= channel.longest_run.saturating_mul(TIMES).saturating_add(READINGS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(longest_run: u32, run: u32, runs_count: bool) -> bool {
        let channel = ChannelProfile {
            name: "flow_rate".into(),
            mean: 40.0,
            deviation: 5.0,
            step: 1.0,
            low: 30.0,
            high: 50.0,
            longest_run,
            runs_count,
        };
        is_stuck(&channel, run)
    }

    #[test]
    fn a_run_is_judged_by_the_longest_of_training() {
        assert!(!check(0, 11, true));
        assert!(check(0, 12, true));
        assert!(!check(5, 26, true));
        assert!(check(5, 27, true));
        assert!(!check(0, 1_000, false), "a gate at rest");
    }
}
