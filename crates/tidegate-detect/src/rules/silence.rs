//! A device that has said nothing for longer than it may: it, its line or its power is gone, or
//! somebody keeps its messages back.

use super::Rule;
use crate::explain::Explanation;
use std::time::Duration;
use tidegate_envelope::time::Timestamp;

/// The explanation for a device that was last heard at `last`.
pub(super) fn silence(allowed: Duration, last: Timestamp, now: Timestamp) -> Option<Explanation> {
    let silent = now.since(last);
    (silent > allowed).then(|| {
        let (seen, expected) = (silent.as_secs_f64(), allowed.as_secs_f64());
        let sentence = format!("nothing heard for {seen:.0} s, at most {expected:.0} s are allowed");
        Explanation::of_time(Rule::Silence, sentence, expected, seen)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(now_ms: i64) -> Option<String> {
        let at = |ms: i64| Timestamp::from_micros(ms * 1_000);
        silence(Duration::from_secs(60), at(0), at(now_ms)).map(|broken| broken.sentence)
    }

    #[test]
    fn silence_begins_after_the_allowed_time() {
        assert_eq!(check(60_000), None);
        assert_eq!(
            check(61_000).as_deref(),
            Some("nothing heard for 61 s, at most 60 s are allowed")
        );
        assert_eq!(check(-5_000), None, "a clock that was set back");
    }
}
