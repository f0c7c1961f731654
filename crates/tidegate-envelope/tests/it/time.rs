//! Arithmetic of points in time, up to the ends of what can be represented.

use std::time::Duration;
use tidegate_envelope::time::Timestamp;

const NOW: Timestamp = Timestamp::from_micros(1_771_472_105_551_904);

#[test]
fn spans_are_added_and_taken_to_the_microsecond() {
    let span = Duration::from_micros(31_000_007);
    assert_eq!(NOW.plus(span).as_micros(), 1_771_472_136_551_911);
    assert_eq!(NOW.minus(span).as_micros(), 1_771_472_074_551_897);
    assert_eq!(NOW.plus(span).since(NOW), span);
    assert_eq!(NOW.since(NOW), Duration::ZERO);
    assert_eq!(NOW.since(NOW.plus(span)), Duration::ZERO);
}

#[test]
fn times_beyond_the_ends_are_the_ends() {
    let [first, last] = [i64::MIN, i64::MAX].map(Timestamp::from_micros);
    assert_eq!(NOW.plus(Duration::MAX), last);
    assert_eq!(
        NOW.minus(Duration::MAX),
        NOW.minus(Duration::from_micros(i64::MAX as u64))
    );
    assert_eq!(first.minus(Duration::from_micros(1)), first);
    assert_eq!(last.plus(Duration::from_micros(1)), last);
    assert_eq!(last.since(first), Duration::from_micros(i64::MAX as u64));
}

#[test]
fn milliseconds_are_rounded_down_before_1970_too() {
    assert_eq!(NOW.as_millis(), 1_771_472_105_551);
    assert_eq!(Timestamp::from_micros(-1).as_millis(), -1);
    assert_eq!(Timestamp::from_micros(-1_000).as_millis(), -1);
}

#[test]
fn minute_second_and_hour_sixty_and_twenty_four_are_refused() {
    for (right, wrong) in [
        ("2026-02-19T23:59:59Z", "2026-02-19T24:59:59Z"),
        ("2026-02-19T23:59:59Z", "2026-02-19T23:60:59Z"),
        ("2026-02-19T23:59:59Z", "2026-02-19T23:59:60Z"),
        ("2026-02-28T00:00:00Z", "2026-02-29T00:00:00Z"),
        ("2026-02-01T00:00:00Z", "2026-02-00T00:00:00Z"),
        ("2026-01-01T00:00:00Z", "2026-00-01T00:00:00Z"),
        ("2026-12-31T00:00:00Z", "2026-13-31T00:00:00Z"),
    ] {
        assert!(Timestamp::parse_rfc3339(right).is_some(), "{right}");
        assert_eq!(Timestamp::parse_rfc3339(wrong), None, "{wrong}");
    }
}
