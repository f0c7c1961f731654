//! Who may speak and how that is checked, exchanged as one while messages come in.
//!
//! A message is verified and handed to the gate thread under one read lock. The exchange holds the
//! write lock while it sends the new registry to the gate thread, so in that channel all that was
//! verified by the old one comes before it and all that was verified by the new one after it: every
//! check of a message goes by the same registry.

use super::Pipeline;
use super::gate::Candidate;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use tidegate_envelope::id::DeviceId;
use tidegate_verify::registry::{NotAContinuation, Registry};
use tidegate_verify::verifier::Verifier;
use tokio::sync::oneshot;

/// The registry in use, with the checks that go by it.
pub(super) struct Judge {
    pub(super) registry: Arc<Registry>,
    pub(super) verifier: Verifier,
}

/// A handle to the judge in use; clones share it.
#[derive(Clone)]
pub(super) struct Bench(Arc<RwLock<Judge>>);

impl Bench {
    pub(super) fn new(registry: Arc<Registry>, verifier: Verifier) -> Self {
        Self(Arc::new(RwLock::new(Judge { registry, verifier })))
    }

    /// The judge, for one message. Not to be held while waiting for anything.
    pub(super) fn judge(&self) -> RwLockReadGuard<'_, Judge> {
        // An exchange is one assignment, so a panic cannot leave half of one behind.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a registry was not taken; the one before is still in use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdoptError {
    /// The states of devices belong to their places.
    #[error(transparent)]
    NotAContinuation(#[from] NotAContinuation),
    /// Connections, subscriptions and the page go by this.
    #[error("the {what} of device `{device}` changed; restart to change that")]
    Renamed { what: &'static str, device: DeviceId },
    /// The page goes by this.
    #[error("the zones changed; restart to change them")]
    Zones,
    /// The database did not take the new devices.
    #[error("the new devices could not be written to the database: {0}")]
    Storage(String),
    /// The program is ending.
    #[error("the program is stopping")]
    Stopping,
}

impl AdoptError {
    /// Whether the same registry may be taken later.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Storage(_))
    }
}

impl Pipeline {
    /// The registry in use.
    pub(crate) fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.bench.judge().registry)
    }

    /// Gives the registry in use at each call. Does not keep the pipeline open.
    pub(crate) fn registry_lookup(&self) -> impl Fn() -> Arc<Registry> + Send + Sync + 'static {
        let bench = self.bench.clone();
        move || Arc::clone(&bench.judge().registry)
    }

    /// Gives the topic segment of a registered device, by the registry in use at each call. Does not
    /// keep the pipeline open.
    pub(crate) fn segment_lookup(&self) -> impl Fn(&DeviceId) -> Option<String> + Send + Sync + 'static {
        let bench = self.bench.clone();
        move |id| {
            let registry = &bench.judge().registry;
            let device = registry.device(registry.by_id(id)?);
            Some(device.topic_segment.to_string())
        }
    }

    /// Goes on with a changed registry: keys, limits and formats of its devices, and further ones at
    /// its end. Only one call at a time may be under way.
    ///
    /// # Errors
    /// What keeps it from being taken; nothing has changed then.
    pub(crate) async fn adopt(&self, registry: Arc<Registry>) -> Result<(), AdoptError> {
        let earlier = self.registry();
        compare(&earlier, &registry)?;
        if registry.devices().len() > earlier.devices().len() {
            let (answer, registered) = oneshot::channel();
            let devices = registry
                .devices()
                .iter()
                .map(|device| device.id.clone())
                .collect();
            let candidate = Candidate::Register { devices, answer };
            self.gate
                .send(candidate)
                .await
                .map_err(|_| AdoptError::Stopping)?;
            registered
                .await
                .map_err(|_| AdoptError::Stopping)?
                .map_err(AdoptError::Storage)?;
        }
        // A place in the channel first: nothing may wait under the lock.
        let place = self.gate.reserve().await.map_err(|_| AdoptError::Stopping)?;
        let verifier = self.bench.judge().verifier.with_registry(Arc::clone(&registry))?;
        let mut judge = self.bench.0.write().unwrap_or_else(PoisonError::into_inner);
        place.send(Candidate::Adopt(Arc::clone(&registry)));
        let before = std::mem::replace(&mut *judge, Judge { registry, verifier });
        drop(judge);
        // Freeing a large one takes a while, and must not hold up messages.
        drop(before);
        Ok(())
    }
}

/// Whether `later` may take the place of `earlier` in a running program.
fn compare(earlier: &Registry, later: &Registry) -> Result<(), AdoptError> {
    later.continues(earlier)?;
    let zones = |registry: &Registry| -> Vec<_> {
        let zones = registry.zones().iter();
        zones.map(|zone| (zone.id.clone(), zone.name.clone())).collect()
    };
    if zones(earlier) != zones(later) {
        return Err(AdoptError::Zones);
    }
    for (before, now) in earlier.devices().iter().zip(later.devices()) {
        let renamed = |what| AdoptError::Renamed {
            what,
            device: now.id.clone(),
        };
        if before.topic_segment != now.topic_segment {
            return Err(renamed("topic"));
        }
        if before.message_id != now.message_id {
            return Err(renamed("message_id"));
        }
        if before.zone != now.zone {
            return Err(renamed("zone"));
        }
    }
    Ok(())
}
