//! Files that are not ours, not of our time, or in use.

use crate::support::{devices, open};
use rusqlite::Connection;
use std::path::Path;
use tidegate_store::error::StoreError;
use tidegate_store::maintenance::Maintenance;
use tidegate_store::reader::Reader;
use tidegate_store::writer::{Options, Store};

fn refused(path: &Path) -> StoreError {
    Store::open(path, &devices(1), &Options::default()).unwrap_err()
}

#[test]
fn newer_schema_is_refused_by_everyone_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.db");
    open(&path, 1).close().unwrap();
    Connection::open(&path)
        .unwrap()
        .pragma_update(None, "user_version", 99)
        .unwrap();
    let before = std::fs::read(&path).unwrap();
    let error = refused(&path);
    assert!(
        matches!(
            error,
            StoreError::NewerSchema {
                found: 99,
                supported: 2,
                ..
            }
        ),
        "{error}"
    );
    assert!(
        error.to_string().contains("tidegate.db has schema version 99"),
        "{error}"
    );
    assert!(matches!(
        Reader::open(&path).unwrap_err(),
        StoreError::NewerSchema { .. }
    ));
    assert!(matches!(
        Maintenance::open(&path).unwrap_err(),
        StoreError::NewerSchema { .. }
    ));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn garbage_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.db");
    let garbage = b"these are minutes of a meeting, ".repeat(300);
    std::fs::write(&path, &garbage).unwrap();
    let error = refused(&path);
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("file is not a database"), "{error}");
    assert!(matches!(
        Reader::open(&path).unwrap_err(),
        StoreError::Damaged { .. }
    ));
    assert_eq!(std::fs::read(&path).unwrap(), garbage);
}

#[test]
fn database_of_another_program_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.db");
    Connection::open(&path)
        .unwrap()
        .execute_batch("CREATE TABLE recipes (name TEXT)")
        .unwrap();
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(
        refused(&path),
        StoreError::Foreign {
            application_id: 0,
            ..
        }
    ));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn empty_file_becomes_a_database() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.db");
    std::fs::write(&path, "").unwrap();
    open(&path, 1).close().unwrap();
    Reader::open(&path).unwrap().check().unwrap();
}

#[test]
fn second_writer_is_refused_while_the_first_is_open() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.db");
    let first = open(&path, 1);
    assert!(matches!(refused(&path), StoreError::InUse { .. }));
    drop(first);
    open(&path, 1).close().unwrap();
}

#[test]
fn folder_that_is_missing_or_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("nowhere").join("tidegate.db");
    assert!(refused(&missing).to_string().contains("nowhere"));
    // Read-only for root too, which the tests may be.
    #[cfg(target_os = "linux")]
    assert!(matches!(
        refused(Path::new("/proc/tidegate.db")),
        StoreError::Io { .. }
    ));
    assert!(Reader::open(&missing).is_err());
    assert!(matches!(
        refused(folder.path()),
        StoreError::Sqlite { .. } | StoreError::Io { .. }
    ));
}
