//! Old rows go, the file stays within its size, and what safety stands on stays.

use crate::support::{admission, all_events, all_readings, at_ms, open, sequences};
use std::path::Path;
use std::time::Duration;
use tidegate_envelope::reason::Reason;
use tidegate_envelope::time::Timestamp;
use tidegate_store::event::{Event, Outcome};
use tidegate_store::maintenance::{Maintenance, Pruned, Retention};
use tidegate_store::reader::{EventQuery, Reader, ReadingQuery};
use tidegate_verify::log::ReplayLog;

fn prune(path: &Path, now: Timestamp, retention: Retention) -> Pruned {
    let maintenance = Maintenance::open(path).unwrap();
    let mut all = Pruned::default();
    while !all.finished {
        let pruned = maintenance.prune(now, &retention).unwrap();
        all.readings += pruned.readings;
        all.events += pruned.events;
        all.finished = pruned.finished;
    }
    all
}

#[test]
fn rows_beyond_the_age_go_and_the_newest_reading_the_states_and_totals_stay() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.db");
    let mut store = open(&path, 1);
    let batch: Vec<_> = (1..=2_000).map(|n| admission(0, n, n as i64 * 1_000)).collect();
    for second in 1..=2_000 {
        store.record(Event::new(
            at_ms(second * 1_000),
            Outcome::Blocked,
            Some(Reason::BadMac),
        ));
    }
    store.commit(&batch, at_ms(2_000_000)).unwrap();

    let retention = Retention {
        max_age: Some(Duration::from_secs(100)),
        max_bytes: None,
    };
    let pruned = prune(&path, at_ms(2_000_000), retention);
    assert_eq!((pruned.readings, pruned.events), (1_899, 1_899));
    let left = all_readings(&path, &ReadingQuery::default());
    assert_eq!(sequences(&left), (1_900..=2_000).collect::<Vec<_>>());
    assert_eq!(all_events(&path, &EventQuery::default()).len(), 101);

    prune(&path, at_ms(9_000_000), retention);
    assert_eq!(sequences(&all_readings(&path, &ReadingQuery::default())), [2_000]);
    assert_eq!(all_events(&path, &EventQuery::default()), []);
    assert_eq!(store.load().unwrap().devices[0].1.mark().get(), 2_000);
    assert_eq!(store.totals().of(Outcome::Accepted), 2_000);
    assert_eq!(store.totals().of(Outcome::Blocked), 2_000);
    store
        .commit(&[admission(0, 2_001, 9_000_000)], at_ms(9_000_000))
        .unwrap();
    assert_eq!(all_readings(&path, &ReadingQuery::default())[1].id, 2_001);
}

#[test]
fn file_shrinks_to_its_size_and_the_newest_rows_remain() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.db");
    let mut store = open(&path, 1);
    for round in 0..20_u64 {
        let batch: Vec<_> = (1..=1_000)
            .map(|n| admission(0, round * 1_000 + n, round as i64 * 1_000))
            .collect();
        store.commit(&batch, at_ms(round as i64 * 1_000)).unwrap();
    }
    store.close().unwrap();
    let store = open(&path, 1);
    let before = std::fs::metadata(&path).unwrap().len();
    let max_bytes = 600_000;
    assert!(before > 3 * max_bytes, "{before}");
    let pruned = prune(
        &path,
        at_ms(20_000),
        Retention {
            max_age: None,
            max_bytes: Some(max_bytes),
        },
    );
    let after = std::fs::metadata(&path).unwrap().len();
    assert!(after <= max_bytes, "{after}");
    assert!(after > max_bytes / 2, "no more than needed: {after}");
    let left = all_readings(&path, &ReadingQuery::default());
    assert_eq!(left.len() as u64, 20_000 - pruned.readings);
    assert_eq!(left.last().unwrap().sequence, Some(20_000));
    drop(store);
    Reader::open(&path).unwrap().check().unwrap();
}

#[test]
fn size_takes_events_and_readings_by_age() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.db");
    let mut store = open(&path, 1);
    for second in 0..2_000_i64 {
        store.record(Event {
            detail: "x".repeat(400),
            ..Event::new(at_ms(second * 1_000), Outcome::Blocked, Some(Reason::BadMac))
        });
    }
    let batch: Vec<_> = (1..=5_000).map(|n| admission(0, n, n as i64 * 400)).collect();
    store.commit(&batch, at_ms(2_000_000)).unwrap();
    let retention = Retention {
        max_age: None,
        max_bytes: Some(900_000),
    };
    let pruned = prune(&path, at_ms(2_000_000), retention);
    assert!(pruned.readings > 0 && pruned.events > 0, "{pruned:?}");
    let oldest_reading = all_readings(&path, &ReadingQuery::default())[0].received;
    let oldest_event = all_events(&path, &EventQuery::default())[0].at;
    let apart = oldest_reading
        .since(oldest_event)
        .max(oldest_event.since(oldest_reading));
    // One step of 500 rows is 500 s of events.
    assert!(apart <= Duration::from_secs(510), "{apart:?}");
}
