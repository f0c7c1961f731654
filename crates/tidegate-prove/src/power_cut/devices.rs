//! The devices of this proof, and the messages they sign.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use tidegate_envelope::id::{Boot, DeviceId, DeviceIndex, KeyEpoch, MessageDeviceId, Sequence, ZoneId};
use tidegate_envelope::json_v1::{self, Draft};
use tidegate_envelope::key::{MacKey, RootKey};
use tidegate_envelope::principal::Principal;
use tidegate_envelope::reading::Channels;
use tidegate_envelope::time::Timestamp;
use tidegate_store::reader::ReadingRow;
use tidegate_verify::delivery::{Delivery, SessionId};
use tidegate_verify::registry::{Device, Format, Registry, TopicShape, Window, Zone};
use tidegate_verify::stage::{Unverified, Verified};
use tidegate_verify::verifier::{Message, Protection, Verifier};

/// How many devices there are.
pub(super) const DEVICES: u32 = 12;
/// 2026-02-19T03:35:05Z, when every scenario begins.
pub(super) const START: Timestamp = Timestamp::from_micros(1_771_472_105_000_000);

/// What signs and checks messages.
pub(super) struct Devices {
    pub(super) registry: Arc<Registry>,
    pub(super) ids: Vec<DeviceId>,
    verifier: Verifier,
    senders: Vec<Sender>,
}

struct Sender {
    message_id: MessageDeviceId,
    key: MacKey,
    topic: String,
}

/// A message in few words; the rest follows from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) device: DeviceIndex,
    pub(super) sequence: u64,
    pub(super) timestamp: Timestamp,
}

impl Devices {
    pub(super) fn new() -> Self {
        let root = RootKey::from_bytes([7; 32]);
        let zone = ZoneId::new("kitchen").expect("a sound name");
        let device = |number: u32| {
            let id = DeviceId::new(&format!("device-{number:03}")).expect("a sound name");
            Device {
                message_id: MessageDeviceId::new(&format!("HYDROLOGIC-Device-{number:03}"))
                    .expect("a sound name"),
                topic_segment: id.to_string(),
                zone: zone.clone(),
                class: "water-inlet".into(),
                enabled: true,
                keys: vec![(KeyEpoch(0), MacKey::derive(&root, &id, KeyEpoch(0)))],
                format: Format::JsonV1,
                strict_sequence: false,
                window: if number.is_multiple_of(3) {
                    Window::SixtyFour
                } else {
                    Window::None
                },
                quota_per_s: u32::MAX,
                id,
            }
        };
        let zones = vec![Zone {
            id: zone.clone(),
            name: "Kitchen".into(),
        }];
        let devices: Vec<_> = (1..=DEVICES).map(device).collect();
        let topics = TopicShape::new("site/{device}/sensors").expect("a sound pattern");
        let senders = devices.iter().map(|device| Sender {
            message_id: device.message_id.clone(),
            key: MacKey::derive(&root, &device.id, KeyEpoch(0)),
            topic: topics.telemetry(&device.topic_segment),
        });
        let senders = senders.collect();
        let ids = devices.iter().map(|device| device.id.clone()).collect();
        let registry = Arc::new(Registry::new(zones, devices, topics).expect("sound devices"));
        Self {
            verifier: Verifier::new(Arc::clone(&registry), Protection::Signed, 4_096),
            registry,
            ids,
            senders,
        }
    }

    /// The message as it comes out of checks 1 to 8 at `now`.
    pub(super) fn verified(&self, said: Said, now: Timestamp) -> Verified<Message> {
        let sender = &self.senders[said.device.0 as usize];
        let noise = (said.sequence % 97) as f64 / 100.0;
        let channels = Channels::new(vec![
            ("flow_rate".into(), 40.2 + noise),
            ("gate_a_position".into(), 45.0),
            ("pressure_downstream".into(), 55.1 + noise),
            ("pressure_upstream".into(), 60.0 - noise),
        ]);
        let draft = Draft {
            device: &sender.message_id,
            timestamp: said.timestamp,
            sequence: Sequence::new(said.sequence).expect("sequences begin at 1"),
            boot: Some(Boot(1)),
            epoch: None,
            status: "operational",
            channels: &channels.expect("finite numbers"),
        };
        let payload = json_v1::sign(&draft, &sender.key);
        let delivery = Delivery {
            topic: &sender.topic,
            payload: &payload,
            retained: false,
            principal: &Principal::Broker,
            session: SessionId(1),
            resumed: false,
            detached: None,
        };
        self.verifier
            .verify(Unverified::new(delivery), now)
            .expect("a message signed by its device holds")
    }
}

/// A reading in one number: as it should come back, given its message.
pub(super) fn expected_hash(device: &DeviceId, message: &Message, received: Timestamp) -> u64 {
    let reading = &message.reading;
    row_hash(&ReadingRow {
        id: 0,
        device: Some(device.clone()),
        zone: None,
        timestamp: reading.timestamp,
        received,
        boot: reading.boot,
        sequence: reading.sequence.map(Sequence::get),
        protected: message.protection == Protection::Signed,
        status: reading.status.as_str().into(),
        channels: reading.channels.clone(),
    })
}

/// A reading in one number: everything but its id.
pub(super) fn row_hash(row: &ReadingRow) -> u64 {
    let mut hasher = DefaultHasher::new();
    row.device.as_ref().map(DeviceId::as_str).hash(&mut hasher);
    row.zone.as_ref().map(ZoneId::as_str).hash(&mut hasher);
    row.timestamp.map(Timestamp::as_micros).hash(&mut hasher);
    row.received.as_micros().hash(&mut hasher);
    row.boot.map(|boot| boot.0).hash(&mut hasher);
    row.sequence.hash(&mut hasher);
    row.protected.hash(&mut hasher);
    row.status.hash(&mut hasher);
    for (name, value) in row.channels.iter() {
        name.hash(&mut hasher);
        value.to_bits().hash(&mut hasher);
    }
    hasher.finish()
}

/// Bytes in one number.
pub(super) fn bytes_hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}
