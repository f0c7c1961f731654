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
    };
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
    gateway.log.failing = attempt.failing;
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
    };
    let refused = gateway
        .verifier
        .verify(Unverified::new(delivery), NOW)
        .unwrap_err();
    produced.extend([R::ColdStart, refused.reason]);
    assert_eq!(produced.into_iter().collect::<Vec<_>>(), TABLE);
}
