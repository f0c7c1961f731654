//! Bytes that are not what was written: refused, named, and never a panic.

use crate::support::{admission, all_readings, at_ms, devices, open, state};
use std::path::{Path, PathBuf};
use tidegate_store::error::StoreError;
use tidegate_store::reader::{Reader, ReadingQuery};
use tidegate_store::writer::{Options, Store};
use tidegate_verify::log::ReplayLog;

/// Opens the database and reads its states, as a gateway does at its start.
fn start(path: &Path) -> Result<usize, StoreError> {
    let mut store = Store::open(path, &devices(3), &Options::default())?;
    store.load().map(|loaded| loaded.devices.len())
}

fn closed_database(folder: &Path) -> PathBuf {
    let path = folder.join("tidegate.db");
    let mut store = open(&path, 3);
    for sequence in 1..=200 {
        store
            .commit(&[admission((sequence % 3) as u32, sequence, 0)], at_ms(0))
            .unwrap();
    }
    store.close().unwrap();
    path
}

/// Database and log as a kill leaves them after ten commits, the log last written back before them.
fn killed_database(folder: &Path) -> (PathBuf, Vec<u8>) {
    let running = tempfile::tempdir().unwrap();
    let path = running.path().join("tidegate.db");
    open(&path, 3).close().unwrap();
    let mut store = open(&path, 3);
    for sequence in 1..=10 {
        store.commit(&[admission(0, sequence, 0)], at_ms(0)).unwrap();
    }
    let copy = folder.join("tidegate.db");
    std::fs::copy(&path, &copy).unwrap();
    let log = std::fs::read(running.path().join("tidegate.db-wal")).unwrap();
    (copy, log)
}

#[test]
fn flipped_bit_in_a_replay_state_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = closed_database(folder.path());
    let mut bytes = std::fs::read(&path).unwrap();
    let newest = state(200).to_bytes();
    let place = bytes
        .windows(newest.len())
        .position(|window| window == newest)
        .unwrap();
    bytes[place + 3] ^= 0x40;
    std::fs::write(&path, &bytes).unwrap();
    let error = start(&path).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the replay state of device-003 fails its checksum"),
        "{error}"
    );
    bytes[place + 3] ^= 0x40;
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(start(&path).unwrap(), 3);
}

#[test]
fn overwritten_pages_give_an_error_or_the_right_states_and_never_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = closed_database(folder.path());
    let sound = std::fs::read(&path).unwrap();
    let mut refused = 0;
    for page in 0..sound.len() / 4096 {
        let mut bytes = sound.clone();
        bytes[page * 4096..(page + 1) * 4096].fill(0xa5);
        std::fs::write(&path, &bytes).unwrap();
        match start(&path) {
            Ok(states) => {
                assert_eq!(states, 3);
                let mut reader = Reader::open(&path).unwrap();
                let _ = reader.readings(&ReadingQuery::default(), |_| std::ops::ControlFlow::Continue(()));
                // A page may be free, and then nothing is lost with it.
                let _ = reader.check();
            }
            Err(StoreError::Damaged { .. }) => refused += 1,
            Err(other) => panic!("page {page}: {other}"),
        }
    }
    assert!(refused >= 4, "{refused}");
}

#[test]
fn whole_check_finds_a_damaged_page_of_readings() {
    let folder = tempfile::tempdir().unwrap();
    let path = closed_database(folder.path());
    Reader::open(&path).unwrap().check().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let text = b"operational";
    let place = bytes
        .windows(text.len())
        .position(|window| window == text)
        .unwrap();
    let page = place / 4096 * 4096;
    bytes[page..page + 100].fill(0xff);
    std::fs::write(&path, &bytes).unwrap();
    assert!(matches!(
        Reader::open(&path).unwrap().check().unwrap_err(),
        StoreError::Damaged { .. }
    ));
}

#[test]
fn torn_tail_of_the_log_loses_only_what_was_not_acknowledged() {
    let source = tempfile::tempdir().unwrap();
    let (database, log) = killed_database(source.path());
    let sound = std::fs::read(&database).unwrap();
    for cut in (32..=log.len()).step_by(3_001).chain([log.len()]) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tidegate.db");
        std::fs::write(&path, &sound).unwrap();
        std::fs::write(folder.path().join("tidegate.db-wal"), &log[..cut]).unwrap();
        let mut store = open(&path, 3);
        let states = store.load().unwrap().devices;
        let rows = all_readings(&path, &ReadingQuery::default());
        let mark = states.first().map_or(0, |(_, state)| state.mark().get());
        assert_eq!(rows.len() as u64, mark, "reading and state belong together");
        if cut == log.len() {
            assert_eq!(mark, 10);
        }
    }
}

#[test]
fn damage_inside_the_log_is_refused_rather_than_acknowledged_readings_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let (path, mut log) = killed_database(folder.path());
    let middle = log.len() / 2;
    log[middle] ^= 1;
    std::fs::write(folder.path().join("tidegate.db-wal"), &log).unwrap();
    let error = start(&path).unwrap_err();
    assert!(
        error.to_string().contains("-wal file breaks off at frame"),
        "{error}"
    );
    log[middle] ^= 1;
    std::fs::write(folder.path().join("tidegate.db-wal"), &log).unwrap();
    assert_eq!(start(&path).unwrap(), 1);
}
