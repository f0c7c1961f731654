//! Checks 11 and 13: a device's first message, and numbers out of nowhere.

use super::*;

/// How far below an unproven mark the device's true numbers may at most go unnoticed.
const FAR: u64 = 65_536;

#[test]
fn first_message_from_before_the_start_is_a_cold_start() {
    let mut gateway = Gateway::new(|_| {});
    let before = NOW.minus(6 * SECOND);
    assert_eq!(gateway.send(Said::at(1, before)), Err(vec![Reason::ColdStart]));
    assert_eq!(gateway.send(Said::at(1, NOW.minus(5 * SECOND))), accepted());
    // A state that was lost may have accepted it, so its number does not matter.
    assert_eq!(gateway.send(boot(1, 2, before)), Err(vec![Reason::Replay]));
    assert_eq!(gateway.send(boot(1, 2, NOW.minus(5 * SECOND))), accepted());
}

#[test]
fn past_of_a_lost_state_stays_closed_after_the_first_message() {
    let mut gateway = Gateway::new(|device| device.window = Window::SixtyFour);
    for sequence in 498..=500 {
        assert_eq!(gateway.send(Said::at(sequence, NOW)), accepted());
    }
    gateway.log = MemoryLog::default();
    gateway.wait(6 * SECOND);
    gateway.crash();
    assert_eq!(gateway.send(Said::at(500, NOW)), Err(vec![Reason::ColdStart]));
    // The publisher has started again too, so the old numbers lie above its new mark.
    assert_eq!(gateway.send(Said::at(499, gateway.now)), accepted());
    assert_eq!(gateway.send(Said::at(500, NOW)), Err(vec![Reason::Replay]));
    assert_eq!(gateway.send(Said::at(498, NOW)), Err(vec![Reason::Replay]));
    assert_eq!(gateway.send(Said::at(500, gateway.now)), accepted());
}

#[test]
fn poisoned_sequence_is_refused_and_the_device_goes_on() {
    let mut gateway = Gateway::new(|_| {});
    assert_eq!(gateway.send(boot(1, 1, NOW)), accepted());
    assert_eq!(gateway.send(boot(1, 1 << 53, NOW)), Err(vec![Reason::SeqJump]));
    gateway.wait(2 * SECOND);
    assert_eq!(gateway.send(boot(1, 65_538, NOW)), Err(vec![Reason::SeqJump]));
    gateway.wait(2 * SECOND);
    assert_eq!(gateway.send(boot(1, 2, NOW)), accepted());
    gateway.wait(2 * SECOND);
    assert_eq!(
        gateway.send(boot(1, 65_538, NOW)),
        Ok(vec![Notice::Gap { missing: 65_535 }])
    );
}

#[test]
fn first_number_that_is_wrong_does_not_lock_a_strict_or_counting_device_out() {
    for (strict, boots) in [
        (true, [None, None]),
        (false, [Some(1), Some(1)]),
        (true, [Some(9), Some(1)]),
    ] {
        let mut gateway = Gateway::new(|device| device.strict_sequence = strict);
        let said = |boot, sequence, ms| Said {
            boot,
            ..Said::at(sequence, NOW.plus(Duration::from_millis(ms)))
        };
        let poison = said(boots[0], 1 << 53, 0);
        assert_eq!(gateway.send(poison), accepted());
        assert_eq!(
            gateway.send(said(boots[1], 1_000, 1)),
            Ok(vec![Notice::PublisherRestart])
        );
        // From there on it is as strict as ever.
        assert_eq!(gateway.send(said(boots[1], 1_001, 2)), accepted());
        assert_eq!(gateway.send(said(boots[1], 999, 3)), Err(vec![Reason::Replay]));
        assert_eq!(
            gateway.send(said(boots[1], 1 << 53, 3)),
            Err(vec![Reason::SeqJump])
        );
        gateway.session = 2;
        assert_eq!(gateway.send(poison), Err(vec![Reason::Replay, Reason::SeqJump]));
        assert_eq!(gateway.send(said(boots[1], 1_002, 3)), accepted());
    }
}

#[test]
fn mark_gives_way_only_while_unproven_and_only_to_a_far_lower_number_with_a_newer_time() {
    let first = FAR + 10;
    let later = NOW.plus(SECOND);
    let check = |proven: bool, said: Said| {
        let mut gateway = Gateway::new(|_| {});
        assert_eq!(gateway.send(boot(1, first, NOW)), accepted());
        if proven {
            assert_eq!(gateway.send(boot(1, first + 1, NOW)), accepted());
        }
        gateway.send(said)
    };
    assert_eq!(
        check(false, boot(1, 9, later)),
        Ok(vec![Notice::PublisherRestart])
    );
    assert_eq!(check(false, boot(1, 10, later)), Err(vec![Reason::Replay]));
    assert_eq!(check(false, boot(1, 9, NOW)), Err(vec![Reason::Replay]));
    assert_eq!(check(true, boot(1, 9, later)), Err(vec![Reason::Replay]));
}

#[test]
fn far_jump_after_a_long_silence_is_unproven_and_a_short_one_is_not() {
    for (jump, outcome) in [
        (FAR, Err(vec![Reason::OutOfOrder])),
        (FAR + 1, Ok(vec![Notice::PublisherRestart])),
    ] {
        let mut gateway = Gateway::new(|_| {});
        assert_eq!(gateway.send(boot(1, 1, NOW)), accepted());
        assert_eq!(
            gateway.send(boot(1, 3, NOW)),
            Ok(vec![Notice::Gap { missing: 1 }])
        );
        gateway.wait(3_600 * SECOND);
        let jumped = gateway.send(boot(1, 3 + jump, gateway.now));
        assert_eq!(jumped, Ok(vec![Notice::Gap { missing: jump - 1 }]));
        gateway.crash();
        gateway.wait(SECOND);
        assert_eq!(gateway.send(boot(1, 2, gateway.now)), outcome);
    }
}

#[test]
fn outlier_of_a_new_key_gives_way_as_that_of_a_first_message_does() {
    let mut gateway = Gateway::new(|_| {});
    let renewed = |sequence, seconds: u32| Said {
        epoch: Some(1),
        ..boot(1, sequence, NOW.plus(seconds * SECOND))
    };
    assert_eq!(gateway.send(boot(1, 1 << 40, NOW)), accepted());
    assert_eq!(gateway.send(boot(1, (1 << 40) + 1, NOW)), accepted());
    assert_eq!(gateway.send(renewed(1 << 39, 1)), accepted());
    assert_eq!(gateway.send(renewed(3, 2)), Ok(vec![Notice::PublisherRestart]));
    assert_eq!(gateway.send(renewed(4, 2)), accepted());
}

#[test]
fn honest_first_message_after_a_lost_state_may_have_any_number() {
    for sequence in [1, 1_024, 1_771_472_105_000, (1 << 53) - 1] {
        let mut gateway = Gateway::new(|device| device.strict_sequence = true);
        assert_eq!(gateway.send(boot(1, sequence, NOW)), accepted());
        assert_eq!(gateway.send(boot(1, sequence + 1, NOW)), accepted());
    }
}

#[test]
fn jump_may_be_as_wide_as_the_quota_allows_for_the_time_since_the_newest_message() {
    for (jump, outcome) in [
        (100_000, Ok(vec![Notice::Gap { missing: 99_999 }])),
        (100_001, Err(vec![Reason::SeqJump])),
    ] {
        let mut gateway = Gateway::new(|device| device.quota_per_s = 1_000);
        assert_eq!(gateway.send(boot(1, 1, NOW)), accepted());
        gateway.wait(100 * SECOND);
        assert_eq!(gateway.send(boot(1, 1 + jump, gateway.now)), outcome.clone());
        // Late on its way, and no less plausible.
        let mut gateway = Gateway::new(|device| device.quota_per_s = 1_000);
        assert_eq!(gateway.send(boot(1, 1, NOW)), accepted());
        gateway.wait(100 * SECOND);
        let late = boot(1, 1 + jump, NOW.plus(70 * SECOND));
        assert_eq!(gateway.send(late), outcome);
        // The message's own time counts where it is ahead of the clock here.
    }
    let mut gateway = Gateway::new(|device| device.quota_per_s = 1_000);
    assert_eq!(gateway.send(boot(1, 1, NOW)), accepted());
    gateway.wait(97 * SECOND);
    let ahead = boot(1, 100_001, NOW.plus(100 * SECOND));
    assert_eq!(gateway.send(ahead), Ok(vec![Notice::Gap { missing: 99_999 }]));
}
