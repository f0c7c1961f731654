//! Which guards are alike, for a model checker: it need not go on twice from the same state.

use super::ReplayGuard;
use crate::state::DeviceState;
use std::hash::{Hash, Hasher};
use tidegate_envelope::id::DeviceIndex;

impl ReplayGuard {
    /// The state of one device, with everything that was admitted to it; none before its first
    /// message, and for a device that the registry does not hold.
    #[must_use]
    pub fn state(&self, device: DeviceIndex) -> Option<&DeviceState> {
        self.devices.get(device.0 as usize)?.state.as_ref()
    }
}

/// Over everything that a later decision or commit depends on.
impl Hash for ReplayGuard {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.clock.hash(hasher);
        for device in &self.devices {
            device.state.hash(hasher);
        }
        self.undo.hash(hasher);
        for admission in &self.batch {
            // What a message says follows from its MAC.
            admission.message.tag.hash(hasher);
            admission.message.received_at.hash(hasher);
            admission.state.hash(hasher);
            admission.notices.hash(hasher);
        }
    }
}
