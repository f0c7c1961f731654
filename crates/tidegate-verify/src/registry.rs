//! The registered devices: the one place that ties a device's three names together.

use std::collections::HashMap;
use tidegate_envelope::id::{DeviceId, DeviceIndex, KeyEpoch, MessageDeviceId, ZoneId};
use tidegate_envelope::key::MacKey;
use tidegate_envelope::reason::Reason;

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

/// One registered device.
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
        "`{0}` is not a telemetry topic: one whole level must be {{device}}, others may hold no wildcard"
    )]
    Topic(String),
}

/// How telemetry topics are built: `prefix/{device}/suffix`.
#[derive(Debug, Clone)]
pub struct TopicShape {
    prefix: String,
    suffix: String,
}

impl TopicShape {
    /// A shape from a pattern such as `hydroficient/grandmarina/{device}/sensors`.
    pub fn new(pattern: &str) -> Result<Self, RegistryError> {
        let refused = || RegistryError::Topic(pattern.to_owned());
        let (prefix, suffix) = pattern.split_once("{device}").ok_or_else(refused)?;
        let whole_level = prefix.ends_with('/') && suffix.starts_with('/') && suffix != "/commands";
        let odd = |text: &str| text.contains(['+', '#', '$', '{', '}', '\0']);
        if !whole_level || odd(prefix) || odd(suffix) || pattern.len() > 256 {
            return Err(refused());
        }
        Ok(Self {
            prefix: prefix.into(),
            suffix: suffix.into(),
        })
    }

    /// The device's segment of a telemetry topic.
    #[must_use]
    pub fn segment<'t>(&self, topic: &'t str) -> Option<&'t str> {
        let segment = topic
            .strip_prefix(self.prefix.as_str())?
            .strip_suffix(self.suffix.as_str())?;
        (!segment.is_empty() && !segment.contains('/')).then_some(segment)
    }

    /// The telemetry topic of a segment.
    #[must_use]
    pub fn telemetry(&self, segment: &str) -> String {
        format!("{}{segment}{}", self.prefix, self.suffix)
    }

    /// The command topic of a segment.
    #[must_use]
    pub fn command(&self, segment: &str) -> String {
        format!("{}{segment}/commands", self.prefix)
    }

    /// Whether this is some device's command topic.
    #[must_use]
    pub fn is_command(&self, topic: &str) -> bool {
        let segment = topic
            .strip_prefix(self.prefix.as_str())
            .and_then(|rest| rest.strip_suffix("/commands"));
        segment.is_some_and(|segment| !segment.is_empty() && !segment.contains('/'))
    }

    /// The filter that covers telemetry and commands of all devices.
    #[must_use]
    pub fn filter(&self) -> String {
        format!("{}#", self.prefix)
    }

    /// The zone that a topic of the older unsigned forms names, in its own spelling:
    /// `…/sensors/<zone>/readings` or `grandmarina/sensors/<zone>/telemetry`.
    #[must_use]
    pub fn older_zone<'t>(&self, topic: &'t str) -> Option<&'t str> {
        let flat = || {
            topic
                .strip_prefix(self.prefix.as_str())?
                .strip_prefix("sensors/")?
                .strip_suffix("/readings")
        };
        let wrapped = || {
            topic
                .strip_prefix("grandmarina/sensors/")?
                .strip_suffix("/telemetry")
        };
        flat()
            .or_else(wrapped)
            .filter(|zone| !zone.is_empty() && !zone.contains('/'))
    }
}

/// All registered devices. Lookups take constant time and allocate nothing.
#[derive(Debug)]
pub struct Registry {
    zones: Vec<Zone>,
    devices: Vec<Device>,
    by_id: HashMap<String, DeviceIndex>,
    by_segment: HashMap<String, DeviceIndex>,
    by_message_id: HashMap<String, DeviceIndex>,
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
        let mut registry = Self {
            zones,
            by_id: HashMap::with_capacity(devices.len()),
            by_segment: HashMap::with_capacity(devices.len()),
            by_message_id: HashMap::with_capacity(devices.len()),
            devices: Vec::new(),
            topics,
        };
        for (position, device) in devices.iter().enumerate() {
            let index = DeviceIndex(u32::try_from(position).expect("a registry has fewer than 2^32 devices"));
            let insert = |map: &mut HashMap<_, _>, what, name: &str| {
                let duplicate = || RegistryError::Duplicate {
                    what,
                    name: name.to_owned(),
                };
                map.insert(name.to_owned(), index)
                    .map_or(Ok(()), |_| Err(duplicate()))
            };
            insert(&mut registry.by_id, "id", device.id.as_str())?;
            insert(&mut registry.by_segment, "topic", &device.topic_segment)?;
            insert(
                &mut registry.by_message_id,
                "message_id",
                device.message_id.as_str(),
            )?;
            if !registry.zones.iter().any(|zone| zone.id == device.zone) {
                let (device, zone) = (device.id.clone(), device.zone.clone());
                return Err(RegistryError::UnknownZone { device, zone });
            }
            // A segment follows the rule of device names, so it can never widen a filter.
            if DeviceId::new(&device.topic_segment).is_err() {
                let (device, segment) = (device.id.clone(), device.topic_segment.clone());
                return Err(RegistryError::Segment { device, segment });
            }
            if device.keys.is_empty() {
                return Err(RegistryError::NoKey(device.id.clone()));
            }
            if !device.keys.is_sorted_by(|(older, _), (newer, _)| older < newer) {
                return Err(RegistryError::KeyOrder(device.id.clone()));
            }
        }
        registry.devices = devices;
        Ok(registry)
    }

    /// The device that a telemetry topic belongs to; `topic_invalid` or `unknown_device` otherwise.
    pub fn by_topic(&self, topic: &str) -> Result<DeviceIndex, Reason> {
        let segment = self.topics.segment(topic).ok_or(Reason::TopicInvalid)?;
        self.by_segment.get(segment).copied().ok_or(Reason::UnknownDevice)
    }

    /// The device with this certificate identity.
    #[must_use]
    pub fn by_id(&self, id: &DeviceId) -> Option<DeviceIndex> {
        self.by_id.get(id.as_str()).copied()
    }

    /// The device whose messages carry this id.
    #[must_use]
    pub fn by_message_id(&self, id: &MessageDeviceId) -> Option<DeviceIndex> {
        self.by_message_id.get(id.as_str()).copied()
    }

    /// The device at a position that this registry gave.
    #[must_use]
    pub fn device(&self, index: DeviceIndex) -> &Device {
        &self.devices[index.0 as usize]
    }

    /// All devices in order of their index.
    #[must_use]
    pub fn devices(&self) -> &[Device] {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{device, registry};

    #[test]
    fn topics_lead_to_their_device_and_nothing_else() {
        let registry = registry(2);
        let find = |topic| registry.by_topic(topic);
        assert_eq!(
            find("hydroficient/grandmarina/device-001/sensors"),
            Ok(DeviceIndex(0))
        );
        assert_eq!(
            find("hydroficient/grandmarina/device-002/sensors"),
            Ok(DeviceIndex(1))
        );
        assert_eq!(
            find("hydroficient/grandmarina/device-003/sensors"),
            Err(Reason::UnknownDevice)
        );
        for wrong in [
            "",
            "hydroficient/grandmarina//sensors",
            "hydroficient/grandmarina/a/b/sensors",
            "sensors",
        ] {
            assert_eq!(find(wrong), Err(Reason::TopicInvalid), "{wrong}");
        }
        assert!(
            registry
                .topics()
                .is_command("hydroficient/grandmarina/device-001/commands")
        );
        assert!(
            !registry
                .topics()
                .is_command("hydroficient/grandmarina/device-001/sensors")
        );
    }

    #[test]
    fn older_topics_name_their_zone() {
        let topics = registry(1).topics().clone();
        assert_eq!(
            topics.older_zone("hydroficient/grandmarina/sensors/pool/readings"),
            Some("pool")
        );
        assert_eq!(
            topics.older_zone("grandmarina/sensors/kitchen/telemetry"),
            Some("kitchen")
        );
        assert_eq!(topics.older_zone("grandmarina/sensors/a/b/telemetry"), None);
    }

    #[test]
    fn registry_with_ambiguous_names_or_unknown_zone_is_refused() {
        let zones = || registry(0).zones().to_vec();
        let shape = || registry(0).topics().clone();
        let twice = Registry::new(zones(), vec![device(1), device(1)], shape());
        assert_eq!(
            twice.unwrap_err().to_string(),
            "id `device-001` belongs to two devices"
        );
        let said = |configure: fn(&mut Device)| {
            let mut second = device(2);
            configure(&mut second);
            let refused = Registry::new(zones(), vec![device(1), second], shape());
            refused.map_or_else(|error| error.to_string(), |_| "accepted".to_owned())
        };
        assert_eq!(said(|_| {}), "accepted");
        for (configure, error) in [
            (
                (|device| device.topic_segment = "device-001".into()) as fn(&mut Device),
                "topic `device-001` belongs to two devices",
            ),
            (
                |device| device.message_id = MessageDeviceId::new("HYDROLOGIC-Device-001").unwrap(),
                "message_id `HYDROLOGIC-Device-001` belongs to two devices",
            ),
            (
                |device| device.zone = ZoneId::new("roof").unwrap(),
                "device `device-002` is in zone `roof`, which is not defined",
            ),
            (
                |device| device.topic_segment = "a/b".into(),
                "device `device-002` has the topic segment `a/b`; 1 to 64 characters of A-Z a-z 0-9 . _ - are allowed",
            ),
            (|device| device.keys.clear(), "device `device-002` has no key"),
            (
                |device| device.keys.push(device.keys[0].clone()),
                "the key epochs of device `device-002` must rise",
            ),
        ] {
            assert_eq!(said(configure), error);
        }
        let twice = [zones(), zones()].concat();
        let refused = Registry::new(twice, Vec::new(), shape()).unwrap_err();
        assert_eq!(refused.to_string(), "zone `kitchen` is defined twice");
    }

    #[test]
    fn every_name_of_a_device_leads_to_it() {
        let registry = registry(2);
        let second = registry.device(DeviceIndex(1));
        assert_eq!(registry.by_id(&second.id), Some(DeviceIndex(1)));
        assert_eq!(registry.by_message_id(&second.message_id), Some(DeviceIndex(1)));
        assert_eq!(
            registry.by_topic(&registry.topics().telemetry("device-002")),
            Ok(DeviceIndex(1))
        );
        assert_eq!(
            registry.by_id(&DeviceId::new("HYDROLOGIC-Device-002").unwrap()),
            None
        );
        assert_eq!(
            registry.by_message_id(&MessageDeviceId::new("device-002").unwrap()),
            None
        );
        assert_eq!(
            registry.topics().command("device-002"),
            "hydroficient/grandmarina/device-002/commands"
        );
        assert_eq!(registry.topics().filter(), "hydroficient/grandmarina/#");
    }

    #[test]
    fn topic_pattern_needs_one_whole_level_for_the_device() {
        for wrong in [
            "a/b",
            "a/x{device}/s",
            "{device}",
            "a/{device}",
            "+/{device}/s",
            "a/{device}/commands",
        ] {
            assert!(TopicShape::new(wrong).is_err(), "{wrong}");
        }
        assert!(TopicShape::new("a/{device}/s/t").is_ok());
    }
}
