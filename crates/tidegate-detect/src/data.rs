//! Readings to learn from: a fleet's, in their order, with what is known to be wrong in them.

use tidegate_envelope::id::DeviceId;
use tidegate_envelope::reading::Channels;
use tidegate_envelope::time::Timestamp;

/// Readings of a fleet. They should cover what is ordinary: a whole day of use at least, as night
/// and morning differ.
#[derive(Debug, Clone, Default)]
pub struct TrainingData {
    pub(crate) description: String,
    pub(crate) devices: Vec<DeviceData>,
}

/// One device's readings.
#[derive(Debug, Clone)]
pub(crate) struct DeviceData {
    pub(crate) device: DeviceId,
    pub(crate) rows: Vec<(Timestamp, Channels)>,
    pub(crate) alarms: Vec<KnownAlarm>,
}

/// A time in which a device is known not to have been ordinary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownAlarm {
    /// Its first moment.
    pub from: Timestamp,
    /// Its last moment, which belongs to it.
    pub until: Timestamp,
    /// What happened, for people.
    pub why: String,
}

impl TrainingData {
    /// No data yet; `description` goes into the model.
    #[must_use]
    pub fn new(description: &str) -> Self {
        Self {
            description: description.to_owned(),
            devices: Vec::new(),
        }
    }

    /// Adds a device's readings, oldest first. Readings of a device that is there already are
    /// appended to it.
    pub fn add(&mut self, device: DeviceId, readings: Vec<(Timestamp, Channels)>) {
        self.of(device).rows.extend(readings);
    }

    /// Says that `device` was not ordinary at a time: what training does about it is an option.
    pub fn add_alarm(&mut self, device: DeviceId, alarm: KnownAlarm) {
        self.of(device).alarms.push(alarm);
    }

    /// How many readings there are in all.
    #[must_use]
    pub fn readings(&self) -> usize {
        self.devices.iter().map(|device| device.rows.len()).sum()
    }

    /// The devices, in the order in which they were added.
    pub fn devices(&self) -> impl Iterator<Item = &DeviceId> {
        self.devices.iter().map(|data| &data.device)
    }

    fn of(&mut self, device: DeviceId) -> &mut DeviceData {
        let known = self.devices.iter().position(|known| known.device == device);
        let index = known.unwrap_or_else(|| {
            self.devices.push(DeviceData {
                device,
                rows: Vec::new(),
                alarms: Vec::new(),
            });
            self.devices.len() - 1
        });
        &mut self.devices[index]
    }
}
