//! The gateway's disk: what is written is safe only once it is synced, and a crash may come between.

use super::ledger::{Key, key_of};
use super::plan::Sabotage;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tidegate_envelope::id::DeviceIndex;
use tidegate_envelope::time::Timestamp;
use tidegate_verify::guard::Admission;
use tidegate_verify::log::{Loaded, ReplayLog};
use tidegate_verify::state::DeviceState;
use tidegate_verify::verifier::Message;

/// The disk of one gateway, which outlives its crashes. Clones are the same disk.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    content: Arc<Mutex<Content>>,
    sabotage: Option<Sabotage>,
}

#[derive(Debug, Default)]
struct Content {
    synced: Image,
    /// Written and not synced: a crash keeps all of it or nothing.
    unsynced: Option<(Image, Vec<Message>)>,
    full: bool,
}

/// What the database holds.
#[derive(Debug, Clone, Default)]
struct Image {
    readings: BTreeSet<Key>,
    /// As bytes, so that nothing lives on that the format does not keep.
    states: BTreeMap<u32, Vec<u8>>,
    floor: Option<Timestamp>,
}

/// The disk does not take the group.
#[derive(Debug, thiserror::Error)]
pub(super) enum DiskError {
    /// There is no room.
    #[error("no space left on the simulated disk")]
    Full,
    /// A state does not survive its bytes.
    #[error("the state of device {0} cannot be read back")]
    Unreadable(u32),
}

impl Disk {
    pub(super) fn new(sabotage: Option<Sabotage>) -> Self {
        Self {
            content: Arc::default(),
            sabotage,
        }
    }

    /// What was written last is safe now.
    pub(super) fn sync(&self) {
        let mut content = self.lock();
        if let Some((image, _)) = content.unsynced.take() {
            content.synced = image;
        }
    }

    /// The gateway is gone; what was not synced is kept or not. Says which messages were.
    pub(super) fn crash(&self, kept: bool) -> Vec<Message> {
        let mut content = self.lock();
        match content.unsynced.take().filter(|_| kept) {
            Some((image, messages)) => {
                content.synced = image;
                messages
            }
            None => Vec::new(),
        }
    }

    /// Takes nothing more, or takes it again.
    pub(super) fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// Messages that survive whatever happens.
    pub(super) fn readings(&self) -> BTreeSet<Key> {
        self.lock().synced.readings.clone()
    }

    /// The clock floor that survives.
    pub(super) fn floor(&self) -> Option<Timestamp> {
        self.lock().synced.floor
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReplayLog for Disk {
    type Error = DiskError;

    fn load(&mut self) -> Result<Loaded, DiskError> {
        let content = self.lock();
        let state = |(device, bytes): (&u32, &Vec<u8>)| {
            let state = DeviceState::from_bytes(bytes).ok_or(DiskError::Unreadable(*device))?;
            Ok((DeviceIndex(*device), state))
        };
        Ok(Loaded {
            devices: content
                .synced
                .states
                .iter()
                .map(state)
                .collect::<Result<_, _>>()?,
            floor: content.synced.floor,
        })
    }

    /// Writes without syncing: the caller waits for the disk, syncs, and answers only then.
    fn commit(&mut self, batch: &[Admission], floor: Timestamp) -> Result<(), DiskError> {
        let mut content = self.lock();
        if content.full {
            return Err(DiskError::Full);
        }
        let mut image = content.synced.clone();
        for admission in batch {
            let Some(key) = key_of(&admission.message) else {
                continue;
            };
            image.readings.insert(key);
            if let Some(state) = &admission.state
                && self.sabotage != Some(Sabotage::ForgetMarks)
            {
                image.states.insert(key.0, state.to_bytes());
            }
        }
        image.floor = Some(floor);
        let messages = batch.iter().map(|admission| admission.message.clone());
        content.unsynced = Some((image, messages.collect()));
        Ok(())
    }
}
