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

/// Files of a database by their ending.
type Files = Vec<(&'static str, Option<Vec<u8>>)>;

fn files(path: &Path) -> Files {
    ["", "-wal", "-commits"]
        .into_iter()
        .map(|suffix| (suffix, std::fs::read(beside(path, suffix)).ok()))
        .collect()
}

fn put(path: &Path, files: &Files) {
    let _ = std::fs::remove_file(beside(path, "-shm"));
    for (suffix, bytes) in files {
        match bytes {
            Some(bytes) => std::fs::write(beside(path, suffix), bytes).unwrap(),
            None => drop(std::fs::remove_file(beside(path, suffix))),
        }
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn refusal(path: &Path) -> String {
    match start(path) {
        Err(error @ StoreError::Damaged { .. }) => error.to_string(),
        Err(other) => panic!("{other}"),
        Ok(states) => panic!("taken, with {states} states"),
    }
}

#[test]
fn log_that_is_missing_older_or_broken_in_its_last_transaction_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let copies = tempfile::tempdir().unwrap();
    let (path, copy) = (
        folder.path().join("tidegate.db"),
        copies.path().join("tidegate.db"),
    );
    let mut store = open(&path, 3);
    store.commit(&[admission(0, 1, 0)], at_ms(0)).unwrap();
    let older = files(&path);
    for sequence in 2..=5 {
        store.commit(&[admission(0, sequence, 0)], at_ms(0)).unwrap();
    }
    let newest = files(&path);
    drop(store);
    put(&copy, &newest);
    assert_eq!(start(&copy).unwrap(), 1);

    type Damage = fn(&mut Vec<u8>);
    let cases: [(&str, Damage); 3] = [
        ("missing", Vec::clear),
        ("cut short", |log| log.truncate(log.len() - 9_000)),
        ("broken at its end", |log| {
            let last = log.len() - 2 * 4_120 + 1_000;
            log[last] ^= 4;
        }),
    ];
    for (case, damage) in cases {
        put(&copy, &newest);
        let mut log = newest[1].1.clone().unwrap();
        damage(&mut log);
        std::fs::write(beside(&copy, "-wal"), &log).unwrap();
        let before = files(&copy);
        assert!(refusal(&copy).contains("were reported as durable"), "{case}");
        assert!(files(&copy) == before, "{case}");
    }
    put(&copy, &newest);
    std::fs::write(beside(&copy, "-wal"), older[1].1.as_ref().unwrap()).unwrap();
    assert!(refusal(&copy).contains("were reported as durable"));
}

#[test]
fn older_database_is_refused_until_its_owner_means_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = closed_database(folder.path());
    let older = files(&path);
    let mut store = open(&path, 3);
    store.commit(&[admission(0, 201, 0)], at_ms(0)).unwrap();
    store.close().unwrap();
    std::fs::write(&path, older[0].1.as_ref().unwrap()).unwrap();
    let error = refusal(&path);
    assert!(error.contains("ends at commit 200, while 201"), "{error}");
    std::fs::remove_file(beside(&path, "-commits")).unwrap();
    assert_eq!(start(&path).unwrap(), 3);
}

#[test]
fn missing_or_foreign_database_beside_a_count_of_commits_is_refused() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = closed_database(folder.path());
    let foreign = std::fs::read(closed_database(other.path())).unwrap();
    std::fs::write(&path, foreign).unwrap();
    assert!(refusal(&path).contains("tidegate.db-commits is another database's"));
    std::fs::remove_file(&path).unwrap();
    assert!(refusal(&path).contains("it is empty, while 200 commits"));
    assert!(!path.exists(), "nothing was made in its place");
    std::fs::remove_file(beside(&path, "-commits")).unwrap();
    assert_eq!(start(&path).unwrap(), 0);
}

#[test]
fn rows_that_are_missing_stale_or_belong_to_nobody_are_refused() {
    let cases = [
        (
            "DELETE FROM replay_state WHERE device = 2",
            "not those of its last commit",
        ),
        (
            "UPDATE replay_state SET state = (SELECT state FROM replay_state WHERE device = 2),
             checksum = (SELECT checksum FROM replay_state WHERE device = 2) WHERE device = 1",
            "not those of its last commit",
        ),
        (
            "PRAGMA foreign_keys = OFF; DELETE FROM devices WHERE number = 2",
            "device number 2 belongs to nobody",
        ),
        (
            "UPDATE marks SET name = 'clock_flooq' WHERE name = 'clock_floor'",
            "\"clock_flooq\" fails its checksum",
        ),
        ("DELETE FROM marks WHERE name = 'commits'", "`commits` is missing"),
        (
            "DELETE FROM readings WHERE id = 77",
            "199 readings from 1 to 200 in place of 200",
        ),
        (
            "DELETE FROM readings WHERE id = 200",
            "readings 1 to 199 in place of 1 to 200",
        ),
        (
            "DELETE FROM readings WHERE id = 1",
            "readings 2 to 200 in place of 1 to 200",
        ),
        (
            "DROP INDEX readings_by_device",
            "the definition of readings_by_device",
        ),
    ];
    for (sql, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        let path = closed_database(folder.path());
        rusqlite::Connection::open(&path)
            .unwrap()
            .execute_batch(sql)
            .unwrap();
        let error = refusal(&path);
        assert!(error.contains(expected), "{sql}: {error}");
    }
}

#[test]
fn altered_reading_is_refused_when_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = closed_database(folder.path());
    let mut bytes = std::fs::read(&path).unwrap();
    // Everywhere, as some places may be free.
    let text = b"operational";
    while let Some(place) = bytes.windows(text.len()).position(|window| window == text) {
        bytes[place] ^= 1;
    }
    std::fs::write(&path, &bytes).unwrap();
    let mut reader = Reader::open(&path).unwrap();
    let error = reader
        .readings(&ReadingQuery::default(), |_| std::ops::ControlFlow::Continue(()))
        .unwrap_err();
    assert!(error.to_string().contains("fails its checksum"), "{error}");
    assert!(matches!(reader.check(), Err(StoreError::Damaged { .. })));
}

#[test]
fn damaged_count_of_commits_does_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let path = closed_database(folder.path());
    std::fs::write(beside(&path, "-commits"), "torn").unwrap();
    assert_eq!(start(&path).unwrap(), 3);
    assert_eq!(all_readings(&path, &ReadingQuery::default()).len(), 200);
}

#[test]
fn header_of_another_format_is_named() {
    for (place, bit) in [(18, 4), (18, 0x80), (47, 8)] {
        let folder = tempfile::tempdir().unwrap();
        let path = closed_database(folder.path());
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[place] ^= bit;
        std::fs::write(&path, &bytes).unwrap();
        let error = refusal(&path);
        assert!(error.contains("its header names a format"), "{error}");
    }
}
