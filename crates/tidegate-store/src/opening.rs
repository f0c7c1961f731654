//! Opening the database: what is created, what is checked, what is set.

use crate::anchor::{self, Anchor};
use crate::error::StoreError;
use crate::ledger::{self, Ledger};
use crate::replay::{self, EVENT_IDS};
use crate::writer::{Options, QUICK_CHECK_BYTES};
use crate::{beside, schema, wal};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Read;
use std::path::Path;
use std::time::Duration;
use tidegate_envelope::id::DeviceId;

/// Longest wait for another process that writes, such as one that prunes.
pub(crate) const BUSY: Duration = Duration::from_secs(10);
/// The log file shrinks back to this size when it starts over.
const LOG_BYTES_KEPT: u64 = 4 << 20;

/// A registered device and its number in the database.
#[derive(Debug, Clone)]
pub(crate) struct Registered {
    pub(crate) id: DeviceId,
    pub(crate) number: i64,
    /// What its stored state adds to the ledger's sum.
    pub(crate) summand: i64,
}

/// An opened database, checked as far as the crate's text says.
pub(crate) struct Opened {
    pub(crate) connection: Connection,
    pub(crate) ledger: Ledger,
    pub(crate) anchor: Anchor,
}

/// Creates or opens the file and refuses what cannot be trusted, before anything is written to it.
/// The writer's lock must be held.
pub(crate) fn open(path: &Path, options: &Options) -> Result<Opened, StoreError> {
    let promises = anchor::read(path)?;
    let log_path = beside(path, "-wal");
    // SQLite would delete the log of an empty file.
    if std::fs::metadata(path).map_or(0, |metadata| metadata.len()) == 0 {
        anchor::expect_nothing(path, &promises)?;
        if std::fs::metadata(&log_path).is_ok_and(|metadata| metadata.len() > wal::HEADER_BYTES as u64) {
            return Err(StoreError::damaged(
                path,
                "it is empty, while its -wal file holds transactions",
            ));
        }
    }
    create_private(path)?;
    read_from_disk(&log_path)?;
    let log = wal::inspect(&log_path, path).map_err(|source| StoreError::io(&log_path, "read", source))?;
    if let wal::Log::Damaged { frame } = log {
        return Err(StoreError::damaged(
            path,
            format!("its -wal file breaks off at frame {frame}, and whole transactions follow"),
        ));
    }
    let mut connection = writable(path)?;
    // What is refused stays as it was: closing must not write the log back.
    keep_log(&connection, path, true)?;
    schema::migrate(&mut connection, path)?;
    use_log(&connection, path)?;
    let ledger = check(&mut connection, path)?;
    anchor::expect_all(path, &promises, &ledger)?;
    keep_log(&connection, path, false)?;
    configure(&connection, path, options)?;
    // Files that were just made have their names on disk before anything depends on them: SQLite
    // sees to it only for a log that this very connection has made.
    sync_folder(path)?;
    let anchor = Anchor::create(path, &ledger)?;
    sync_folder(path)?;
    Ok(Opened {
        connection,
        ledger,
        anchor,
    })
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

/// A header that asks for another SQLite makes this one speak of permissions, or of nothing. It is
/// no reason by itself: a log may hold the page that it stands in.
pub(crate) fn explain(path: &Path, error: StoreError) -> StoreError {
    let mut header = [0; 100];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut header));
    let number = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let version = |at: usize| matches!(header[at], 1 | 2);
    let known = version(18) && version(19) && number(44) <= 4 && number(56) <= 3;
    let vague = matches!(error, StoreError::ReadOnly { .. } | StoreError::Sqlite { .. });
    if vague && read.is_ok() && !known {
        return StoreError::damaged(path, "its header names a format that SQLite does not write");
    }
    error
}

/// A connection that may write.
///
/// `psow=0` takes back SQLite's assumption that a power cut leaves alone what was on the disk
/// beside the bytes being written ("powersafe overwrite"). Commits then end at a sector's edge, so
/// that the next one, when it is torn, takes no committed one with it: one frame more per commit.
/// <https://www.sqlite.org/psow.html>
pub(crate) fn writable(path: &Path) -> Result<Connection, StoreError> {
    let failed = |source| StoreError::sqlite(path, "open a connection", source);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    #[cfg(unix)]
    let connection = Connection::open_with_flags(uri(path), flags | OpenFlags::SQLITE_OPEN_URI);
    #[cfg(not(unix))]
    let connection = Connection::open_with_flags(path, flags);
    let connection = connection.map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    Ok(connection)
}

#[cfg(unix)]
fn uri(path: &Path) -> String {
    use std::fmt::Write as _;
    use std::os::unix::ffi::OsStrExt;
    let bytes = path.as_os_str().as_bytes();
    // An absolute path needs the empty authority, since two slashes would begin one.
    let mut uri = String::from(if bytes.starts_with(b"/") {
        "file://"
    } else {
        "file:"
    });
    for byte in bytes {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {
                uri.push(char::from(*byte));
            }
            other => write!(uri, "%{other:02x}").expect("writing to a string cannot fail"),
        }
    }
    uri + "?psow=0"
}

/// Lets the kernel forget its copy of the log, so that what is read is what the disk holds.
///
/// After a failed sync it takes the pages for clean and keeps showing them. A process that was
/// started after such a failure would find a whole transaction, and commit behind it; after a power
/// cut that one is gone, and with it all that followed.
fn read_from_disk(log_path: &Path) -> Result<(), StoreError> {
    let file = match std::fs::File::open(log_path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(StoreError::io(log_path, "read", source)),
    };
    // What a killed process has written is only waiting to be.
    file.sync_data()
        .map_err(|source| StoreError::io(log_path, "sync", source))?;
    // Advice: a file system that has no use for it may decline.
    #[cfg(target_os = "linux")]
    let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
    Ok(())
}

fn keep_log(connection: &Connection, path: &Path, keep: bool) -> Result<(), StoreError> {
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep)
        .map(|_| ())
        .map_err(|source| StoreError::sqlite(path, "configure the connection", source))
}

/// Makes the names in the database's folder durable.
fn sync_folder(path: &Path) -> Result<(), StoreError> {
    #[cfg(unix)]
    {
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        std::fs::File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|source| StoreError::io(folder, "sync", source))?;
    }
    Ok(())
}

/// Does nothing where the log is in use already. Comes before the first read transaction: after
/// one, SQLite keeps a lock on a database that it has just converted.
fn use_log(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::sqlite(path, "configure the connection", source);
    // The first answer says what was wanted, and an error comes only after it; without the log, a
    // commit could be rolled back by a power cut after it had returned. So the second one counts.
    last_answer(connection, "PRAGMA journal_mode = WAL").map_err(failed)?;
    match last_answer(connection, "PRAGMA journal_mode")
        .map_err(failed)?
        .as_deref()
    {
        Some("wal") => Ok(()),
        _ => Err(StoreError::ReadOnly {
            path: path.to_owned(),
        }),
    }
}

/// Runs a pragma to its end.
fn last_answer(connection: &Connection, pragma: &str) -> rusqlite::Result<Option<String>> {
    let mut statement = connection.prepare(pragma)?;
    let mut rows = statement.query([])?;
    let mut answer = None;
    while let Some(row) = rows.next()? {
        answer = Some(row.get(0)?);
    }
    Ok(answer)
}

fn configure(connection: &Connection, path: &Path, options: &Options) -> Result<(), StoreError> {
    let failed = |source| StoreError::sqlite(path, "configure the connection", source);
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

fn check(connection: &mut Connection, path: &Path) -> Result<Ledger, StoreError> {
    let failed = |source| StoreError::sqlite(path, "check the tables", source);
    // One transaction, since somebody may prune meanwhile.
    let transaction = connection.transaction().map_err(failed)?;
    schema::verify(&transaction, path)?;
    let bytes = std::fs::metadata(path).map_or(u64::MAX, |metadata| metadata.len());
    let whole = bytes <= QUICK_CHECK_BYTES;
    if whole {
        schema::quick_check(&transaction, path, None)?;
    } else {
        for table in schema::SAFETY_TABLES {
            schema::quick_check(&transaction, path, Some(table))?;
        }
    }
    ledger::verify(&transaction, path, whole)
}

/// Gives every device its number, and reserves event numbers up to the given one.
pub(crate) fn register(
    connection: &mut Connection,
    path: &Path,
    devices: &[DeviceId],
    event_ids_reserved: Option<i64>,
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
        let (number, checksum) = transaction
            .prepare_cached(
                "SELECT number, checksum FROM devices LEFT JOIN replay_state ON device = number WHERE id = ?1",
            )
            .and_then(|mut statement| {
                statement.query_row([id.as_str()], |row| {
                    Ok((row.get(0)?, row.get::<_, Option<Vec<u8>>>(1)?))
                })
            })
            .map_err(failed)?;
        registered.push(Registered {
            id: id.clone(),
            number,
            summand: checksum.map_or(0, |checksum| replay::summand(&checksum)),
        });
    }
    if let Some(reserved) = event_ids_reserved {
        replay::write_mark(&transaction, EVENT_IDS, reserved).map_err(failed)?;
    }
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
