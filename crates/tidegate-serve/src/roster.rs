//! Who is registered: fixed while the server runs, so it is read without a lock.

use std::collections::HashMap;
use tidegate_envelope::id::{DeviceId, MessageDeviceId, ZoneId};
use tidegate_store::event::Event;

/// A zone and its devices.
#[derive(Debug, Clone)]
pub struct ZoneOptions {
    /// Its id in the registry.
    pub id: ZoneId,
    /// Its name for people.
    pub name: String,
    /// The devices registered in it.
    pub devices: Vec<DeviceOptions>,
}

/// A device by two of its names.
#[derive(Debug, Clone)]
pub struct DeviceOptions {
    /// Its name in the registry.
    pub id: DeviceId,
    /// The `device_id` that its messages carry, and that compatible events show.
    pub message_id: MessageDeviceId,
}

/// The registered zones and devices, by position.
#[derive(Debug)]
pub(crate) struct Roster {
    pub(crate) zones: Vec<RosterZone>,
    pub(crate) devices: Vec<RosterDevice>,
    zone_by_id: HashMap<ZoneId, usize>,
    device_by_id: HashMap<DeviceId, usize>,
}

#[derive(Debug)]
pub(crate) struct RosterZone {
    pub(crate) id: ZoneId,
    pub(crate) name: String,
    pub(crate) devices: u32,
}

#[derive(Debug)]
pub(crate) struct RosterDevice {
    pub(crate) id: DeviceId,
    pub(crate) message_id: MessageDeviceId,
    pub(crate) zone: usize,
}

impl Roster {
    pub(crate) fn new(options: Vec<ZoneOptions>) -> Self {
        let mut roster = Self {
            zones: Vec::with_capacity(options.len()),
            devices: Vec::new(),
            zone_by_id: HashMap::new(),
            device_by_id: HashMap::new(),
        };
        for zone in options {
            let index = roster.zones.len();
            let devices = u32::try_from(zone.devices.len()).unwrap_or(u32::MAX);
            roster.zone_by_id.insert(zone.id.clone(), index);
            roster.zones.push(RosterZone {
                id: zone.id,
                name: zone.name,
                devices,
            });
            for device in zone.devices {
                roster
                    .device_by_id
                    .insert(device.id.clone(), roster.devices.len());
                roster.devices.push(RosterDevice {
                    id: device.id,
                    message_id: device.message_id,
                    zone: index,
                });
            }
        }
        roster
    }

    /// The registered device of an event.
    pub(crate) fn device(&self, event: &Event) -> Option<usize> {
        event
            .device
            .as_ref()
            .and_then(|id| self.device_by_id.get(id))
            .copied()
    }

    /// The registered zone of an event: its own, else its device's.
    pub(crate) fn zone(&self, event: &Event, device: Option<usize>) -> Option<usize> {
        let own = event
            .zone
            .as_ref()
            .and_then(|id| self.zone_by_id.get(id))
            .copied();
        own.or_else(|| device.map(|index| self.devices[index].zone))
    }

    pub(crate) fn device_count(&self) -> u32 {
        u32::try_from(self.devices.len()).unwrap_or(u32::MAX)
    }
}
