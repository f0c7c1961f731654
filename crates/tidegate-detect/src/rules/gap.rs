//! A reading that came long after the one before it: what was between was never measured, or lost.

use super::Rule;
use crate::explain::Explanation;
use std::time::Duration;
use tidegate_envelope::time::Timestamp;

/// The explanation for a reading at `at` after one at `last`.
pub(super) fn gap(allowed: Duration, last: Timestamp, at: Timestamp) -> Option<Explanation> {
    let gap = at.since(last);
    (gap > allowed).then(|| {
        let (seen, expected) = (gap.as_secs_f64(), allowed.as_secs_f64());
        let sentence = format!("{seen:.0} s since the reading before, at most {expected:.0} s are allowed");
        Explanation::of_time(Rule::Gap, sentence, expected, seen)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_as_far_apart_as_allowed_are_no_gap_and_farther_ones_are() {
        let at = |ms: i64| Timestamp::from_micros(ms * 1_000);
        let check = |ms: i64| gap(Duration::from_secs(30), at(0), at(ms)).map(|broken| broken.sentence);
        assert_eq!(check(30_000), None);
        assert_eq!(
            check(31_000).as_deref(),
            Some("31 s since the reading before, at most 30 s are allowed")
        );
    }
}
