//! No room left: refused whole, and taken up again when there is room.

use crate::support::{admission, all_events, all_readings, at_ms, devices, sequences};
use tidegate_envelope::reason::Reason;
use tidegate_store::error::StoreError;
use tidegate_store::event::{Event, Outcome};
use tidegate_store::maintenance::{Maintenance, Retention};
use tidegate_store::reader::{EventQuery, ReadingQuery};
use tidegate_store::writer::{Options, Store};
use tidegate_verify::log::ReplayLog;

#[test]
fn full_database_refuses_whole_batches_and_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.db");
    let options = Options {
        ceiling_bytes: Some(400_000),
        ..Options::default()
    };
    let mut store = Store::open(&path, &devices(1), &options).unwrap();
    let mut acknowledged = 0;
    let commit = |store: &mut Store, acknowledged: &mut u64| {
        let batch: Vec<_> = (1..=64).map(|n| admission(0, *acknowledged + n, 0)).collect();
        store.commit(&batch, at_ms(0)).inspect(|()| *acknowledged += 64)
    };
    let error = loop {
        if let Err(error) = commit(&mut store, &mut acknowledged) {
            break error;
        }
        assert!(acknowledged < 100_000, "the ceiling must hold");
    };
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    store.record(Event::new(at_ms(0), Outcome::Blocked, Some(Reason::BadMac)));
    assert!(matches!(
        commit(&mut store, &mut acknowledged),
        Err(StoreError::Full { .. })
    ));
    let rows = all_readings(&path, &ReadingQuery::default());
    assert_eq!(sequences(&rows), (1..=acknowledged).collect::<Vec<_>>());
    assert_eq!(store.load().unwrap().devices[0].1.mark().get(), acknowledged);
    assert_eq!(store.totals().of(Outcome::Accepted), acknowledged);

    let retention = Retention {
        max_bytes: Some(200_000),
        ..Retention::default()
    };
    Maintenance::open(&path)
        .unwrap()
        .prune(at_ms(0), &retention)
        .unwrap();
    commit(&mut store, &mut acknowledged).unwrap();
    let rows = all_readings(&path, &ReadingQuery::default());
    assert_eq!(rows.last().unwrap().sequence, Some(acknowledged));
    assert_eq!(
        all_events(&path, &EventQuery::default()).len(),
        1,
        "the event waited"
    );
    assert_eq!(store.totals().of(Outcome::Blocked), 1);
}

#[test]
fn layout_of_a_commit_that_failed_is_not_taken_for_known() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.db");
    let options = Options {
        ceiling_bytes: Some(400_000),
        ..Options::default()
    };
    let mut store = Store::open(&path, &devices(1), &options).unwrap();
    // Too large a batch for the ceiling, with a layout that the file has not seen.
    let batch: Vec<_> = (1..=10_000).map(|n| admission(0, n, 0)).collect();
    assert!(matches!(
        store.commit(&batch, at_ms(0)),
        Err(StoreError::Full { .. })
    ));
    assert!(all_readings(&path, &ReadingQuery::default()).is_empty());
    store.commit(&batch[..1], at_ms(0)).unwrap();
    let rows = all_readings(&path, &ReadingQuery::default());
    assert_eq!(rows[0].channels, batch[0].message.reading.channels);
}
