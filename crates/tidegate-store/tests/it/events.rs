//! Events: round trip, floods, queries.

use crate::support::{all_events, at_ms, channels, device, open};
use tidegate_envelope::id::{Boot, ZoneId};
use tidegate_envelope::reason::Reason;
use tidegate_store::event::{Event, Outcome};
use tidegate_store::reader::{EventQuery, Order, Reader};
use tidegate_store::recorder::DEFAULT_ROWS_PER_SECOND;

fn full_event() -> Event {
    Event {
        also: vec![Reason::Replay, Reason::OutOfOrder],
        device: Some(device(1)),
        zone: ZoneId::new("pool_spa").ok(),
        topic: "hydroficient/grandmarina/device-001/sensors".into(),
        source: "10.0.0.7:5000".into(),
        detail: "31 s old, at most 30 s".into(),
        score: Some(-0.25),
        sequence: Some(1 << 53),
        boot: Some(Boot(u32::MAX)),
        timestamp: Some(at_ms(-31_000)),
        status: "operational".into(),
        channels: channels(&[("flow_rate", 0.1), ("a \"b\"", -1e-300)]),
        raw: Some(vec![0, 255, 10]),
        protected: true,
        expected: Some("blocked".into()),
        ..Event::new(at_ms(5), Outcome::Blocked, Some(Reason::Stale))
    }
}

#[test]
fn event_comes_back_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.db");
    let mut store = open(&path, 1);
    store.record(full_event());
    store.record(Event::new(at_ms(6), Outcome::Notice, None));
    store.flush().unwrap();
    let events = all_events(&path, &EventQuery::default());
    assert_eq!(
        events[0],
        Event {
            id: 1,
            ..full_event()
        }
    );
    assert_eq!(
        events[1],
        Event {
            id: 2,
            ..Event::new(at_ms(6), Outcome::Notice, None)
        }
    );
}

#[test]
fn flood_is_counted_exactly_and_leaves_few_rows_and_the_one_other_event() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.db");
    let mut store = open(&path, 1);
    for _ in 0..100_000 {
        store.record(Event::new(at_ms(1), Outcome::Blocked, Some(Reason::BadMac)));
    }
    store.record(Event::new(
        at_ms(2),
        Outcome::Blocked,
        Some(Reason::IdentityMismatch),
    ));
    store.flush().unwrap();
    let of = |reason| EventQuery {
        reason: Some(reason),
        ..EventQuery::default()
    };
    assert_eq!(
        all_events(&path, &of(Reason::BadMac)).len(),
        DEFAULT_ROWS_PER_SECOND as usize
    );
    assert_eq!(all_events(&path, &of(Reason::IdentityMismatch)).len(), 1);
    assert_eq!(
        store.totals().count(Outcome::Blocked, Some(Reason::BadMac)),
        100_000
    );
    assert_eq!(
        store.recorder().dropped(),
        100_000 - u64::from(DEFAULT_ROWS_PER_SECOND)
    );
    store.close().unwrap();
    let totals = Reader::open(&path).unwrap().totals().unwrap();
    assert_eq!(totals.of(Outcome::Blocked), 100_001);
    assert_eq!(totals, *open(&path, 1).totals());
}

#[test]
fn an_event_under_a_number_that_is_taken_does_not_stop_commits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.db");
    let mut store = open(&path, 1);
    for detail in ["first", "second"] {
        store.record(Event {
            id: 7,
            detail: detail.into(),
            ..full_event()
        });
    }
    store.flush().unwrap();
    let events = all_events(&path, &EventQuery::default());
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].detail, "first");
}

#[test]
fn queries_select_by_outcome_reason_device_and_time_in_both_orders() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.db");
    let mut store = open(&path, 2);
    for number in 0..2_500_i64 {
        let (outcome, reason) = match number % 3 {
            0 => (Outcome::Flagged, Reason::Anomaly),
            1 => (Outcome::Blocked, Reason::Stale),
            _ => (Outcome::Blocked, Reason::BadMac),
        };
        store.record(Event {
            device: Some(device(1 + (number % 2) as u32)),
            ..Event::new(at_ms(number * 100), outcome, Some(reason))
        });
    }
    store.flush().unwrap();

    let ids = |query: &EventQuery| {
        all_events(&path, query)
            .iter()
            .map(|event| event.id)
            .collect::<Vec<_>>()
    };
    let expected = |keep: &dyn Fn(i64) -> bool| {
        (0..2_500)
            .filter(|n| keep(*n))
            .map(|n| n + 1)
            .collect::<Vec<i64>>()
    };
    let all = EventQuery::default();
    assert_eq!(ids(&all), expected(&|_| true));
    let blocked = EventQuery {
        outcome: Some(Outcome::Blocked),
        ..all.clone()
    };
    assert_eq!(ids(&blocked), expected(&|n| n % 3 != 0));
    let stale = EventQuery {
        reason: Some(Reason::Stale),
        ..all.clone()
    };
    assert_eq!(ids(&stale), expected(&|n| n % 3 == 1));
    let flagged_stale = EventQuery {
        outcome: Some(Outcome::Flagged),
        ..stale.clone()
    };
    assert!(ids(&flagged_stale).is_empty());
    let of_second = EventQuery {
        device: Some(device(2)),
        ..stale
    };
    assert_eq!(ids(&of_second), expected(&|n| n % 3 == 1 && n % 2 == 1));
    let unknown = EventQuery {
        device: Some(device(9)),
        ..all
    };
    assert!(ids(&unknown).is_empty());
    let within = EventQuery {
        from: Some(at_ms(100_000)),
        to: Some(at_ms(100_200)),
        ..all.clone()
    };
    assert_eq!(ids(&within), [1_001, 1_002]);
    let after = EventQuery {
        after_id: Some(2_498),
        ..all.clone()
    };
    assert_eq!(ids(&after), [2_499, 2_500]);
    let newest = EventQuery {
        order: Order::NewestFirst,
        limit: Some(2),
        ..all.clone()
    };
    assert_eq!(ids(&newest), [2_500, 2_499]);
    let before = EventQuery {
        after_id: Some(3),
        order: Order::NewestFirst,
        ..all
    };
    assert_eq!(ids(&before), [2, 1]);
}
