//! Takes a changed `devices.toml`: keys, epochs, limits and formats of registered devices, and
//! further ones at the end of the file. Access control goes by the registry in use.

use super::complaints::{Complaints, Subject};
use super::one_line;
use super::watch::{Files, Watch};
use crate::config::Config;
use crate::devices::DevicesFile;
use crate::pipeline::{AdoptError, Pipeline};
use anyhow::Result;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use tidegate_broker::Handle;
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::reason::Reason;
use tidegate_verify::registry::Registry;
use tokio_util::sync::CancellationToken;

/// A registry that only the database kept out is tried again after so many looks.
const LOOKS_TO_RETRY: u32 = 8;

/// Who goes by the registry.
pub(crate) enum Follower {
    /// Everything: checks, access control, detection.
    Pipeline(Pipeline),
    /// A broker alone: access control.
    Broker(Segments, Handle),
}

/// Watches the registry of one running program.
pub(crate) struct RegistryReload {
    config: Config,
    follower: Follower,
    watch: Watch,
    complaints: Complaints,
}

/// What became of a changed file.
enum Tried {
    Taken,
    Refused,
    /// Refused for now.
    Passing,
}

impl RegistryReload {
    /// Watches for changes after `read`, which was taken before the file in use was read.
    pub(crate) fn new(
        config: &Config,
        follower: Follower,
        read: Files,
        complaints: Complaints,
    ) -> Result<Self> {
        Ok(Self {
            config: config.clone(),
            follower,
            watch: Watch::new(read)?,
            complaints,
        })
    }

    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        while stop.run_until_cancelled(self.watch.next()).await.is_some() {
            if let Tried::Passing = self.take().await {
                self.watch.retry_after(LOOKS_TO_RETRY);
            }
        }
    }

    /// Reads the file and takes it, or says why not; what has been said before is not said again.
    async fn take(&self) -> Tried {
        let error = match self.read_and_adopt().await {
            Ok(counts) => {
                let shown = self.config.files.registry.display();
                anstream::println!("Took the changed registry {shown}: {counts}");
                self.complaints.settle(Subject::Registry);
                return Tried::Taken;
            }
            Err(error) => error,
        };
        let passing = error.downcast_ref().is_some_and(AdoptError::is_passing);
        let detail = one_line(&format!("{error:#}"));
        self.complaints.complain(Subject::Registry, &detail);
        if passing { Tried::Passing } else { Tried::Refused }
    }

    async fn read_and_adopt(&self) -> Result<String> {
        let config = self.config.clone();
        let read = move || DevicesFile::load(&config.files.registry)?.registry(&config);
        let registry = Arc::new(tokio::task::spawn_blocking(read).await??);
        let devices = registry.devices().len();
        let known = match &self.follower {
            Follower::Pipeline(pipeline) => {
                let known = pipeline.registry().devices().len();
                pipeline.adopt(registry).await?;
                known
            }
            Follower::Broker(segments, handle) => segments.adopt(&registry, handle),
        };
        let further = devices.saturating_sub(known);
        Ok(format!("{devices} devices, {further} of them new"))
    }
}

/// The topic segments of the devices, for a broker that runs alone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Segments(Arc<RwLock<HashMap<DeviceId, String>>>);

impl Segments {
    /// Those of `registry`.
    pub(crate) fn of(registry: &Registry) -> Self {
        Self(Arc::new(RwLock::new(by_device(registry))))
    }

    /// The segment of a device by the registry in use.
    pub(crate) fn find(&self, id: &DeviceId) -> Option<String> {
        let segments = self.0.read().unwrap_or_else(PoisonError::into_inner);
        segments.get(id).cloned()
    }

    /// Goes by `registry` from now on. Devices that are no longer in it, or under another topic, are
    /// sent away: what they may do was worked out when they connected. Returns how many devices
    /// there were.
    fn adopt(&self, registry: &Registry, handle: &Handle) -> usize {
        let now = by_device(registry);
        let mut segments = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *segments, now);
        let changed: Vec<_> = before
            .iter()
            .filter(|(id, segment)| segments.get(*id) != Some(*segment))
            .map(|(id, _)| id.clone())
            .collect();
        drop(segments);
        for id in changed {
            handle.disconnect(&id, Reason::UnknownDevice);
        }
        before.len()
    }
}

fn by_device(registry: &Registry) -> HashMap<DeviceId, String> {
    let devices = registry.devices().iter();
    devices
        .map(|device| (device.id.clone(), device.topic_segment.to_string()))
        .collect()
}
