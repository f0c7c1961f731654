//! What was committed is there after a restart: readings, replay states, totals, event numbers.

use crate::support::{self, admission, all_events, all_readings, at_ms, device, open, state};
use rusqlite::Connection;
use tidegate_envelope::id::DeviceIndex;
use tidegate_envelope::reason::Reason;
use tidegate_store::error::StoreError;
use tidegate_store::event::{Event, Outcome};
use tidegate_store::reader::{EventQuery, Reader, ReadingQuery};
use tidegate_store::writer::{Options, Store};
use tidegate_verify::log::ReplayLog;
use tidegate_verify::verifier::Protection;

#[test]
fn reading_comes_back_as_it_was_committed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.db");
    let mut store = open(&path, 2);
    let first = admission(1, 8, 100);
    let mut unsigned = admission(0, 1, 200);
    unsigned.message.device = None;
    unsigned.message.zone = Some(tidegate_envelope::id::ZoneId::new("kitchen").unwrap());
    unsigned.message.protection = Protection::Unprotected;
    unsigned.message.reading.sequence = None;
    unsigned.message.reading.timestamp = None;
    unsigned.message.reading.channels = support::channels(&[("temperature_f", 0.1 + 0.2)]);
    unsigned.state = None;
    store
        .commit(&[first.clone(), unsigned.clone()], at_ms(200))
        .unwrap();
    store.close().unwrap();

    let rows = all_readings(&path, &ReadingQuery::default());
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].device, Some(device(2)));
    assert_eq!(rows[0].sequence, Some(8));
    assert_eq!(rows[0].timestamp, first.message.reading.timestamp);
    assert_eq!(rows[0].received, at_ms(100));
    assert_eq!(rows[0].boot, first.message.reading.boot);
    assert_eq!(rows[0].status, "operational");
    assert_eq!(rows[0].channels, first.message.reading.channels);
    assert!(rows[0].protected);
    assert_eq!(rows[1].device, None);
    assert_eq!(rows[1].zone, unsigned.message.zone);
    assert_eq!((rows[1].sequence, rows[1].timestamp), (None, None));
    assert_eq!(rows[1].channels, unsigned.message.reading.channels);
    assert!(!rows[1].protected);
}

#[test]
fn newest_state_of_each_device_floor_and_totals_survive() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.db");
    let mut store = open(&path, 3);
    assert!(store.load().unwrap().devices.is_empty());
    assert_eq!(store.load().unwrap().floor, None);
    let batch = [admission(0, 1, 0), admission(2, 5, 1), admission(0, 2, 2)];
    store.commit(&batch, at_ms(2)).unwrap();
    store.commit(&[admission(2, 6, 3)], at_ms(1)).unwrap();
    store.close().unwrap();

    let mut store = open(&path, 3);
    let mut loaded = store.load().unwrap();
    loaded.devices.sort_by_key(|entry| entry.0);
    assert_eq!(
        loaded.devices,
        [(DeviceIndex(0), state(2)), (DeviceIndex(2), state(6))]
    );
    assert_eq!(loaded.floor, Some(at_ms(2)), "the floor never falls");
    assert_eq!(store.totals().of(Outcome::Accepted), 4);
}

#[test]
fn states_follow_the_device_when_the_registry_is_reordered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.db");
    let mut store = open(&path, 2);
    store
        .commit(&[admission(0, 10, 0), admission(1, 20, 0)], at_ms(0))
        .unwrap();
    store.close().unwrap();

    let reordered = [device(3), device(2)];
    let mut store = Store::open(&path, &reordered, &Options::default()).unwrap();
    assert_eq!(store.load().unwrap().devices, [(DeviceIndex(1), state(20))]);
    store.close().unwrap();
    let mut store = open(&path, 1);
    assert_eq!(store.load().unwrap().devices, [(DeviceIndex(0), state(10))]);
}

#[test]
fn reading_of_a_device_that_was_not_announced_is_refused_and_the_rest_of_the_batch_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.db");
    let mut store = open(&path, 1);
    let error = store
        .commit(&[admission(0, 1, 0), admission(1, 1, 0)], at_ms(0))
        .unwrap_err();
    assert!(error.to_string().contains("device number 1"), "{error}");
    store.commit(&[admission(0, 1, 0)], at_ms(0)).unwrap();
    store.close().unwrap();
    assert_eq!(all_readings(&path, &ReadingQuery::default()).len(), 1);
}

#[test]
fn clean_close_leaves_database_and_count_of_commits_both_private() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.db");
    let mut store = open(&path, 1);
    store.commit(&[admission(0, 1, 0)], at_ms(0)).unwrap();
    #[cfg(unix)]
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        use std::os::unix::fs::PermissionsExt;
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", entry.path().display());
    }
    store.close().unwrap();
    let mut names: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["tidegate.db", "tidegate.db-commits"]);
}

#[test]
fn event_numbers_go_on_after_a_clean_close_and_are_never_used_twice_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.db");
    let mut store = open(&path, 1);
    let ids = store.event_ids();
    assert_eq!(ids.next(), 1);
    store.record(Event::new(at_ms(0), Outcome::Blocked, Some(Reason::BadMac)));
    store.flush().unwrap();
    assert_eq!(all_events(&path, &EventQuery::default())[0].id, 2);
    let shown_last = (0..1_000).fold(0, |_, _| ids.next());

    // The files as a crash would leave them: event 1002 was shown, and never written.
    let crashed = tempfile::tempdir().unwrap();
    for suffix in ["", "-wal"] {
        let name = format!("tidegate.db{suffix}");
        std::fs::copy(folder.path().join(&name), crashed.path().join(&name)).unwrap();
    }
    let after_crash = open(&crashed.path().join("tidegate.db"), 1);
    assert!(after_crash.event_ids().next() > shown_last);

    store.close().unwrap();
    assert_eq!(open(&path, 1).event_ids().next(), shown_last + 1);
}

#[test]
fn database_of_schema_version_1_is_taken_over_with_its_readings_and_states() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.db");
    let mut store = open(&path, 2);
    store
        .commit(&[admission(0, 1, 0), admission(1, 1, 1)], at_ms(1))
        .unwrap();
    store.close().unwrap();
    std::fs::remove_file(folder.path().join("tidegate.db-commits")).unwrap();
    Connection::open(&path)
        .unwrap()
        .execute_batch(
            "ALTER TABLE readings DROP COLUMN checksum; PRAGMA user_version = 1;
             DELETE FROM marks WHERE name NOT IN ('clock_floor', 'event_ids')",
        )
        .unwrap();

    let mut store = open(&path, 2);
    assert_eq!(store.load().unwrap().devices.len(), 2);
    store.commit(&[admission(0, 2, 2)], at_ms(2)).unwrap();
    store.close().unwrap();
    let rows = all_readings(&path, &ReadingQuery::default());
    assert_eq!(support::sequences(&rows), [1, 1, 2]);
    Reader::open(&path).unwrap().check().unwrap();
    // Only the new one has a checksum that could fail.
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch("UPDATE readings SET status = 'a' WHERE id = 1")
        .unwrap();
    Reader::open(&path).unwrap().check().unwrap();
    connection
        .execute_batch("UPDATE readings SET status = 'a' WHERE id = 3")
        .unwrap();
    let error = Reader::open(&path).unwrap().check().unwrap_err();
    assert!(
        error.to_string().contains("reading 3 fails its checksum"),
        "{error}"
    );
}

#[test]
fn further_devices_are_taken_while_open_and_a_changed_order_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.db");
    let mut store = open(&path, 3);
    store.commit(&[admission(2, 7, 0)], at_ms(0)).unwrap();
    store.close().unwrap();

    let mut store = open(&path, 1);
    store.commit(&[admission(0, 1, 0)], at_ms(0)).unwrap();
    for (list, position) in [(vec![device(2), device(1)], 0), (vec![], 0)] {
        let error = store.register(&list).unwrap_err();
        assert!(
            matches!(error, StoreError::DevicesChanged { position: at } if at == position),
            "{error}"
        );
    }
    store.register(&support::devices(3)).unwrap();
    let mut loaded = store.load().unwrap().devices;
    loaded.sort_by_key(|entry| entry.0);
    assert_eq!(
        loaded,
        [(DeviceIndex(0), state(1)), (DeviceIndex(2), state(7))],
        "a device that comes back has its state"
    );
    store
        .commit(&[admission(1, 1, 1), admission(2, 8, 1)], at_ms(1))
        .unwrap();
    store.close().unwrap();
    // The sum of the states has followed.
    assert_eq!(open(&path, 3).load().unwrap().devices.len(), 3);
}
