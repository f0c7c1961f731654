//! Opening the database: what is created, what is checked, what is set.

use crate::error::StoreError;
use crate::replay::{self, EVENT_IDS};
use crate::writer::{Options, QUICK_CHECK_BYTES};
use crate::{beside, schema, wal};
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use std::collections::HashMap;
use std::fs::OpenOptions;
use std::path::Path;
use std::time::Duration;
use tidegate_envelope::id::DeviceId;

/// Longest wait for another process that writes, such as one that prunes.
const BUSY: Duration = Duration::from_secs(10);
/// The log file shrinks back to this size when it starts over.
const LOG_BYTES_KEPT: u64 = 4 << 20;

/// A registered device and its number in the database.
#[derive(Debug)]
pub(crate) struct Registered {
    pub(crate) id: DeviceId,
    pub(crate) number: i64,
}

/// Creates or opens the file and refuses what cannot be trusted. The writer's lock must be held.
pub(crate) fn connection(path: &Path, options: &Options) -> Result<Connection, StoreError> {
    create_private(path)?;
    let log_path = beside(path, "-wal");
    let log = wal::inspect(&log_path).map_err(|source| StoreError::io(&log_path, "read", source))?;
    if let wal::Log::Damaged { frame } = log {
        return Err(StoreError::damaged(
            path,
            format!("its -wal file breaks off at frame {frame}, and whole transactions follow"),
        ));
    }
    let mut connection = connect(path)?;
    schema::migrate(&mut connection, path)?;
    configure(&connection, path, options)?;
    check(&connection, path, log != wal::Log::Absent)?;
    Ok(connection)
}

/// Creates the file for its owner alone, or takes an existing one away from everybody else: it
/// holds everything the sensors said. SQLite gives its other files the same mode.
fn create_private(path: &Path) -> Result<(), StoreError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(StoreError::io(path, "create", source)),
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let metadata = std::fs::metadata(path).map_err(|source| StoreError::io(path, "read", source))?;
        if metadata.is_file() && metadata.permissions().mode() & 0o077 != 0 {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
                .map_err(|source| StoreError::io(path, "restrict the permissions of", source))?;
        }
    }
    Ok(())
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let failed = |source| StoreError::sqlite(path, "open a connection", source);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    Ok(connection)
}

fn configure(connection: &Connection, path: &Path, options: &Options) -> Result<(), StoreError> {
    let failed = |source| StoreError::sqlite(path, "configure the connection", source);
    let mode: String = connection
        .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
        .map_err(failed)?;
    if mode != "wal" {
        return Err(StoreError::ReadOnly {
            path: path.to_owned(),
        });
    }
    // Checkpoints are the maintenance thread's: here they would make some commits wait for all
    // that came before them.
    connection
        .execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF")
        .map_err(failed)?;
    for (pragma, value) in [("wal_autocheckpoint", 0), ("journal_size_limit", LOG_BYTES_KEPT)] {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        connection
            .pragma_update_and_check(None, pragma, value, |_| Ok(()))
            .map_err(failed)?;
    }
    if let Some(bytes) = options.ceiling_bytes {
        let page_bytes: u32 = connection
            .pragma_query_value(None, "page_size", |row| row.get(0))
            .map_err(failed)?;
        let pages = i64::from(
            u32::try_from(bytes / u64::from(page_bytes))
                .unwrap_or(u32::MAX)
                .max(1),
        );
        connection
            .pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
            .map_err(failed)?;
    }
    // A log that starts over has new salts. Frames of a torn transaction that would otherwise stay
    // behind new ones could later pass for damage.
    connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .map_err(failed)
}

fn check(connection: &Connection, path: &Path, unclean: bool) -> Result<(), StoreError> {
    for table in schema::SAFETY_TABLES {
        schema::quick_check(connection, path, Some(table))?;
    }
    let bytes = std::fs::metadata(path).map_or(u64::MAX, |metadata| metadata.len());
    if unclean && bytes <= QUICK_CHECK_BYTES {
        schema::quick_check(connection, path, None)?;
    }
    Ok(())
}

/// Gives every device its number, and reserves the first event numbers.
pub(crate) fn register(
    connection: &mut Connection,
    path: &Path,
    devices: &[DeviceId],
    event_ids_reserved: i64,
) -> Result<Vec<Registered>, StoreError> {
    let failed = |source| StoreError::sqlite(path, "register the devices", source);
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(failed)?;
    let mut registered = Vec::with_capacity(devices.len());
    for id in devices {
        transaction
            .prepare_cached("INSERT OR IGNORE INTO devices (id) VALUES (?1)")
            .and_then(|mut statement| statement.execute([id.as_str()]))
            .map_err(failed)?;
        let number = transaction
            .prepare_cached("SELECT number FROM devices WHERE id = ?1")
            .and_then(|mut statement| statement.query_row([id.as_str()], |row| row.get(0)))
            .map_err(failed)?;
        registered.push(Registered {
            id: id.clone(),
            number,
        });
    }
    replay::write_mark(&transaction, EVENT_IDS, event_ids_reserved).map_err(failed)?;
    transaction.commit().map_err(failed)?;
    Ok(registered)
}

/// The layouts' names, as JSON arrays, and their numbers.
pub(crate) fn layouts(connection: &Connection) -> rusqlite::Result<HashMap<String, i64>> {
    connection
        .prepare("SELECT names, number FROM layouts")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}
