//! The whole table of reasons: each is produced, one step from an accepted message.

use super::*;

/// Every reason of the table of checks, in its order.
const TABLE: [Reason; 22] = [
    Reason::Oversize,
    Reason::RateLimited,
    Reason::Retained,
    Reason::TopicInvalid,
    Reason::UnknownDevice,
    Reason::DeviceDisabled,
    Reason::IdentityMismatch,
    Reason::Malformed,
    Reason::UnknownKey,
    Reason::KeyRetired,
    Reason::MissingMac,
    Reason::BadMac,
    Reason::BadSchema,
    Reason::Duplicate,
    Reason::Stale,
    Reason::Future,
    Reason::ColdStart,
    Reason::Replay,
    Reason::SeqConflict,
    Reason::OutOfOrder,
    Reason::SeqJump,
    Reason::StorageUnavailable,
];

/// A delivery that may be wrong in one way, after message 1 and 3 of device 1 were accepted.
struct Attempt {
    said: Said,
    payload: Option<Vec<u8>>,
    topic: String,
    retained: bool,
    principal: Principal,
    session: u64,
    wait: Duration,
    failing: bool,
}

fn attempt(change: impl Fn(&mut Attempt)) -> Result<Vec<Notice>, Vec<Reason>> {
    let mut gateway = Gateway::new(|device| {
        device.enabled = device.id.as_str() == "device-001";
        device.quota_per_s = 3;
        device.keys.remove(0);
        device.keys.push((KeyEpoch(2), key(&device.id, 2)));
    });
    gateway.guard.clock = Clock::new(None, NOW.minus(3_600 * SECOND));
    let genuine = |sequence| Said {
        epoch: Some(1),
        ..boot(1, sequence, NOW)
    };
    for sequence in [1, 3] {
        assert!(gateway.send(genuine(sequence)).is_ok());
    }
    let id = device(1).id;
    let mut attempt = Attempt {
        said: genuine(4),
        payload: None,
        topic: topic(1),
        retained: false,
        principal: Principal::Certificate {
            id,
            role: Role::Device,
        },
        session: 1,
        wait: Duration::ZERO,
        failing: false,
    };
    change(&mut attempt);
    gateway.wait(attempt.wait);
    let payload = attempt.payload.unwrap_or_else(|| attempt.said.signed());
    let delivery = Delivery {
        topic: &attempt.topic,
        payload: &payload,
        retained: attempt.retained,
        principal: &attempt.principal,
        session: SessionId(attempt.session),
        resumed: false,
        detached: None,
    };
    let before = gateway.snapshot();
    let outcome = decide(&mut gateway, delivery, attempt.failing);
    // A duplicate is acknowledged, and only that it has come is noted.
    if outcome.is_err() && outcome != Err(vec![Reason::Duplicate]) {
        assert_eq!(gateway.snapshot(), before, "{outcome:?} changed something");
    }
    outcome
}

/// All checks, in the order in which the pipeline makes them.
fn decide(gateway: &mut Gateway, delivery: Delivery<'_>, failing: bool) -> Result<Vec<Notice>, Vec<Reason>> {
    let named = |refusal: Refusal| [vec![refusal.reason], refusal.also].concat();
    let verified = gateway
        .verifier
        .verify(Unverified::new(delivery), gateway.now)
        .map_err(named)?;
    match gateway.guard.admit(verified, gateway.now) {
        Outcome::Admitted => {}
        Outcome::Duplicate => return Err(vec![Reason::Duplicate]),
        Outcome::Refused(refusal) => return Err(named(refusal)),
    }
    gateway.log.failing = failing;
    let fresh = gateway.guard.commit(&mut gateway.log);
    let fresh = fresh.map_err(|_| vec![Reason::StorageUnavailable])?;
    Ok(fresh[0].get().notices.clone())
}

/// A payload of device 1 that is signed, whatever it says.
fn signed(body: &str) -> Vec<u8> {
    let document = tidegate_envelope::json::Document::parse(body.as_bytes()).unwrap();
    let mut canonical = Vec::new();
    document.canonical(&mut canonical);
    let tag = key(&device(1).id, 1).mac(&canonical);
    body.replacen('{', &format!("{{\"hmac\": \"{tag}\", "), 1)
        .into_bytes()
}

#[test]
fn every_reason_of_the_table_is_one_step_from_an_accepted_message() {
    use Reason as R;
    let altered = |from: &str, to: &str| {
        let said = Said {
            epoch: Some(1),
            ..boot(1, 4, NOW)
        };
        let text = String::from_utf8(said.signed()).unwrap();
        assert!(text.contains(from));
        Some(text.replace(from, to).into_bytes())
    };
    let foreign = r#"{"device_id": "HYDROLOGIC-Device-002", "kid": 1, "timestamp": "2026-02-19T03:34:00Z"}"#;
    let bare = r#"{"device_id": "HYDROLOGIC-Device-001", "kid": 1, "timestamp": "2026-02-20T00:00:00Z"}"#;
    assert_eq!(attempt(|_| {}), accepted());
    type Change<'c> = Box<dyn Fn(&mut Attempt) + 'c>;
    let cases: Vec<(Change<'_>, Vec<Reason>)> = vec![
        (
            Box::new(|a| a.payload = Some(vec![b' '; 65_537])),
            vec![R::Oversize],
        ),
        (Box::new(|a| a.retained = true), vec![R::Retained]),
        (Box::new(|a| a.topic.push('s')), vec![R::TopicInvalid]),
        (Box::new(|a| a.topic = topic(3)), vec![R::UnknownDevice]),
        (Box::new(|a| a.topic = topic(2)), vec![R::DeviceDisabled]),
        (
            Box::new(|a| a.principal = Principal::Anonymous),
            vec![R::IdentityMismatch],
        ),
        (
            Box::new(|a| {
                let id = device(1).id;
                a.principal = Principal::Certificate {
                    id,
                    role: Role::Operator,
                };
            }),
            vec![R::IdentityMismatch],
        ),
        (Box::new(|a| a.payload = altered("}", "")), vec![R::Malformed]),
        (
            Box::new(|a| a.payload = altered("\"sequence\": 4", "\"sequence\": 4.0")),
            vec![R::Malformed],
        ),
        (Box::new(|a| a.said.epoch = Some(3)), vec![R::UnknownKey]),
        (Box::new(|a| a.said.epoch = Some(0)), vec![R::KeyRetired]),
        (
            Box::new(|a| a.payload = altered("hmac", "hmax")),
            vec![R::MissingMac],
        ),
        (Box::new(|a| a.payload = altered("50.0", "50.1")), vec![R::BadMac]),
        (
            Box::new(|a| a.payload = Some(signed(foreign))),
            vec![R::IdentityMismatch, R::BadSchema, R::Stale],
        ),
        (
            Box::new(|a| a.payload = Some(signed(bare))),
            vec![R::BadSchema, R::Future],
        ),
        (Box::new(|a| a.said.sequence = 3), vec![R::Duplicate]),
        (
            Box::new(|a| {
                a.said.sequence = 3;
                a.session = 2;
            }),
            vec![R::Replay],
        ),
        (
            Box::new(|a| {
                a.said.sequence = 3;
                a.wait = 60 * SECOND;
            }),
            vec![R::Stale, R::Replay],
        ),
        (Box::new(|a| a.wait = 31 * SECOND), vec![R::Stale]),
        (
            Box::new(|a| a.said.timestamp = NOW.plus(6 * SECOND)),
            vec![R::Future],
        ),
        (
            Box::new(|a| {
                a.said.sequence = 3;
                a.said.flow = 1.0;
            }),
            vec![R::SeqConflict],
        ),
        (Box::new(|a| a.said.sequence = 2), vec![R::OutOfOrder]),
        (Box::new(|a| a.said.sequence = 1 << 53), vec![R::SeqJump]),
        (Box::new(|a| a.failing = true), vec![R::StorageUnavailable]),
    ];
    let mut produced = BTreeSet::new();
    for (position, (change, reasons)) in cases.iter().enumerate() {
        assert_eq!(attempt(change), Err(reasons.clone()), "case {position}");
        produced.extend(reasons);
    }

    let mut gateway = Gateway::new(|device| device.quota_per_s = 1);
    assert_eq!(
        gateway.send(Said::at(1, NOW.minus(6 * SECOND))),
        Err(vec![R::ColdStart])
    );
    let (topic, payload) = (topic(1), Said::at(1, NOW).signed());
    let delivery = Delivery {
        topic: &topic,
        payload: &payload,
        retained: false,
        principal: &Principal::Broker,
        session: SessionId(1),
        resumed: false,
        detached: None,
    };
    let refused = gateway
        .verifier
        .verify(Unverified::new(delivery), NOW)
        .unwrap_err();
    produced.extend([R::ColdStart, refused.reason]);
    assert_eq!(produced.into_iter().collect::<Vec<_>>(), TABLE);
}

/// One message with every fault that it can have at once, which are then mended in the order of the
/// table: each time the first one left names the refusal, and behind a valid MAC the others follow.
#[test]
fn first_failing_check_names_the_refusal_whatever_else_fails() {
    use Reason as R;
    let mut gateway = Gateway::new(|device| {
        device.enabled = device.id.as_str() == "device-001";
        device.keys.push((KeyEpoch(2), key(&device.id, 2)));
        device.keys.remove(0);
    });
    let said = |epoch, sequence, timestamp| Said {
        epoch: Some(epoch),
        ..boot(1, sequence, timestamp)
    };
    assert_eq!(gateway.send(said(1, 100, NOW)), accepted());
    assert_eq!(gateway.send(said(2, 101, NOW)), accepted());
    for _ in 0..1_000 {
        let (topic, payload) = ("nowhere", Vec::new());
        let delivery = delivery(topic, &payload, false, &Principal::Anonymous);
        assert_eq!(decide(&mut gateway, delivery, false), Err(vec![R::TopicInvalid]));
    }

    let other = Principal::Certificate {
        id: device(2).id,
        role: Role::Device,
    };
    let own = Principal::Certificate {
        id: device(1).id,
        role: Role::Device,
    };
    let (old, anonymous) = (NOW.minus(60 * SECOND), Principal::Anonymous);
    let text = |said: Said| String::from_utf8(said.signed()).unwrap();
    let stale_replay = said(1, 100, old);
    let foreign = r#"{"device_id": "HYDROLOGIC-Device-002", "kid": 1, "timestamp": "2026-02-19T03:34:05Z"}"#;
    let bare = foreign.replace("002", "001");
    type Fault<'p> = (String, Vec<u8>, bool, &'p Principal, Vec<Reason>);
    let faults: Vec<Fault<'_>> = vec![
        (
            "nowhere".into(),
            vec![b'{'; 65_537],
            true,
            &anonymous,
            vec![R::Oversize],
        ),
        (
            "nowhere".into(),
            b"{".into(),
            true,
            &anonymous,
            vec![R::RateLimited],
        ),
        ("nowhere".into(), b"{".into(), true, &anonymous, vec![R::Retained]),
        (
            "nowhere".into(),
            b"{".into(),
            false,
            &anonymous,
            vec![R::TopicInvalid],
        ),
        (topic(3), b"{".into(), false, &anonymous, vec![R::UnknownDevice]),
        (topic(2), b"{".into(), false, &anonymous, vec![R::DeviceDisabled]),
        (topic(1), b"{".into(), false, &other, vec![R::IdentityMismatch]),
        (topic(1), b"{".into(), false, &own, vec![R::Malformed]),
        (
            topic(1),
            text(stale_replay)
                .replace("\"kid\": 1", "\"kid\": 9")
                .replace("hmac", "hmax")
                .into(),
            false,
            &own,
            vec![R::UnknownKey],
        ),
        (
            topic(1),
            text(stale_replay)
                .replace("\"kid\": 1", "\"kid\": 0")
                .replace("hmac", "hmax")
                .into(),
            false,
            &own,
            vec![R::KeyRetired],
        ),
        (
            topic(1),
            text(stale_replay)
                .replace("hmac", "hmax")
                .replace("Device-001", "Device-002")
                .into(),
            false,
            &own,
            vec![R::MissingMac],
        ),
        (
            topic(1),
            text(stale_replay).replace("Device-001", "Device-002").into(),
            false,
            &own,
            vec![R::BadMac],
        ),
        (
            topic(1),
            signed(foreign),
            false,
            &own,
            vec![R::IdentityMismatch, R::BadSchema, R::Stale],
        ),
        (topic(1), signed(&bare), false, &own, vec![R::BadSchema, R::Stale]),
        (
            topic(1),
            stale_replay.signed(),
            false,
            &own,
            vec![R::KeyRetired, R::Stale, R::Replay],
        ),
        (
            topic(1),
            said(2, 100, old).signed(),
            false,
            &own,
            vec![R::Stale, R::Replay],
        ),
        (
            topic(1),
            said(2, 1 << 53, old).signed(),
            false,
            &own,
            vec![R::Stale, R::Replay, R::SeqJump],
        ),
        (
            topic(1),
            said(2, 1 << 53, NOW.plus(60 * SECOND)).signed(),
            false,
            &own,
            vec![R::Future, R::SeqJump],
        ),
        (
            topic(1),
            said(2, 100, NOW).signed(),
            false,
            &own,
            vec![R::SeqConflict],
        ),
        (
            topic(1),
            said(2, 101, NOW).signed(),
            false,
            &own,
            vec![R::Duplicate],
        ),
        (topic(1), said(2, 101, NOW).signed(), false, &own, vec![R::Replay]),
        (
            topic(1),
            said(2, 1 << 53, NOW).signed(),
            false,
            &own,
            vec![R::SeqJump],
        ),
    ];
    for (position, (topic, payload, retained, principal, reasons)) in faults.into_iter().enumerate() {
        let delivery = delivery(&topic, &payload, retained, principal);
        let named = decide(&mut gateway, delivery, false);
        assert_eq!(named, Err(reasons.clone()), "fault {position}");
        if reasons == [R::RateLimited] {
            gateway.wait(SECOND);
        }
    }
    let (topic, payload) = (topic(1), said(2, 102, NOW).signed());
    let right = delivery(&topic, &payload, false, &own);
    assert_eq!(
        decide(&mut gateway, right, true),
        Err(vec![R::StorageUnavailable])
    );
    assert_eq!(decide(&mut gateway, right, false), accepted());
}

fn delivery<'d>(topic: &'d str, payload: &'d [u8], retained: bool, principal: &'d Principal) -> Delivery<'d> {
    Delivery {
        topic,
        payload,
        retained,
        principal,
        session: SessionId(1),
        resumed: false,
        detached: None,
    }
}
