//! A channel that the device always sent is not there: a forger could hide a value this way.

use super::Rule;
use crate::channel::words;
use crate::explain::Explanation;

/// The explanation for a reading without `channel`, whose ordinary value is `expected`.
#[must_use]
pub(crate) fn missing(channel: &str, expected: f64) -> Explanation {
    let sentence = format!("{} is missing from the reading", words(channel));
    Explanation::of_rule(Rule::Missing, sentence, channel, expected, f64::NAN)
}
