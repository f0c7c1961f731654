//! Clocks that are wrong, here and at the devices.

use super::*;

const TEN_YEARS: Duration = Duration::from_secs(10 * 365 * 86_400);

#[test]
fn clock_set_back_is_said_once_and_does_not_reopen_the_past() {
    let mut gateway = Gateway::new(|_| {});
    assert_eq!(gateway.send(boot(1, 1, NOW)), accepted());
    gateway.wait(100 * SECOND);
    assert_eq!(gateway.send(boot(1, 2, NOW.plus(100 * SECOND))), accepted());
    gateway.now = NOW;
    let said = gateway.send(boot(1, 3, NOW.plus(100 * SECOND)));
    assert_eq!(said, Ok(vec![Notice::ClockRollback { by_ms: 100_000 }]));
    let reasons = vec![Reason::Stale, Reason::ClockRollback];
    assert_eq!(gateway.send(boot(1, 4, NOW)), Err(reasons.clone()));
    gateway.crash();
    assert_eq!(gateway.send(boot(1, 4, NOW)), Err(reasons));
}

#[test]
fn clock_that_was_ahead_and_is_corrected_locks_nobody_out() {
    let mut gateway = Gateway::new(|_| {});
    let years = Duration::from_secs(10 * 365 * 86_400);
    assert_eq!(gateway.send(boot(1, 1, NOW)), accepted());
    gateway.now = NOW.plus(years);
    assert_eq!(gateway.send(boot(1, 2, NOW)), Err(vec![Reason::Stale]));
    gateway.crash();
    assert_eq!(gateway.send(boot(1, 2, NOW)), Err(vec![Reason::Stale]));
    gateway.now = NOW;
    assert_eq!(gateway.send(boot(1, 2, NOW)), accepted());
    // Nor a device that had no state while the clock was ahead.
    gateway.device = 2;
    assert_eq!(
        gateway.send(Said {
            device: 2,
            ..boot(1, 1, NOW)
        }),
        accepted()
    );
}

#[test]
fn refusals_under_a_clock_that_was_set_back_say_so_and_leave_the_notice() {
    let mut gateway = Gateway::new(|_| {});
    assert_eq!(gateway.send(boot(1, 1, NOW)), accepted());
    gateway.now = NOW.minus(3_600 * SECOND);
    let late = boot(1, 2, NOW.minus(3_600 * SECOND));
    let reasons = vec![Reason::Stale, Reason::Replay, Reason::ClockRollback];
    assert_eq!(gateway.send(late), Err(reasons));
    let notice = Notice::ClockRollback { by_ms: 3_600_000 };
    assert_eq!(gateway.send(boot(1, 2, NOW)), Ok(vec![notice]));
    assert_eq!(gateway.send(boot(1, 3, NOW)), accepted());
}

#[test]
fn unsigned_messages_pass_without_state_and_confirm_the_clock_only_where_they_agree() {
    let mut gateway = Gateway::new(|_| {});
    gateway.verifier = Verifier::new(Arc::clone(&gateway.registry), Protection::Unprotected, 65_536);
    let hour = 3_600 * SECOND;
    gateway.now = NOW.plus(hour);
    for payload in [Said::at(1, NOW).signed(), Said::at(1, NOW).signed()] {
        assert_eq!(gateway.admit(&payload), Outcome::Admitted);
    }
    assert!(gateway.guard.clock.floor() < NOW);
    gateway.now = NOW;
    assert_eq!(gateway.admit(&Said::at(1, NOW).signed()), Outcome::Admitted);
    assert_eq!(gateway.guard.clock.floor(), NOW);
    gateway.now = NOW.plus(hour);
    assert_eq!(gateway.admit(b"{}"), Outcome::Admitted);
    assert_eq!(
        gateway.guard.clock.floor(),
        NOW,
        "what names no time confirms none"
    );
    assert!(
        gateway
            .guard
            .batch
            .iter()
            .all(|admission| admission.state.is_none())
    );
}

#[test]
fn clocks_ten_years_off_on_either_side_do_not_panic() {
    let years = Duration::from_secs(10 * 365 * 86_400);
    for said_at in [NOW.minus(years), NOW, NOW.plus(years)] {
        for now in [
            NOW.minus(years),
            NOW.plus(years),
            Timestamp::from_micros(i64::MAX),
            NOW,
        ] {
            let mut gateway = Gateway::new(|_| {});
            gateway.now = now;
            drop(gateway.send(Said::at(1, said_at)));
            drop(gateway.send(Said::at(2, said_at)));
        }
    }
}

#[test]
fn clock_that_is_ahead_makes_everything_stale_and_changes_nothing_until_it_is_corrected() {
    let mut gateway = Gateway::new(|_| {});
    assert_eq!(gateway.send(boot(1, 1, NOW)), accepted());
    let second = |sequence| Said {
        device: 2,
        ..boot(1, sequence, NOW)
    };
    gateway.now = NOW.plus(TEN_YEARS);
    let before = gateway.snapshot();
    for sequence in 2..5 {
        gateway.device = 1;
        assert_eq!(gateway.send(boot(1, sequence, NOW)), Err(vec![Reason::Stale]));
        gateway.device = 2;
        let reasons = vec![Reason::Stale];
        assert_eq!(gateway.send(second(sequence)), Err(reasons));
    }
    assert_eq!(gateway.snapshot(), before);
    gateway.now = NOW.plus(SECOND);
    assert_eq!(gateway.send(second(5)), accepted());
    gateway.device = 1;
    assert_eq!(gateway.send(boot(1, 2, NOW)), accepted());
}

#[test]
fn device_that_is_ahead_is_from_the_future_and_changes_nothing() {
    let mut gateway = Gateway::new(|_| {});
    assert_eq!(gateway.send(boot(1, 1, NOW)), accepted());
    let before = gateway.snapshot();
    let ahead = gateway.send(boot(1, 2, NOW.plus(TEN_YEARS)));
    assert_eq!(ahead, Err(vec![Reason::Future]));
    assert_eq!(gateway.snapshot(), before);
    assert_eq!(gateway.send(boot(1, 2, NOW)), accepted());
}

/// What remains: a clock here and a device's that are ahead by the same span confirm each other,
/// and then everything is refused until the right time has come to where they were.
#[test]
fn clocks_that_were_ahead_together_refuse_everybody_until_the_floor_is_reached() {
    let mut gateway = Gateway::new(|_| {});
    let ahead = NOW.plus(TEN_YEARS);
    gateway.now = ahead;
    assert_eq!(gateway.send(boot(1, 1, ahead)), accepted());
    gateway.now = NOW;
    let refused = vec![Reason::Stale, Reason::ClockRollback];
    assert_eq!(gateway.send(boot(1, 2, NOW)), Err(refused.clone()));
    gateway.crash();
    assert_eq!(gateway.send(boot(1, 2, NOW)), Err(refused));
    // From now on a message of that time would be taken, and by nobody twice.
    assert_eq!(gateway.send(boot(1, 1, ahead)), Err(vec![Reason::Duplicate]));
    gateway.now = ahead.plus(SECOND);
    assert_eq!(gateway.send(boot(1, 2, gateway.now)), accepted());
}
