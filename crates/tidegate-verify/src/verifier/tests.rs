//! Checks 1 to 8, each with an accepted message one step away.

mod formats;

use super::*;
use crate::testing::{NOW, Said, device, key, registry, topic, with_devices};
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::json::Document;

const MAX: usize = 65_536;

fn principal(number: u32, role: Role) -> Principal {
    Principal::Certificate {
        id: DeviceId::new(&format!("device-{number:03}")).unwrap(),
        role,
    }
}

/// What becomes of `payload` on `topic` from `principal`.
fn check(registry: Registry, topic: &str, payload: &[u8], principal: &Principal) -> Result<Message, Reason> {
    let verifier = Verifier::new(Arc::new(registry), Protection::Signed, MAX);
    let delivery = Delivery {
        topic,
        payload,
        retained: false,
        principal,
        session: SessionId(1),
        resumed: false,
        detached: None,
    };
    let verdict = verifier.verify(Unverified::new(delivery), NOW);
    verdict
        .map(Verified::into_inner)
        .map_err(|refusal| refusal.reason)
}

fn payload() -> Vec<u8> {
    Said::at(1, NOW).signed()
}

#[test]
fn genuine_message_passes_and_one_step_away_is_refused_in_order() {
    let own = principal(1, Role::Device);
    let accepted = check(registry(2), &topic(1), &payload(), &own).unwrap();
    assert_eq!(accepted.device, Some(DeviceIndex(0)));
    assert!(check(registry(2), &topic(1), &payload(), &Principal::Broker).is_ok());

    let text = String::from_utf8(payload()).unwrap();
    let altered = |from: &str, to: &str| text.replace(from, to).into_bytes();
    let mut disabled = device(1);
    disabled.enabled = false;
    let other = Said {
        device: 2,
        ..Said::at(1, NOW)
    }
    .signed();
    let cases: Vec<(Registry, String, Vec<u8>, Principal, Reason)> = vec![
        (
            registry(2),
            "elsewhere".into(),
            payload(),
            own.clone(),
            Reason::TopicInvalid,
        ),
        (
            registry(2),
            topic(3),
            payload(),
            own.clone(),
            Reason::UnknownDevice,
        ),
        (
            with_devices(vec![disabled]),
            topic(1),
            payload(),
            own.clone(),
            Reason::DeviceDisabled,
        ),
        (
            registry(2),
            topic(2),
            payload(),
            own.clone(),
            Reason::IdentityMismatch,
        ),
        (
            registry(2),
            topic(1),
            payload(),
            principal(1, Role::Gateway),
            Reason::IdentityMismatch,
        ),
        (
            registry(2),
            topic(1),
            payload(),
            Principal::Anonymous,
            Reason::IdentityMismatch,
        ),
        (
            registry(2),
            topic(1),
            b"[]".to_vec(),
            own.clone(),
            Reason::Malformed,
        ),
        (
            registry(2),
            topic(1),
            altered("\"sequence\": 1", "\"sequence\": 1.0"),
            own.clone(),
            Reason::Malformed,
        ),
        (
            registry(2),
            topic(1),
            altered("50.0", "50.1"),
            own.clone(),
            Reason::BadMac,
        ),
        (
            registry(2),
            topic(1),
            altered("hmac", "mac"),
            own.clone(),
            Reason::MissingMac,
        ),
        (
            registry(2),
            topic(1),
            Said {
                epoch: Some(1),
                ..Said::at(1, NOW)
            }
            .signed(),
            own.clone(),
            Reason::UnknownKey,
        ),
        (
            registry(2),
            topic(1),
            altered("\"status\"", "\"kid\": 70000, \"status\""),
            own.clone(),
            Reason::UnknownKey,
        ),
        // A device that signs with its own key in another's name reaches check 8 only with that key.
        (registry(2), topic(1), other, own, Reason::BadMac),
    ];
    for (position, (registry, topic, payload, principal, reason)) in cases.into_iter().enumerate() {
        let verdict = check(registry, &topic, &payload, &principal);
        assert_eq!(
            verdict.map(|message| message.device),
            Err(reason),
            "case {position}"
        );
    }
}

#[test]
fn signed_message_with_foreign_id_or_missing_member_is_refused_after_its_mac() {
    let id = DeviceId::new("device-001").unwrap();
    let sign = |body: &str| {
        let unsigned = Document::parse(body.as_bytes()).unwrap();
        let mut canonical = Vec::new();
        unsigned.canonical(&mut canonical);
        let tag = key(&id, 0).mac(&canonical);
        body.replacen('{', &format!("{{\"hmac\": \"{tag}\", "), 1)
            .into_bytes()
    };
    let foreign = r#"{"device_id": "HYDROLOGIC-Device-002", "timestamp": "2026-02-19T03:35:05Z", "sequence": 1, "readings": {}}"#;
    let incomplete =
        r#"{"device_id": "HYDROLOGIC-Device-001", "timestamp": "2026-02-19T03:35:05Z", "sequence": 1}"#;
    let verdict =
        |body| check(registry(2), &topic(1), &sign(body), &Principal::Broker).map(|message| message.device);
    assert_eq!(verdict(foreign), Err(Reason::IdentityMismatch));
    assert_eq!(verdict(incomplete), Err(Reason::BadSchema));
}

#[test]
fn both_epochs_of_a_rotation_are_taken_and_an_older_one_is_retired() {
    let mut rotating = device(1);
    let id = rotating.id.clone();
    rotating.keys = vec![(KeyEpoch(1), key(&id, 1)), (KeyEpoch(2), key(&id, 2))];
    let verdict = |epoch| {
        let payload = Said {
            epoch,
            ..Said::at(1, NOW)
        }
        .signed();
        let registry = with_devices(vec![rotating.clone()]);
        check(registry, &topic(1), &payload, &Principal::Broker).map(|message| message.epoch)
    };
    assert_eq!(verdict(Some(1)), Ok(KeyEpoch(1)));
    assert_eq!(verdict(Some(2)), Ok(KeyEpoch(2)));
    assert_eq!(verdict(Some(0)), Err(Reason::KeyRetired));
    assert_eq!(verdict(Some(3)), Err(Reason::UnknownKey));
}

#[test]
fn retained_oversize_and_too_many_are_refused_before_anything_is_read() {
    let registry = Arc::new(registry(1));
    let verifier = Verifier::new(registry, Protection::Signed, 64);
    let payload = payload();
    let (topic, junk) = (topic(1), [b'['; 64]);
    let mut delivery = Delivery {
        topic: &topic,
        payload: &payload,
        retained: true,
        principal: &Principal::Broker,
        session: SessionId(1),
        resumed: false,
        detached: None,
    };
    let reason = |delivery| {
        verifier
            .verify(Unverified::new(delivery), NOW)
            .unwrap_err()
            .reason
    };
    assert_eq!(reason(delivery), Reason::Oversize);
    delivery.payload = &junk;
    assert_eq!(reason(delivery), Reason::Retained);
    delivery.retained = false;
    assert_eq!(reason(delivery), Reason::Malformed);
    for _ in 0..998 {
        reason(delivery);
    }
    assert_eq!(reason(delivery), Reason::RateLimited);
}

#[test]
fn anonymous_sender_is_taken_only_where_it_was_allowed_and_only_with_a_mac() {
    let registry = Arc::new(registry(1));
    let strict = Verifier::new(Arc::clone(&registry), Protection::Signed, MAX);
    let open = Verifier::new(registry, Protection::Signed, MAX).dangerous_allow_anonymous();
    let (topic, payload) = (topic(1), payload());
    let forged = String::from_utf8(payload.clone())
        .unwrap()
        .replace("50.0", "50.1");
    let reason = |verifier: &Verifier, payload: &[u8], principal: &Principal| {
        let delivery = Delivery {
            topic: &topic,
            payload,
            retained: false,
            principal,
            session: SessionId(1),
            resumed: false,
            detached: None,
        };
        let verdict = verifier.verify(Unverified::new(delivery), NOW);
        verdict.err().map(|refusal| refusal.reason)
    };
    let nobody = Principal::Anonymous;
    assert_eq!(reason(&strict, &payload, &nobody), Some(Reason::IdentityMismatch));
    assert_eq!(reason(&open, &payload, &nobody), None);
    assert_eq!(reason(&open, forged.as_bytes(), &nobody), Some(Reason::BadMac));
    let other = principal(2, Role::Device);
    assert_eq!(reason(&open, &payload, &other), Some(Reason::IdentityMismatch));
}

#[test]
fn refusal_repeats_a_foreign_topic_shortened_and_escaped() {
    let verifier = Verifier::new(Arc::new(registry(1)), Protection::Signed, MAX);
    let topic = format!("\u{1b}[2J{}", "a".repeat(60_000));
    let delivery = Delivery {
        topic: &topic,
        payload: b"{}",
        retained: false,
        principal: &Principal::Broker,
        session: SessionId(1),
        resumed: false,
        detached: None,
    };
    let refusal = verifier.verify(Unverified::new(delivery), NOW).unwrap_err();
    assert!(
        refusal.detail.starts_with("topic \\u{1b}[2Ja"),
        "{}",
        refusal.detail
    );
    assert!(refusal.detail.len() < 2 * MAX_SHOWN, "{}", refusal.detail.len());
}

#[test]
fn unprotected_levels_take_unsigned_and_forged_messages_but_not_junk() {
    let verifier = Verifier::new(Arc::new(registry(1)), Protection::Unprotected, MAX);
    let verdict = |topic: &str, payload: &[u8]| {
        let principal = &Principal::Anonymous;
        let delivery = Delivery {
            topic,
            payload,
            retained: true,
            principal,
            session: SessionId(1),
            resumed: false,
            detached: None,
        };
        let verdict = verifier.verify(Unverified::new(delivery), NOW);
        verdict
            .map(Verified::into_inner)
            .map_err(|refusal| refusal.reason)
    };
    let forged = br#"{"device_id": "HYDROLOGIC-Device-001", "flow_rate": 1, "hmac": "no"}"#;
    assert_eq!(verdict(&topic(1), forged).unwrap().device, Some(DeviceIndex(0)));
    let older = verdict(
        "grandmarina/sensors/kitchen/telemetry",
        br#"{"payload": {"pressure_psi": 60}}"#,
    )
    .unwrap();
    assert_eq!((older.device, older.zone), (None, ZoneId::new("kitchen").ok()));
    assert_eq!(verdict(&topic(9), forged).unwrap().device, Some(DeviceIndex(0)));
    assert_eq!(verdict("elsewhere", forged).unwrap_err(), Reason::TopicInvalid);
    assert_eq!(verdict(&topic(1), b"junk").unwrap_err(), Reason::Malformed);
}

#[test]
fn certificate_that_speaks_for_another_device_uses_up_its_own_quota() {
    let devices = [1, 2].map(|number| {
        let mut device = device(number);
        device.quota_per_s = 1;
        device
    });
    let verifier = Verifier::new(Arc::new(with_devices(devices.into())), Protection::Signed, MAX);
    let reason = |number, principal: &Principal| {
        let (topic, payload) = (topic(number), payload());
        let delivery = Delivery {
            topic: &topic,
            payload: &payload,
            retained: false,
            principal,
            session: SessionId(1),
            resumed: false,
            detached: None,
        };
        let verdict = verifier.verify(Unverified::new(delivery), NOW);
        verdict.err().map(|refusal| (refusal.reason, refusal.device))
    };
    let (own, other) = (principal(1, Role::Device), principal(2, Role::Device));
    let mismatch = Some((Reason::IdentityMismatch, Some(DeviceIndex(0))));
    let limited = Some((Reason::RateLimited, Some(DeviceIndex(1))));
    assert_eq!(reason(1, &other), mismatch);
    assert_eq!(reason(1, &other), limited);
    assert_eq!(reason(1, &own), None);
    assert_eq!(reason(1, &own), Some((Reason::RateLimited, Some(DeviceIndex(0)))));
    // Nobody that is registered: the quota of strangers.
    let stranger = principal(3, Role::Device);
    for _ in 0..1_000 {
        assert_eq!(reason(1, &stranger), mismatch);
    }
    assert_eq!(reason(1, &stranger), Some((Reason::RateLimited, None)));
}

#[test]
fn verifier_of_the_next_registry_keeps_its_limits_and_learns_the_new_devices() {
    let policy = GuardPolicy {
        window: std::time::Duration::from_secs(1),
        ..GuardPolicy::default()
    };
    let first = Verifier::new(Arc::new(registry(1)), Protection::Signed, 500)
        .with_policy(policy)
        .dangerous_allow_anonymous();
    let next = first.with_registry(Arc::new(registry(2))).unwrap();
    let reasons = |verifier: &Verifier, topic: &str, payload: &[u8]| {
        let delivery = Delivery {
            topic,
            payload,
            retained: false,
            principal: &Principal::Anonymous,
            session: SessionId(1),
            resumed: false,
            detached: None,
        };
        let verdict = verifier.verify(Unverified::new(delivery), NOW);
        verdict
            .err()
            .map(|refusal| [vec![refusal.reason], refusal.also].concat())
    };
    let second = Said {
        device: 2,
        ..Said::at(1, NOW)
    };
    assert_eq!(
        reasons(&first, &topic(2), &second.signed()),
        Some(vec![Reason::UnknownDevice])
    );
    assert_eq!(reasons(&next, &topic(2), &second.signed()), None);
    assert_eq!(
        reasons(&next, &topic(2), &[b'{'; 501]),
        Some(vec![Reason::Oversize])
    );
    let late = NOW.minus(std::time::Duration::from_secs(2));
    let body = format!("{{\"device_id\": \"HYDROLOGIC-Device-001\", \"timestamp\": \"{late}\"}}");
    let unsigned = Document::parse(body.as_bytes()).unwrap();
    let mut canonical = Vec::new();
    unsigned.canonical(&mut canonical);
    let tag = key(&device(1).id, 0).mac(&canonical);
    let signed = body.replacen('{', &format!("{{\"hmac\": \"{tag}\", "), 1);
    assert_eq!(
        reasons(&next, &topic(1), signed.as_bytes()),
        Some(vec![Reason::BadSchema, Reason::Stale])
    );
}

#[test]
fn unsigned_message_of_nobody_registered_keeps_the_zone_that_it_or_its_topic_names() {
    let verifier = Verifier::new(Arc::new(registry(1)), Protection::Unprotected, MAX);
    let zone = |topic: &str, payload: &str| {
        let delivery = Delivery {
            topic,
            payload: payload.as_bytes(),
            retained: false,
            principal: &Principal::Anonymous,
            session: SessionId(1),
            resumed: false,
            detached: None,
        };
        let message = verifier.verify(Unverified::new(delivery), NOW).unwrap();
        let message = message.into_inner();
        (message.device, message.zone.map(|zone| zone.to_string()))
    };
    let named = |zone: &str| (None, Some(zone.to_owned()));
    let older = "grandmarina/sensors/pool_spa/telemetry";
    assert_eq!(zone(older, r#"{"zone": "roof"}"#), named("pool_spa"));
    assert_eq!(zone(&topic(9), r#"{"zone": "roof"}"#), named("roof"));
    assert_eq!(zone(&topic(9), r#"{"zone": "<b>"}"#), (None, None));
    let own = (Some(DeviceIndex(0)), Some("kitchen".to_owned()));
    assert_eq!(zone(&topic(1), r#"{"zone": "roof"}"#), own);
    let by_name = r#"{"device_id": "HYDROLOGIC-Device-001", "zone": "roof"}"#;
    assert_eq!(zone(older, by_name), own);
}
