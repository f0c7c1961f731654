//! The way in: a reading that was verified, was never seen before, and is durable.

use crate::plant::{Water, device, model, second};
use std::convert::Infallible;
use std::sync::Arc;
use tidegate_detect::detector::{Assessment, Detector};
use tidegate_detect::rules::Rule;
use tidegate_envelope::id::{KeyEpoch, MessageDeviceId, Sequence, ZoneId};
use tidegate_envelope::json_v1::{self, Draft};
use tidegate_envelope::key::{MacKey, RootKey};
use tidegate_envelope::principal::{Principal, Role};
use tidegate_envelope::time::Timestamp;
use tidegate_verify::delivery::{Delivery, SessionId};
use tidegate_verify::guard::{Admission, GuardPolicy, ReplayGuard};
use tidegate_verify::log::{Loaded, ReplayLog};
use tidegate_verify::registry::{Device, Registry, TopicShape, Window, Zone};
use tidegate_verify::stage::{Fresh, Unverified};
use tidegate_verify::verifier::{Protection, Verifier};

/// Says yes to everything.
struct Memory;

impl ReplayLog for Memory {
    type Error = Infallible;

    fn load(&mut self) -> Result<Loaded, Infallible> {
        Ok(Loaded::default())
    }

    fn commit(&mut self, _: &[Admission], _: Timestamp) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Sends one reading of device 0 all the way.
fn fresh(water: Water) -> Fresh<Admission> {
    let id = device(0);
    let key = MacKey::derive(&RootKey::from_bytes([7; 32]), &id, KeyEpoch(0));
    let message_id = MessageDeviceId::new("device-000").unwrap();
    let zone = ZoneId::new("kitchen").unwrap();
    let sender = Device {
        message_id: message_id.clone(),
        topic_segment: id.to_string(),
        zone: zone.clone(),
        class: "water-inlet".into(),
        enabled: true,
        keys: vec![(KeyEpoch(0), key.clone())],
        strict_sequence: false,
        window: Window::None,
        quota_per_s: 10,
        format: tidegate_verify::registry::Format::JsonV1,
        id: id.clone(),
    };
    let zones = vec![Zone {
        id: zone,
        name: "Kitchen".into(),
    }];
    let topics = TopicShape::new("plant/{device}/sensors").unwrap();
    let registry = Arc::new(Registry::new(zones, vec![sender], topics).unwrap());
    let now = second(100);
    let draft = Draft {
        device: &message_id,
        timestamp: now,
        sequence: Sequence::new(1).unwrap(),
        boot: None,
        epoch: None,
        status: "operational",
        channels: &water.channels(),
    };
    let payload = json_v1::sign(&draft, &key);
    let delivery = Delivery {
        topic: "plant/device-000/sensors",
        payload: &payload,
        retained: false,
        principal: &Principal::Certificate {
            id,
            role: Role::Device,
        },
        session: SessionId(1),
        resumed: false,
        detached: None,
    };
    let verifier = Verifier::new(Arc::clone(&registry), Protection::Signed, 8_192);
    let verified = verifier.verify(Unverified::new(delivery), now).unwrap();
    let mut guard = ReplayGuard::new(&registry, GuardPolicy::default(), Loaded::default(), second(0));
    guard.admit(verified, now);
    guard.commit(&mut Memory).unwrap().remove(0)
}

const CALM: Water = Water {
    upstream: 64.6,
    downstream: 63.4,
    flow: 35.0,
    gate_a: 45.0,
    gate_b: 45.0,
};

#[test]
fn a_fresh_reading_is_assessed_as_its_devices() {
    let mut detector = Detector::new(model(), [&device(0)]);
    let calm = detector.assess_fresh(&fresh(CALM));
    assert_eq!(
        calm,
        Some(Assessment {
            score: 0.0,
            flagged: false,
            reason: None
        }),
        "warming up"
    );
    let gross = detector
        .assess_fresh(&fresh(Water {
            upstream: 250.0,
            ..CALM
        }))
        .unwrap();
    assert_eq!(gross.reason.unwrap().rule, Some(Rule::Range));
}

#[test]
fn a_reading_of_a_device_that_the_detector_does_not_know_is_not_assessed() {
    let mut detector = Detector::new(model(), []);
    assert_eq!(detector.assess_fresh(&fresh(CALM)), None);
}
