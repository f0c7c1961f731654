//! Devices and messages for this crate's own tests.

use crate::registry::{Device, Registry, TopicShape, Window, Zone};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tidegate_envelope::cose_v1::{self, Freshness, TagLength};
use tidegate_envelope::id::{Boot, DeviceId, KeyEpoch, MessageDeviceId, Sequence, ZoneId};
use tidegate_envelope::json_v1::{self, Draft};
use tidegate_envelope::key::{MacKey, RootKey};
use tidegate_envelope::reading::Channels;
use tidegate_envelope::time::Timestamp;

/// 2026-02-19T03:35:05Z.
pub(crate) const NOW: Timestamp = Timestamp::from_micros(1_771_472_105_000_000);

pub(crate) fn registry(count: u32) -> Registry {
    with_devices((1..=count).map(device).collect())
}

pub(crate) fn with_devices(devices: Vec<Device>) -> Registry {
    let zones = vec![Zone {
        id: ZoneId::new("kitchen").unwrap(),
        name: "Kitchen & Laundry".into(),
    }];
    Registry::new(
        zones,
        devices,
        TopicShape::new("hydroficient/grandmarina/{device}/sensors").unwrap(),
    )
    .unwrap()
}

pub(crate) fn device(number: u32) -> Device {
    let id = DeviceId::new(&format!("device-{number:03}")).unwrap();
    Device {
        message_id: MessageDeviceId::new(&format!("HYDROLOGIC-Device-{number:03}")).unwrap(),
        topic_segment: id.to_string(),
        zone: ZoneId::new("kitchen").unwrap(),
        class: "water-inlet".into(),
        enabled: true,
        keys: vec![(KeyEpoch(0), key(&id, 0))],
        strict_sequence: false,
        window: Window::None,
        quota_per_s: 1_000,
        format: crate::registry::Format::JsonV1,
        id,
    }
}

pub(crate) fn key(device: &DeviceId, epoch: u16) -> MacKey {
    MacKey::derive(&RootKey::from_bytes([9; 32]), device, KeyEpoch(epoch))
}

pub(crate) fn topic(number: u32) -> String {
    format!("hydroficient/grandmarina/device-{number:03}/sensors")
}

/// What a signed message says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Said {
    pub(crate) device: u32,
    pub(crate) sequence: u64,
    pub(crate) timestamp: Timestamp,
    pub(crate) boot: Option<u32>,
    pub(crate) epoch: Option<u16>,
    pub(crate) flow: f64,
}

impl Said {
    pub(crate) fn at(sequence: u64, timestamp: Timestamp) -> Self {
        Self {
            device: 1,
            sequence,
            timestamp,
            boot: None,
            epoch: None,
            flow: 50.0,
        }
    }

    /// As cose-v1, on the device's own topic.
    pub(crate) fn cose(self, length: TagLength) -> Vec<u8> {
        let draft = cose_v1::Draft {
            epoch: KeyEpoch(self.epoch.unwrap_or(0)),
            boot: Boot(self.boot.unwrap_or(0)),
            sequence: Sequence::new(self.sequence).unwrap(),
            timestamp: self.timestamp,
            status: 1,
            values: &[self.flow as f32],
        };
        cose_v1::sign(&draft, length, &self.key(), &topic(self.device)).unwrap()
    }

    /// The user property that signs `payload` on the device's own topic.
    pub(crate) fn property(self, payload: &[u8], length: TagLength) -> String {
        let freshness = Freshness {
            boot: Boot(self.boot.unwrap_or(0)),
            sequence: Sequence::new(self.sequence).unwrap(),
            timestamp: self.timestamp,
        };
        let epoch = KeyEpoch(self.epoch.unwrap_or(0));
        let topic = topic(self.device);
        let mac0 = cose_v1::sign_detached(freshness, epoch, length, &self.key(), &topic, payload);
        URL_SAFE_NO_PAD.encode(mac0.unwrap())
    }

    fn key(self) -> MacKey {
        key(&device(self.device).id, self.epoch.unwrap_or(0))
    }

    pub(crate) fn signed(self) -> Vec<u8> {
        let device = device(self.device);
        let channels = Channels::new(vec![("flow_rate".into(), self.flow)]).unwrap();
        let draft = Draft {
            device: &device.message_id,
            timestamp: self.timestamp,
            sequence: Sequence::new(self.sequence).unwrap(),
            boot: self.boot.map(Boot),
            epoch: self.epoch.map(KeyEpoch),
            status: "operational",
            channels: &channels,
        };
        json_v1::sign(&draft, &self.key())
    }
}
