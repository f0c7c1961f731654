//! The registered devices: the one place that ties a device's three names together.

mod keys;
mod names;
mod topics;

use compact_str::CompactString;
use keys::Unfit;
use names::Names;
use std::hint::black_box;
use std::sync::Arc;
use tidegate_envelope::id::{DeviceId, DeviceIndex, KeyEpoch, MessageDeviceId, ZoneId};
use tidegate_envelope::key::MacKey;
use tidegate_envelope::reading::{Channels, MAX_CHANNEL_BYTES, MAX_CHANNELS};
use tidegate_envelope::reason::Reason;

pub(crate) use keys::Keys;
pub use topics::TopicShape;

/// A part of the building.
#[derive(Debug, Clone)]
pub struct Zone {
    /// Its name in topics and events.
    pub id: ZoneId,
    /// Its name for people.
    pub name: String,
}

/// How far behind the newest sequence an unseen one may be (RFC 6479).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Window {
    /// Not at all.
    #[default]
    None,
    /// Up to 63 behind.
    SixtyFour,
}

/// How a device's messages are written and signed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Format {
    /// One JSON object with its MAC inside.
    #[default]
    JsonV1,
    /// COSE_Mac0 (RFC 9052 §6.2) with a CBOR payload.
    CoseV1 {
        /// What the floats of a message are, in their order.
        channels: Arc<[CompactString]>,
    },
    /// COSE_Mac0 with a detached payload, in an MQTT 5 user property; the payload is JSON of any
    /// older form and stays as it is.
    CoseDetached,
}

/// One device as it is registered. The registry keeps it as an [`Entry`], whose keys nobody can read.
#[derive(Debug, Clone)]
pub struct Device {
    /// The identity in its certificate.
    pub id: DeviceId,
    /// The `device_id` that its messages carry.
    pub message_id: MessageDeviceId,
    /// Its segment of the telemetry topic.
    pub topic_segment: String,
    /// Where it is.
    pub zone: ZoneId,
    /// What kind of device it is.
    pub class: String,
    /// A disabled device is known, and refused.
    pub enabled: bool,
    /// The keys it may sign with, oldest epoch first; never empty.
    pub keys: Vec<(KeyEpoch, MacKey)>,
    /// How it writes its messages. In any other format they are refused.
    pub format: Format,
    /// Refuse a sequence that starts again, even from a publisher without a boot counter.
    pub strict_sequence: bool,
    /// How far out of order messages may come.
    pub window: Window,
    /// Messages per second; also how fast its sequence may plausibly rise.
    pub quota_per_s: u32,
}

/// Why a registry is refused.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Two devices share a name, so a message could belong to either.
    #[error("{what} `{name}` belongs to two devices")]
    Duplicate {
        /// Which of the three names.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A device is in a zone that does not exist.
    #[error("device `{device}` is in zone `{zone}`, which is not defined")]
    UnknownZone {
        /// The device.
        device: DeviceId,
        /// The zone.
        zone: ZoneId,
    },
    /// A device has no key.
    #[error("device `{0}` has no key")]
    NoKey(DeviceId),
    /// Which of two keys is older could not be told.
    #[error("the key epochs of device `{0}` must rise")]
    KeyOrder(DeviceId),
    /// Not one message of the device could be read.
    #[error(
        "device `{0}` needs 1 to {MAX_CHANNELS} channels whose names differ and have at most {MAX_CHANNEL_BYTES} bytes"
    )]
    Channels(DeviceId),
    /// No topic could lead to the device.
    #[error(
        "device `{device}` has the topic segment `{segment}`; 1 to 64 characters of A-Z a-z 0-9 . _ - are allowed"
    )]
    Segment {
        /// The device.
        device: DeviceId,
        /// Its segment.
        segment: String,
    },
    /// Two zones share an id.
    #[error("zone `{0}` is defined twice")]
    DuplicateZone(ZoneId),
    /// The telemetry topic cannot be used.
    #[error(
        "`{0}` is not a telemetry topic: one whole level must be {{device}}, with another before it and one after it that is neither commands nor time, and none may hold a wildcard"
    )]
    Topic(String),
}

/// Why a registry cannot take the place of an earlier one while the program runs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "device `{device}` (number {} in the registry) was removed or moved; restart to change that, or disable it and append new ones at the end",
    .position + 1
)]
pub struct NotAContinuation {
    /// The device.
    pub device: DeviceId,
    /// Where it was, from 0.
    pub position: usize,
}

/// A registered device as the registry holds it.
///
/// All that a message needs lies in one piece, names and the key in use included, and all of it is
/// fetched at once: a random one of a million devices costs one wait for memory, and not one for
/// each name, key and flag. Hence the order, see `Entry::fetch`.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Entry {
    /// Its segment of the telemetry topic.
    pub topic_segment: CompactString,
    pub(crate) keys: Keys,
    /// How it writes its messages. In any other format they are refused.
    pub format: Format,
    /// The `device_id` that its messages carry.
    pub message_id: MessageDeviceId,
    /// Where it is.
    pub zone: ZoneId,
    /// The identity in its certificate.
    pub id: DeviceId,
    /// A disabled device is known, and refused.
    pub enabled: bool,
    /// Refuse a sequence that starts again, even from a publisher without a boot counter.
    pub strict_sequence: bool,
    /// How far out of order messages may come.
    pub window: Window,
    /// Messages per second; also how fast its sequence may plausibly rise.
    pub quota_per_s: u32,
    /// What kind of device it is.
    pub class: CompactString,
}

impl Entry {
    fn new(device: Device, zones: &[Zone]) -> Result<Self, RegistryError> {
        let id = device.id;
        if !zones.iter().any(|zone| zone.id == device.zone) {
            let zone = device.zone;
            return Err(RegistryError::UnknownZone { device: id, zone });
        }
        // A segment follows the rule of device names, so it can never widen a filter.
        if DeviceId::new(&device.topic_segment).is_err() {
            let segment = device.topic_segment;
            return Err(RegistryError::Segment { device: id, segment });
        }
        if let Format::CoseV1 { channels } = &device.format
            && !is_readable(channels)
        {
            return Err(RegistryError::Channels(id));
        }
        let keys = match Keys::new(device.keys) {
            Ok(keys) => keys,
            Err(Unfit::None) => return Err(RegistryError::NoKey(id)),
            Err(Unfit::Order) => return Err(RegistryError::KeyOrder(id)),
        };
        Ok(Self {
            topic_segment: device.topic_segment.into(),
            zone: device.zone,
            quota_per_s: device.quota_per_s,
            enabled: device.enabled,
            strict_sequence: device.strict_sequence,
            window: device.window,
            keys,
            format: device.format,
            message_id: device.message_id,
            id,
            class: device.class.into(),
        })
    }
}

impl Entry {
    /// Asks for the lines of the processor's cache that checks 3 to 8 will read, by reading something
    /// of each but the second, which holds nothing but key. Nothing waits for the answers, so they
    /// come together.
    fn fetch(&self) {
        let (segment, zone) = (self.topic_segment.len(), self.zone.as_str().len());
        black_box((segment, self.keys.newest_epoch, zone, self.enabled));
    }
}

/// Whether floats under these names make a reading.
fn is_readable(channels: &[CompactString]) -> bool {
    let values = channels.iter().map(|name| (name.clone(), 0.0));
    !channels.is_empty() && Channels::new(values.collect()).is_some()
}

/// All registered devices. Lookups take constant time and allocate nothing.
#[derive(Debug)]
pub struct Registry {
    zones: Vec<Zone>,
    devices: Vec<Entry>,
    by_id: Names,
    by_segment: Names,
    by_message_id: Names,
    topics: TopicShape,
}

impl Registry {
    /// Checks that names are unique, zones exist, topics can be built and every device has keys.
    ///
    /// # Errors
    /// The first of these that does not hold; see [`RegistryError`].
    pub fn new(zones: Vec<Zone>, devices: Vec<Device>, topics: TopicShape) -> Result<Self, RegistryError> {
        for (position, zone) in zones.iter().enumerate() {
            if zones[..position].iter().any(|other| other.id == zone.id) {
                return Err(RegistryError::DuplicateZone(zone.id.clone()));
            }
        }
        let devices: Vec<_> = devices
            .into_iter()
            .map(|device| Entry::new(device, &zones))
            .collect::<Result<_, _>>()?;
        let names = |what, name: fn(&Entry) -> &str| {
            Names::of(&devices, name).map_err(|second| RegistryError::Duplicate {
                what,
                name: name(second).to_owned(),
            })
        };
        Ok(Self {
            by_id: names("id", |device| device.id.as_str())?,
            by_segment: names("topic", |device| &device.topic_segment)?,
            by_message_id: names("message_id", |device| device.message_id.as_str())?,
            zones,
            devices,
            topics,
        })
    }

    /// Whether every device of `earlier` is still at its place here, whatever else changed about it;
    /// further devices may follow.
    ///
    /// # Errors
    /// The first device that is not. Its state belongs to its place, so another device there would
    /// be judged by it.
    pub fn continues(&self, earlier: &Self) -> Result<(), NotAContinuation> {
        let gone = earlier.devices.iter().enumerate().find(|(position, device)| {
            let here = self.devices.get(*position);
            here.is_none_or(|here| here.id != device.id)
        });
        match gone {
            None => Ok(()),
            Some((position, device)) => Err(NotAContinuation {
                device: device.id.clone(),
                position,
            }),
        }
    }

    /// The device that a telemetry topic belongs to; `topic_invalid` or `unknown_device` otherwise.
    pub fn by_topic(&self, topic: &str) -> Result<DeviceIndex, Reason> {
        let segment = self.topics.segment(topic).ok_or(Reason::TopicInvalid)?;
        let found = self.by_segment.find(segment, &self.devices);
        let index = found.ok_or(Reason::UnknownDevice)?;
        self.device(index).fetch();
        Ok(index)
    }

    /// The device that a topic for questions about the time belongs to; as [`Self::by_topic`].
    pub(crate) fn by_time_topic(&self, topic: &str) -> Result<DeviceIndex, Reason> {
        let segment = self.topics.time_segment(topic).ok_or(Reason::TopicInvalid)?;
        let found = self.by_segment.find(segment, &self.devices);
        found.ok_or(Reason::UnknownDevice)
    }

    /// The device that a telemetry topic most likely belongs to, for [`Self::fetch`].
    pub(crate) fn guess(&self, topic: &str) -> Option<DeviceIndex> {
        self.by_segment.guess(self.topics.segment(topic)?)
    }

    /// Has the processor fetch what checks 3 to 8 read of a device.
    pub(crate) fn fetch(&self, index: DeviceIndex) {
        self.device(index).fetch();
    }

    /// The device with this certificate identity.
    #[must_use]
    pub fn by_id(&self, id: &DeviceId) -> Option<DeviceIndex> {
        self.by_id.find(id.as_str(), &self.devices)
    }

    /// The device whose messages carry this id.
    #[must_use]
    pub fn by_message_id(&self, id: &MessageDeviceId) -> Option<DeviceIndex> {
        self.by_message_id.find(id.as_str(), &self.devices)
    }

    /// The device at a position that this registry gave.
    #[must_use]
    pub fn device(&self, index: DeviceIndex) -> &Entry {
        &self.devices[index.0 as usize]
    }

    /// All devices in order of their index.
    #[must_use]
    pub fn devices(&self) -> &[Entry] {
        &self.devices
    }

    /// All zones.
    #[must_use]
    pub fn zones(&self) -> &[Zone] {
        &self.zones
    }

    /// How topics are built.
    #[must_use]
    pub fn topics(&self) -> &TopicShape {
        &self.topics
    }

    /// Bytes of memory for all devices: entries, older keys and the tables of names. Names longer
    /// than 24 bytes and lists of channels come on top.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let older_keys: usize = self.devices.iter().map(|device| device.keys.bytes()).sum();
        let names = [&self.by_id, &self.by_segment, &self.by_message_id];
        size_of_val(&*self.devices) + older_keys + names.map(Names::bytes).iter().sum::<usize>()
    }
}

#[cfg(test)]
mod tests;
