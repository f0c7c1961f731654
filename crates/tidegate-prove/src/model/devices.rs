//! The model's devices: their keys, their counters, and the messages they sign.

use super::events::Setting;
use std::sync::Arc;
use tidegate_envelope::id::{Boot, DeviceId, KeyEpoch, MessageDeviceId, Sequence, ZoneId};
use tidegate_envelope::json_v1::{self, Draft};
use tidegate_envelope::key::{MacKey, RootKey, Tag};
use tidegate_envelope::reading::Channels;
use tidegate_envelope::time::Timestamp;
use tidegate_verify::registry::{Device, Format, Registry, TopicShape, Window, Zone};

/// Numbers that a publisher reserves at a time, and so passes over when it starts again.
const RESERVED: u64 = 1_024;

/// What all messages have in common.
#[derive(Debug)]
pub(super) struct Devices {
    pub(super) registry: Arc<Registry>,
    pub(super) topics: [String; 2],
    devices: [Device; 2],
    counts_starts: bool,
}

/// A publisher's counters.
#[derive(Debug, Clone, Copy, Hash, Default)]
pub(super) struct Publisher {
    sequence: u64,
    starts: u32,
    newer_key: bool,
}

/// A signed message.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) device: usize,
    pub(super) sequence: Sequence,
    pub(super) timestamp: Timestamp,
    pub(super) tag: Tag,
    pub(super) payload: Vec<u8>,
}

impl Devices {
    pub(super) fn new(setting: &Setting, seed: u64) -> Self {
        let mut root = [0; 32];
        root[..8].copy_from_slice(&seed.to_le_bytes());
        let root = RootKey::from_bytes(root);
        let zone = ZoneId::new("kitchen").expect("a sound name");
        let device = |number: u32| {
            let id = DeviceId::new(&format!("device-{number:03}")).expect("a sound name");
            Device {
                message_id: MessageDeviceId::new(id.as_str()).expect("a sound name"),
                topic_segment: id.to_string(),
                zone: zone.clone(),
                class: "water-inlet".into(),
                enabled: true,
                keys: [0, 1]
                    .map(|epoch| (KeyEpoch(epoch), MacKey::derive(&root, &id, KeyEpoch(epoch))))
                    .into(),
                format: Format::JsonV1,
                strict_sequence: false,
                window: if setting.window {
                    Window::SixtyFour
                } else {
                    Window::None
                },
                // So many that quota and jump, which are tested by themselves, add no states.
                quota_per_s: u32::MAX,
                id,
            }
        };
        let zones = vec![Zone {
            id: zone.clone(),
            name: "Kitchen".into(),
        }];
        let topics = TopicShape::new("site/{device}/sensors").expect("a sound pattern");
        let devices = [1, 2].map(device);
        Self {
            topics: devices
                .each_ref()
                .map(|device| topics.telemetry(&device.topic_segment)),
            registry: Arc::new(Registry::new(zones, devices.to_vec(), topics).expect("two sound devices")),
            devices,
            counts_starts: setting.counts_starts,
        }
    }

    /// The device's message under its newest number, with `value` as its reading.
    pub(super) fn sign(&self, device: usize, publisher: Publisher, timestamp: Timestamp, value: u8) -> Made {
        let Device { message_id, keys, .. } = &self.devices[device];
        let channels = Channels::new(vec![("flow_rate".into(), f64::from(value))]).expect("a finite number");
        let (epoch, key) = &keys[usize::from(publisher.newer_key)];
        let draft = Draft {
            device: message_id,
            timestamp,
            sequence: Sequence::new(publisher.sequence).expect("a message has taken a number"),
            boot: self.counts_starts.then_some(Boot(publisher.starts)),
            epoch: Some(*epoch),
            status: "",
            channels: &channels,
        };
        let payload = json_v1::sign(&draft, key);
        Made {
            device,
            sequence: draft.sequence,
            timestamp,
            tag: tag(&payload),
            payload,
        }
    }

    /// A device starts again: above every number it may have used, or from the beginning where it
    /// does not keep them.
    pub(super) fn start(&self, publisher: &mut Publisher) {
        if self.counts_starts {
            publisher.starts += 1;
            publisher.sequence = publisher.sequence.next_multiple_of(RESERVED);
        } else {
            publisher.sequence = 0;
        }
    }
}

impl Publisher {
    pub(super) fn advance(&mut self, by: u64) {
        self.sequence += by;
    }

    /// Whether it has said anything since it counts.
    pub(super) fn has_spoken(self) -> bool {
        self.sequence > 0
    }

    pub(super) fn rotate(&mut self) {
        self.newer_key = true;
    }

    pub(super) fn has_newer_key(self) -> bool {
        self.newer_key
    }
}

/// The MAC of a message that was just signed, which is its last member.
fn tag(payload: &[u8]) -> Tag {
    let hex = payload
        .strip_suffix(b"\"}")
        .and_then(|rest| rest.last_chunk::<64>());
    let hex = hex.and_then(|hex| std::str::from_utf8(hex).ok());
    hex.and_then(Tag::from_hex)
        .expect("a signed message ends with its MAC")
}
