//! Check 9: what a broker delivers again, and what somebody repeats.

use super::*;

const DAY: Duration = Duration::from_secs(86_400);
const MILLISECOND: Duration = Duration::from_millis(1);

#[test]
fn same_message_again_is_duplicate_once_then_replay() {
    let mut gateway = Gateway::new(|_| {});
    let said = boot(1, 7, NOW);
    assert_eq!(gateway.send(said), accepted());
    assert_eq!(gateway.send(said), Err(vec![Reason::Duplicate]));
    assert_eq!(gateway.send(said), Err(vec![Reason::Replay]));
}

#[test]
fn same_message_from_another_session_or_late_is_a_replay() {
    let mut gateway = Gateway::new(|_| {});
    assert_eq!(gateway.send(boot(1, 7, NOW)), accepted());
    gateway.session = 2;
    assert_eq!(gateway.send(boot(1, 7, NOW)), Err(vec![Reason::Replay]));
    gateway.session = 1;
    gateway.wait(11 * SECOND);
    assert_eq!(gateway.send(boot(1, 7, NOW)), Err(vec![Reason::Replay]));
    gateway.wait(60 * SECOND);
    assert_eq!(
        gateway.send(boot(1, 7, NOW)),
        Err(vec![Reason::Stale, Reason::Replay])
    );
}

#[test]
fn redelivery_after_exactly_10_s_is_a_duplicate_and_a_millisecond_later_a_replay() {
    for (ms, reason) in [(10_000, Reason::Duplicate), (10_001, Reason::Replay)] {
        let mut gateway = Gateway::new(|_| {});
        assert_eq!(gateway.send(boot(1, 1, NOW)), accepted());
        gateway.wait(Duration::from_millis(ms));
        gateway.crash();
        assert_eq!(gateway.send(boot(1, 1, NOW)), Err(vec![reason]));
    }
    // Ages are kept modulo 2^32 ms; the timestamp tells the rounds apart.
    let mut gateway = Gateway::new(|_| {});
    assert_eq!(gateway.send(boot(1, 1, NOW)), accepted());
    gateway.wait(Duration::from_millis(1 << 32));
    assert_eq!(
        gateway.send(boot(1, 1, NOW)),
        Err(vec![Reason::Stale, Reason::Replay])
    );
}

/// What becomes of message 1, made `late` before its acceptance, when it comes again `after` that.
fn again(late: Duration, after: Duration, resumed: bool) -> Vec<Reason> {
    let mut gateway = Gateway::new(|_| {});
    gateway.guard.clock = Clock::new(None, NOW.minus(3_600 * SECOND));
    let said = boot(1, 1, NOW.minus(late));
    assert_eq!(gateway.send(said), accepted());
    gateway.wait(after);
    gateway.resumed = resumed;
    gateway.send(said).unwrap_err()
}

#[test]
fn redelivery_of_a_message_that_was_late_already_is_a_duplicate_too() {
    assert_eq!(again(30 * SECOND, 10 * SECOND, false), [Reason::Duplicate]);
    assert_eq!(again(30 * SECOND, DAY, true), [Reason::Duplicate]);
}

#[test]
fn redelivery_in_a_resumed_session_is_a_duplicate_for_a_day_and_no_longer() {
    let replay = [Reason::Stale, Reason::Replay];
    assert_eq!(again(Duration::ZERO, 3_600 * SECOND, true), [Reason::Duplicate]);
    assert_eq!(again(Duration::ZERO, 3_600 * SECOND, false), replay);
    assert_eq!(again(Duration::ZERO, DAY, true), [Reason::Duplicate]);
    assert_eq!(again(Duration::ZERO, DAY + MILLISECOND, true), replay);
    // Ages repeat after 49 days; the timestamp tells the rounds apart.
    let round = Duration::from_millis(1 << 32);
    assert_eq!(again(Duration::ZERO, round, true), replay);
    assert_eq!(again(Duration::ZERO, round + 5 * SECOND, true), replay);
}

#[test]
fn resumed_session_excuses_neither_a_third_copy_nor_another_client() {
    let mut gateway = Gateway::new(|_| {});
    gateway.resumed = true;
    assert_eq!(gateway.send(boot(1, 7, NOW)), accepted());
    gateway.session = 2;
    assert_eq!(gateway.send(boot(1, 7, NOW)), Err(vec![Reason::Replay]));
    gateway.session = 1;
    assert_eq!(gateway.send(boot(1, 7, NOW)), Err(vec![Reason::Duplicate]));
    assert_eq!(gateway.send(boot(1, 7, NOW)), Err(vec![Reason::Replay]));
    // Each message has its own first copy.
    assert_eq!(gateway.send(boot(1, 8, NOW)), accepted());
    assert_eq!(gateway.send(boot(1, 7, NOW)), Err(vec![Reason::Replay]));
    assert_eq!(gateway.send(boot(1, 8, NOW)), Err(vec![Reason::Duplicate]));
}

#[test]
fn replays_do_not_use_up_the_copy_that_a_broker_may_deliver() {
    let mut gateway = Gateway::new(|_| {});
    assert_eq!(gateway.send(boot(1, 7, NOW)), accepted());
    gateway.session = 2;
    for _ in 0..3 {
        assert_eq!(gateway.send(boot(1, 7, NOW)), Err(vec![Reason::Replay]));
    }
    gateway.session = 1;
    assert_eq!(gateway.send(boot(1, 7, NOW)), Err(vec![Reason::Duplicate]));
}

#[test]
fn copy_of_a_message_under_a_key_that_was_retired_since_is_no_redelivery() {
    let mut gateway = Gateway::new(|_| {});
    assert_eq!(gateway.send(boot(1, 7, NOW)), accepted());
    let renewed = Said {
        epoch: Some(1),
        ..boot(1, 8, NOW)
    };
    assert_eq!(gateway.send(renewed), accepted());
    let reasons = vec![Reason::KeyRetired, Reason::Replay];
    assert_eq!(gateway.send(boot(1, 7, NOW)), Err(reasons));
    assert_eq!(gateway.send(renewed), Err(vec![Reason::Duplicate]));
}

#[test]
fn message_above_the_mark_is_no_redelivery_though_it_begins_like_one() {
    // The ring keeps the lower half of a number only.
    let mut gateway = Gateway::new(|device| device.quota_per_s = u32::MAX);
    assert_eq!(gateway.send(boot(1, 7, NOW)), accepted());
    let mut state = gateway.guard.devices[0].state.clone().unwrap();
    state.remember(
        tidegate_envelope::id::Sequence::new(9).unwrap(),
        &tag_of(boot(1, 9, NOW)),
        NOW,
    );
    gateway.guard.devices[0].state = Some(state);
    assert_eq!(
        gateway.send(boot(1, 9, NOW)),
        Ok(vec![Notice::Gap { missing: 1 }])
    );
}

fn tag_of(said: Said) -> tidegate_envelope::key::Tag {
    let payload = said.signed();
    let document = tidegate_envelope::json::Document::parse(&payload).unwrap();
    tidegate_envelope::key::Tag::from_hex(document.hmac().unwrap()).unwrap()
}
