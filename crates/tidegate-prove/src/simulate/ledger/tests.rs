//! Each claim with a ledger that holds it, and with one that does not.

use super::*;
use tidegate_envelope::id::{Boot, KeyEpoch};
use tidegate_envelope::key::Tag;
use tidegate_envelope::reading::{Channels, Reading};
use tidegate_verify::delivery::SessionId;
use tidegate_verify::verifier::Protection;

const KEY: Key = (0, 1, 7);
const AT: Duration = Duration::from_secs(50);

fn ledger(mode: Mode) -> Ledger {
    let mut plan = Plan::of(1, None);
    plan.mode = mode;
    plan.faults.clear();
    for device in &mut plan.devices {
        (device.offset_us, device.drift_ppm) = (0, 0);
    }
    let mut ledger = Ledger::new(&plan, false);
    ledger.subscribed(Duration::ZERO);
    ledger
}

fn message(value: f64) -> Message {
    Message {
        device: Some(DeviceIndex(KEY.0)),
        zone: None,
        reading: Reading {
            device: None,
            timestamp: Some(true_time(AT)),
            sequence: Sequence::new(KEY.2),
            boot: Some(Boot(KEY.1)),
            epoch: None,
            status: "operational".into(),
            channels: Channels::new(vec![(crate::simulate::hosts::CHANNEL.into(), value)]).unwrap(),
        },
        tag: Tag([0; 32]),
        epoch: KeyEpoch(0),
        session: SessionId(1),
        resumed: false,
        received_at: true_time(AT),
        protection: Protection::Signed,
    }
}

fn found(ledger: &Ledger) -> String {
    ledger.violations.join("\n")
}

#[test]
fn message_accepted_once_as_it_was_sent_is_no_violation_and_any_other_is() {
    for (times, value, sent, wrong) in [
        (1, 2.0, true, None),
        (2, 2.0, true, Some("accepted twice")),
        (1, 3.0, true, Some("was accepted as")),
        (1, 2.0, false, Some("never sent")),
    ] {
        let mut ledger = ledger(Mode::Embedded);
        if sent {
            ledger.sent(KEY, true_time(AT), 2.0, AT);
        }
        for _ in 0..times {
            ledger.durable(KEY, &message(value), AT);
        }
        let found = found(&ledger);
        assert!(
            wrong.map_or(found.is_empty(), |wrong| found.contains(wrong)),
            "{found}"
        );
    }
}

#[test]
fn message_accepted_outside_the_window_is_a_violation() {
    let now = true_time(AT);
    let microsecond = Duration::from_micros(1);
    for (now, held) in [
        (now.plus(OLDEST), true),
        (now.plus(OLDEST + microsecond), false),
        (now.minus(NEWEST), true),
        (now.minus(NEWEST + microsecond), false),
    ] {
        let mut ledger = ledger(Mode::Embedded);
        ledger.admitted(KEY, &message(2.0), now, AT);
        assert_eq!(ledger.violations.is_empty(), held, "{}", found(&ledger));
    }
}

#[test]
fn acknowledged_message_that_is_not_durable_is_a_violation() {
    let told = Event::Acknowledged {
        sequence: Sequence::new(KEY.2).unwrap(),
        after: Duration::ZERO,
    };
    for durable in [true, false] {
        let mut ledger = ledger(Mode::Embedded);
        ledger.sent(KEY, true_time(AT), 2.0, AT);
        if durable {
            ledger.durable(KEY, &message(2.0), AT);
        }
        ledger.told(KEY.0, KEY.1, &told, AT);
        assert_eq!(ledger.violations.is_empty(), durable, "{}", found(&ledger));
    }
}

#[test]
fn what_is_lost_without_a_reason_is_found_at_the_end() {
    let sequence = Sequence::new(KEY.2).unwrap();
    let acknowledged = Event::Acknowledged {
        sequence,
        after: Duration::ZERO,
    };
    let dropped = Event::Dropped {
        sequence,
        why: Dropped::TooOld,
    };
    for (told, refused, held) in [
        (None, None, false),
        (Some(&dropped), None, true),
        (Some(&acknowledged), None, false),
        (Some(&acknowledged), Some(Reason::Replay), false),
        (Some(&acknowledged), Some(Reason::StorageUnavailable), true),
    ] {
        let mut ledger = ledger(Mode::Subscriber);
        ledger.sent(KEY, true_time(AT), 2.0, AT);
        if let Some(event) = told {
            ledger.told(KEY.0, KEY.1, event, AT);
        }
        if let Some(reason) = refused {
            ledger.refused(Some(KEY), reason, AT);
        }
        ledger.close(AT, None, &BTreeSet::new());
        let found = found(&ledger);
        assert_eq!(
            ledger.violations.is_empty(),
            held,
            "{told:?} {refused:?}: {found}"
        );
    }
}

#[test]
fn accepted_message_that_is_not_on_the_disk_is_found_at_the_end() {
    for on_disk in [true, false] {
        let mut ledger = ledger(Mode::Embedded);
        ledger.sent(KEY, true_time(AT), 2.0, AT);
        ledger.durable(KEY, &message(2.0), AT);
        let disk = BTreeSet::from_iter(on_disk.then_some(KEY));
        ledger.close(AT, None, &disk);
        assert_eq!(ledger.violations.is_empty(), on_disk, "{}", found(&ledger));
    }
}

#[test]
fn refusal_that_honest_clocks_do_not_excuse_is_a_violation() {
    for (reason, age, held) in [
        (Reason::Stale, OLDEST, true),
        (Reason::Stale, OLDEST - Duration::from_millis(1), false),
        (Reason::Future, Duration::ZERO, false),
        (Reason::Replay, Duration::ZERO, true),
    ] {
        let mut ledger = ledger(Mode::Embedded);
        ledger.sent(KEY, true_time(AT), 2.0, AT);
        ledger.refused(Some(KEY), reason, AT + age);
        assert_eq!(ledger.violations.is_empty(), held, "{reason} {age:?}");
    }
}

#[test]
fn number_used_again_or_after_a_later_one_is_a_violation() {
    for (second, held) in [
        ((0, 1, 8), true),
        ((0, 2, 8), true),
        (KEY, false),
        ((0, 2, 7), false),
        ((0, 1, 6), false),
    ] {
        let mut ledger = ledger(Mode::Embedded);
        ledger.sent(KEY, true_time(AT), 2.0, AT);
        ledger.sent(second, true_time(AT), 2.0, AT);
        assert_eq!(ledger.violations.is_empty(), held, "{second:?}");
    }
}
