//! Opens a database as the gateway does, and compares it with what is known.

use super::devices::{Devices, START, bytes_hash, row_hash};
use super::disk::Image;
use super::known::{Extent, Found, Known};
use super::worker::DATABASE;
use anyhow::{Context, Result};
use rand::RngExt;
use rand::rngs::StdRng;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;
use tidegate_envelope::time::Timestamp;
use tidegate_store::error::StoreError;
use tidegate_store::event::Outcome as EventOutcome;
use tidegate_store::reader::{EventQuery, Reader, ReadingQuery};
use tidegate_store::writer::{Options, Store};
use tidegate_verify::guard::{GuardPolicy, Outcome, ReplayGuard};
use tidegate_verify::log::{Loaded, ReplayLog};

/// Messages that are offered again after each recovery.
const REPLAYED: usize = 24;
/// How long after the newest message the gateway is back.
const AWAY: Duration = Duration::from_millis(1);

/// How a database came through.
pub(super) enum Verdict {
    /// It holds what it should.
    Holds(Held),
    /// It was refused, at opening or when it was read.
    Refused { error: StoreError, at_opening: bool },
    /// It was taken, and is wrong.
    Wrong(String),
}

/// A database that holds what it should.
pub(super) struct Held {
    pub(super) known: Known,
    pub(super) replays_refused: u64,
}

/// Makes `folder` anew with the files of `image`.
pub(super) fn write(folder: &Path, image: &Image) -> Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    std::fs::create_dir(folder)?;
    for (name, bytes) in image {
        std::fs::write(folder.join(name), bytes)?;
    }
    Ok(())
}

/// Leaves a file of shared memory as a crash might; SQLite must not believe it.
pub(super) fn leave_shared_memory(folder: &Path, random: &mut StdRng) -> Result<()> {
    let mut bytes = vec![0; 32_768];
    if random.random_range(0..2) == 0 {
        random.fill(&mut bytes[..]);
    }
    std::fs::write(folder.join(format!("{DATABASE}-shm")), bytes).context("cannot write")
}

/// Opens the database in `folder` and compares it. With `goes_on` it also takes a new message,
/// closes, opens and compares again.
pub(super) fn check(
    folder: &Path,
    devices: &Devices,
    known: &Known,
    extent: Extent,
    goes_on: Option<u32>,
) -> Verdict {
    let path = folder.join(DATABASE);
    let mut store = match Store::open(&path, &devices.ids, &Options::default()) {
        Ok(store) => store,
        Err(error) => {
            return Verdict::Refused {
                error,
                at_opening: true,
            };
        }
    };
    let (found, loaded) = match read(&path, &mut store) {
        Ok(read) => read,
        Err(error) => {
            return Verdict::Refused {
                error,
                at_opening: false,
            };
        }
    };
    let mut held = match known.compare(&found, extent) {
        Ok(known) => Held {
            known,
            replays_refused: 0,
        },
        Err(difference) => return Verdict::Wrong(difference),
    };
    let newest = loaded.floor.unwrap_or(START).max(START);
    let now = newest.plus(AWAY);
    let mut guard = ReplayGuard::new(&devices.registry, GuardPolicy::default(), loaded, START);
    for said in held.known.newest(REPLAYED) {
        if guard.admit(devices.verified(said, now), now) == Outcome::Admitted {
            return Verdict::Wrong(format!(
                "sequence {} of device {} would be accepted again",
                said.sequence, said.device.0
            ));
        }
        held.replays_refused += 1;
    }
    if let Some(device) = goes_on {
        let said = held.known.next_of(devices, device, now);
        if let Err(wrong) = go_on(store, &path, devices, &mut guard, said, now, &found) {
            return Verdict::Wrong(wrong);
        }
    }
    Verdict::Holds(held)
}

/// Takes a new message, closes, opens again, and finds it.
fn go_on(
    mut store: Store,
    path: &Path,
    devices: &Devices,
    guard: &mut ReplayGuard,
    said: super::devices::Said,
    now: Timestamp,
    before: &Found,
) -> Result<(), String> {
    let failed = |error: StoreError| format!("after recovery: {error}");
    if guard.admit(devices.verified(said, now), now) != Outcome::Admitted {
        return Err("a new message is refused after recovery".into());
    }
    guard
        .commit(&mut store)
        .map_err(|error| format!("a new message is not committed after recovery: {error}"))?;
    store.close().map_err(failed)?;
    let mut store = Store::open(path, &devices.ids, &Options::default()).map_err(failed)?;
    let (after, _) = read(path, &mut store).map_err(failed)?;
    let same = |(one, other): (_, _)| row_hash(one) == row_hash(other);
    if after.rows.len() != before.rows.len() + 1 || !before.rows.iter().zip(&after.rows).all(same) {
        return Err("a reading was lost after recovery".into());
    }
    store.close().map_err(failed)
}

fn read(path: &Path, store: &mut Store) -> Result<(Found, Loaded), StoreError> {
    let loaded = store.load()?;
    let mut found = Found {
        floor: loaded.floor.map(Timestamp::as_micros),
        accepted: store.totals().of(EventOutcome::Accepted),
        blocked: store.totals().of(EventOutcome::Blocked),
        next_event: store.event_ids().peek(),
        ..Found::default()
    };
    for (device, state) in &loaded.devices {
        found.states.insert(device.0, bytes_hash(&state.to_bytes()));
    }
    let mut reader = Reader::open(path)?;
    reader.readings(&ReadingQuery::default(), |row| {
        found.rows.push(row);
        ControlFlow::Continue(())
    })?;
    // Events are no part of the promise, so that damage of theirs is not looked for.
    let _ = reader.events(&EventQuery::default(), |event| {
        found.events.insert(event.id);
        ControlFlow::Continue(())
    });
    Ok((found, loaded))
}
