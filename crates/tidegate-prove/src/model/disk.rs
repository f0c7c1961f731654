//! The model's disk: what is on it outlives the gateway process.

use tidegate_envelope::id::DeviceIndex;
use tidegate_envelope::key::Tag;
use tidegate_envelope::time::Timestamp;
use tidegate_verify::guard::Admission;
use tidegate_verify::log::{Loaded, ReplayLog};
use tidegate_verify::state::DeviceState;

/// Readings and replay states, written together or not at all.
#[derive(Debug, Clone, Default, Hash)]
pub(super) struct Disk {
    /// MACs of the readings, in the order of their writing.
    pub(super) readings: Vec<Tag>,
    pub(super) states: [Option<DeviceState>; 2],
    pub(super) floor: Option<Timestamp>,
    /// Whether the next commit fails.
    pub(super) full: bool,
}

/// The disk refuses a commit.
#[derive(Debug)]
pub(super) struct DiskFull;

impl std::fmt::Display for DiskFull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the disk is full")
    }
}

impl std::error::Error for DiskFull {}

impl ReplayLog for Disk {
    type Error = DiskFull;

    fn load(&mut self) -> Result<Loaded, DiskFull> {
        let states = self.states.iter().enumerate();
        let devices = states.filter_map(|(place, state)| Some((index(place), state.clone()?)));
        Ok(Loaded {
            devices: devices.collect(),
            floor: self.floor,
        })
    }

    fn commit(&mut self, batch: &[Admission], floor: Timestamp) -> Result<(), DiskFull> {
        if self.full {
            return Err(DiskFull);
        }
        for admission in batch {
            self.readings.push(admission.message.tag);
            if let (Some(device), Some(state)) = (admission.message.device, &admission.state) {
                self.states[device.0 as usize] = Some(state.clone());
            }
        }
        self.floor = Some(floor);
        Ok(())
    }
}

/// The device at `place` in the registry.
pub(super) fn index(place: usize) -> DeviceIndex {
    DeviceIndex(u32::try_from(place).expect("there are two devices"))
}
