//! Replay states and marks on disk, each row with a checksum of its own.
//!
//! SQLite's pages carry none. A state whose bits have flipped would accept old messages or refuse
//! all new ones, so the database is refused instead.

use crate::error::StoreError;
use rusqlite::{Connection, Transaction, params};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::Path;
use tidegate_envelope::id::{DeviceId, DeviceIndex};
use tidegate_envelope::time::Timestamp;
use tidegate_verify::log::Loaded;
use tidegate_verify::state::DeviceState;

/// Bytes kept of a checksum: enough against faults of the hardware. Whoever can write the file
/// can compute it too.
const CHECKSUM_BYTES: usize = 8;

/// The name of the latest time that was ever seen, microseconds since 1970.
pub(crate) const CLOCK_FLOOR: &str = "clock_floor";
/// The name of the first event number that is surely unused.
pub(crate) const EVENT_IDS: &str = "event_ids";

/// The states of the devices in `devices`, and the clock floor. States of devices that are no
/// longer registered stay where they are, in case the device comes back.
pub(crate) fn load(connection: &Connection, path: &Path, devices: &[DeviceId]) -> Result<Loaded, StoreError> {
    let failed = |source| StoreError::sqlite(path, "read the replay states", source);
    let indexes: HashMap<&str, u32> = devices.iter().map(DeviceId::as_str).zip(0..).collect();
    let mut statement = connection
        .prepare("SELECT id, state, checksum, device FROM replay_state LEFT JOIN devices ON number = device")
        .map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let mut loaded = Loaded {
        devices: Vec::new(),
        floor: mark(connection, path, CLOCK_FLOOR)?.map(Timestamp::from_micros),
    };
    while let Some(row) = rows.next().map_err(failed)? {
        // A state whose device has lost its name would otherwise be passed over in silence.
        let Some(id) = row.get::<_, Option<String>>(0).map_err(failed)? else {
            let number: i64 = row.get(3).map_err(failed)?;
            return Err(StoreError::damaged(
                path,
                format!("the replay state of device number {number} belongs to nobody"),
            ));
        };
        let bytes: Vec<u8> = row.get(1).map_err(failed)?;
        let stored: Vec<u8> = row.get(2).map_err(failed)?;
        if stored != checksum(&id, &bytes) {
            return Err(StoreError::damaged(
                path,
                format!("the replay state of {id} fails its checksum"),
            ));
        }
        let Some(index) = indexes.get(id.as_str()) else {
            continue;
        };
        let state = DeviceState::from_bytes(&bytes).ok_or_else(|| {
            StoreError::damaged(
                path,
                format!("the replay state of {id} is not one that this version reads"),
            )
        })?;
        loaded.devices.push((DeviceIndex(*index), state));
    }
    Ok(loaded)
}

/// Writes the state of a device over its former one; gives its summand in the ledger.
pub(crate) fn write_state(
    transaction: &Transaction<'_>,
    number: i64,
    id: &DeviceId,
    state: &DeviceState,
) -> rusqlite::Result<i64> {
    let bytes = state.to_bytes();
    let checksum = checksum(id.as_str(), &bytes);
    transaction
        .prepare_cached(
            "INSERT INTO replay_state (device, state, checksum) VALUES (?1, ?2, ?3)
             ON CONFLICT (device) DO UPDATE SET state = excluded.state, checksum = excluded.checksum",
        )?
        .execute(params![number, bytes, checksum])?;
    Ok(summand(&checksum))
}

/// A state's checksum as a number.
pub(crate) fn summand(checksum: &[u8]) -> i64 {
    let mut bytes = [0; CHECKSUM_BYTES];
    let length = checksum.len().min(CHECKSUM_BYTES);
    bytes[..length].copy_from_slice(&checksum[..length]);
    i64::from_le_bytes(bytes)
}

/// A number about the whole database; `None` before it was ever written.
pub(crate) fn mark(connection: &Connection, path: &Path, name: &str) -> Result<Option<i64>, StoreError> {
    let failed = |source| StoreError::sqlite(path, "read the marks", source);
    let mut statement = connection
        .prepare("SELECT value, checksum FROM marks WHERE name = ?1")
        .map_err(failed)?;
    let mut rows = statement.query([name]).map_err(failed)?;
    let Some(row) = rows.next().map_err(failed)? else {
        return Ok(None);
    };
    let value: i64 = row.get(0).map_err(failed)?;
    let stored: Vec<u8> = row.get(1).map_err(failed)?;
    if stored != checksum(name, &value.to_le_bytes()) {
        return Err(StoreError::damaged(path, format!("{name} fails its checksum")));
    }
    Ok(Some(value))
}

/// Checks every mark, whatever its name: one whose name was altered would pass for one that was
/// never written.
pub(crate) fn check_marks(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::sqlite(path, "read the marks", source);
    let mut statement = connection
        .prepare("SELECT name, value, checksum FROM marks")
        .map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        // A name that is no text any more is no name.
        let name = String::from_utf8_lossy(row.get_ref(0).map_err(failed)?.as_bytes().unwrap_or_default())
            .into_owned();
        let value: i64 = row.get(1).map_err(failed)?;
        let stored: Vec<u8> = row.get(2).map_err(failed)?;
        if stored != checksum(&name, &value.to_le_bytes()) {
            return Err(StoreError::damaged(path, format!("{name:?} fails its checksum")));
        }
    }
    Ok(())
}

/// Writes a mark over its former value.
pub(crate) fn write_mark(transaction: &Transaction<'_>, name: &str, value: i64) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO marks (name, value, checksum) VALUES (?1, ?2, ?3)
             ON CONFLICT (name) DO UPDATE SET value = excluded.value, checksum = excluded.checksum",
        )?
        .execute(params![name, value, checksum(name, &value.to_le_bytes())])?;
    Ok(())
}

/// Over name and bytes, so that a state under another device's name is found out too.
fn checksum(name: &str, bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest = Sha256::new()
        .chain_update(name)
        .chain_update([0])
        .chain_update(bytes)
        .finalize();
    *digest.first_chunk().expect("a SHA-256 digest has 32 bytes")
}
