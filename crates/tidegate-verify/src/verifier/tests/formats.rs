//! Checks 5 to 8 of each format, each refusal one step from an accepted message.

use super::*;
use crate::registry::Device;
use compact_str::CompactString;
use std::time::Duration;
use tidegate_envelope::cose_v1::TagLength;
use tidegate_envelope::id::{Boot, Sequence};

const SECOND: Duration = Duration::from_secs(1);
const LENGTHS: [TagLength; 2] = [TagLength::Full, TagLength::Short];

fn cose(channels: &[&str]) -> Format {
    Format::CoseV1 {
        channels: channels.iter().copied().map(CompactString::from).collect(),
    }
}

/// Device 1 with the keys of epochs 1 and 2, and device 2 with the same ones.
fn verifier(format: &Format) -> Verifier {
    let first = device(1).id;
    let devices = [1, 2].map(|number| Device {
        format: format.clone(),
        keys: [1, 2].map(|epoch| (KeyEpoch(epoch), key(&first, epoch))).into(),
        ..device(number)
    });
    Verifier::new(Arc::new(with_devices(devices.into())), Protection::Signed, MAX)
}

/// What a device of this format sent to a topic; all reasons when it is refused.
fn verdict(
    format: &Format,
    topic: &str,
    payload: &[u8],
    detached: Option<&str>,
) -> Result<Message, Vec<Reason>> {
    let delivery = Delivery {
        topic,
        payload,
        retained: false,
        principal: &Principal::Broker,
        session: SessionId(1),
        resumed: true,
        detached,
    };
    let verified = verifier(format).verify(Unverified::new(delivery), NOW);
    verified
        .map(Verified::into_inner)
        .map_err(|refusal| [vec![refusal.reason], refusal.also].concat())
}

fn said() -> Said {
    Said {
        epoch: Some(1),
        boot: Some(7),
        ..Said::at(9, NOW)
    }
}

/// The reasons for which this is refused; empty when it is accepted.
fn refused(format: &Format, payload: &[u8], detached: Option<&str>) -> Vec<Reason> {
    verdict(format, &topic(1), payload, detached)
        .err()
        .unwrap_or_default()
}

#[test]
fn cose_message_is_read_with_the_names_of_the_registry() {
    for length in LENGTHS {
        let accepted = verdict(&cose(&["flow_rate"]), &topic(1), &said().cose(length), None).unwrap();
        let reading = accepted.reading;
        assert_eq!(
            (accepted.device, accepted.epoch),
            (Some(DeviceIndex(0)), KeyEpoch(1))
        );
        assert_eq!((accepted.session, accepted.resumed), (SessionId(1), true));
        assert_eq!(reading.sequence, Sequence::new(9));
        assert_eq!((reading.boot, reading.timestamp), (Some(Boot(7)), Some(NOW)));
        assert_eq!(reading.channels.get("flow_rate"), Some(50.0));
        assert_eq!(reading.device, None);
    }
}

#[test]
fn cose_message_one_step_from_right_is_refused_with_its_reason() {
    let format = cose(&["flow_rate"]);
    for length in LENGTHS {
        let payload = said().cose(length);
        let check = |payload: &[u8]| refused(&format, payload, None);
        assert_eq!(check(&payload), []);
        for at in 0..payload.len() {
            let mut altered = payload.clone();
            altered[at] ^= 1;
            let reasons = check(&altered);
            let named = [
                Reason::Malformed,
                Reason::UnknownKey,
                Reason::KeyRetired,
                Reason::BadMac,
            ];
            assert!(
                reasons.len() == 1 && named.contains(&reasons[0]),
                "byte {at}: {reasons:?}"
            );
        }
        assert_eq!(check(&payload[..payload.len() - 1]), [Reason::Malformed]);
        assert_eq!(check(&[&payload[..], &[0]].concat()), [Reason::Malformed]);
        let epoch = |epoch| check(&Said { epoch, ..said() }.cose(length));
        assert_eq!(epoch(Some(2)), []);
        assert_eq!(epoch(Some(0)), [Reason::KeyRetired]);
        assert_eq!(epoch(Some(3)), [Reason::UnknownKey]);
        let last = payload.len() - 1;
        let mut altered = payload.clone();
        altered[last] ^= 1;
        assert_eq!(check(&altered), [Reason::BadMac]);
    }
}

#[test]
fn cose_message_moved_to_another_topic_fails_though_the_key_is_right() {
    let format = cose(&["flow_rate"]);
    let payload = said().cose(TagLength::Full);
    assert!(verdict(&format, &topic(1), &payload, None).is_ok());
    let moved = verdict(&format, &topic(2), &payload, None);
    assert_eq!(moved.unwrap_err(), [Reason::BadMac]);
}

#[test]
fn cose_message_that_does_not_fit_the_registry_says_so_after_its_mac_and_whether_it_is_late_too() {
    let two = cose(&["flow_rate", "pressure_upstream"]);
    let at = |timestamp| Said { timestamp, ..said() }.cose(TagLength::Full);
    let check = |payload: &[u8]| refused(&two, payload, None);
    assert_eq!(check(&at(NOW)), [Reason::BadSchema]);
    assert_eq!(
        check(&at(NOW.minus(31 * SECOND))),
        [Reason::BadSchema, Reason::Stale]
    );
    assert_eq!(
        check(&at(NOW.plus(6 * SECOND))),
        [Reason::BadSchema, Reason::Future]
    );
    let mut forged = at(NOW.minus(31 * SECOND));
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(check(&forged), [Reason::BadMac]);
}

const OLDER: [&str; 4] = [
    r#"{"device_id": "HYDROLOGIC-Device-001", "counter": 5, "timestamp": "2020-01-01T00:00:00Z", "flow_rate": 50}"#,
    r#"{"payload": {"device_id": "HYDROLOGIC-Device-001", "ts": "2020-01-01T00:00:00Z", "flow_rate_gpm": 50.0}}"#,
    r#"{"device_id": "HYDROLOGIC-Device-001", "boot": 1, "kid": 2, "sequence": 5, "readings": {"flow_rate": 50}}"#,
    r#"{"flow_rate": 50, "hmac": "of an earlier system"}"#,
];

#[test]
fn detached_signature_covers_every_older_form_and_says_when_and_which() {
    for length in LENGTHS {
        for older in OLDER {
            let property = said().property(older.as_bytes(), length);
            let accepted = verdict(
                &Format::CoseDetached,
                &topic(1),
                older.as_bytes(),
                Some(&property),
            );
            let accepted = accepted.unwrap();
            let reading = accepted.reading;
            assert_eq!(accepted.epoch, KeyEpoch(1));
            assert_eq!(reading.sequence, Sequence::new(9), "{older}");
            assert_eq!((reading.boot, reading.timestamp), (Some(Boot(7)), Some(NOW)));
            assert_eq!(reading.epoch, Some(KeyEpoch(1)));
            assert_eq!(reading.channels.get("flow_rate"), Some(50.0));
        }
    }
}

#[test]
fn detached_message_one_step_from_right_is_refused_with_its_reason() {
    let payload = OLDER[0].as_bytes();
    let property = said().property(payload, TagLength::Full);
    let check = |payload: &[u8], property: &str| refused(&Format::CoseDetached, payload, Some(property));
    assert_eq!(check(payload, &property), []);
    assert_eq!(
        refused(&Format::CoseDetached, payload, None),
        [Reason::MissingMac]
    );
    assert_eq!(refused(&Format::CoseDetached, b"{", None), [Reason::Malformed]);
    for (property, why) in [
        (String::new(), "empty"),
        (format!("{property}="), "padded"),
        (format!("{property}A"), "longer"),
        (property[1..].into(), "shorter"),
        (
            property.replacen(property.chars().next().unwrap(), "+", 1),
            "another alphabet",
        ),
        ("A".repeat(60_000), "too long for any signature"),
    ] {
        assert_eq!(check(payload, &property), [Reason::Malformed], "{why}");
    }
    let altered = OLDER[0].replace("50", "51");
    assert_eq!(check(altered.as_bytes(), &property), [Reason::BadMac]);
    let spaced = format!("{} ", OLDER[0]);
    assert_eq!(check(spaced.as_bytes(), &property), [Reason::BadMac]);
    let moved = verdict(&Format::CoseDetached, &topic(2), payload, Some(&property));
    assert_eq!(moved.unwrap_err(), [Reason::BadMac]);
    let epoch = |epoch| {
        check(
            payload,
            &Said { epoch, ..said() }.property(payload, TagLength::Full),
        )
    };
    assert_eq!(epoch(Some(2)), []);
    assert_eq!(epoch(Some(0)), [Reason::KeyRetired]);
    assert_eq!(epoch(Some(3)), [Reason::UnknownKey]);
}

#[test]
fn longest_signature_fits_and_one_character_more_does_not() {
    let longest = Said {
        sequence: 1 << 53,
        boot: Some(u32::MAX),
        ..said()
    };
    let property = longest.property(b"{}", TagLength::Full);
    assert_eq!(property.len(), 100);
    assert_eq!(refused(&Format::CoseDetached, b"{}", Some(&property)), []);
    let refusal = |property: &str| {
        let topic = topic(1);
        let delivery = Delivery {
            topic: &topic,
            payload: b"{}",
            retained: false,
            principal: &Principal::Broker,
            session: SessionId(1),
            resumed: false,
            detached: Some(property),
        };
        let verdict = verifier(&Format::CoseDetached).verify(Unverified::new(delivery), NOW);
        verdict.unwrap_err().detail
    };
    assert_eq!(
        refusal(&format!("{property}A")),
        "a user property of 101 characters, more than 100"
    );
    assert!(refusal(&format!("{}+", &property[1..])).starts_with("the user property is not base64url"));
}

#[test]
fn detached_message_may_name_no_other_device_wherever_it_names_one() {
    let check = |payload: &str, timestamp| {
        let property = Said { timestamp, ..said() }.property(payload.as_bytes(), TagLength::Full);
        refused(&Format::CoseDetached, payload.as_bytes(), Some(&property))
    };
    let (old, soon) = (NOW.minus(31 * SECOND), NOW.plus(6 * SECOND));
    for right in OLDER {
        assert_eq!(check(right, NOW), []);
    }
    for wrong in [
        r#"{"device_id": "HYDROLOGIC-Device-002", "flow_rate": 50}"#,
        r#"{"device_id": "", "flow_rate": 50}"#,
        r#"{"device_id": 1, "flow_rate": 50}"#,
        r#"{"payload": {"device_id": "HYDROLOGIC-Device-002"}}"#,
        r#"{"device_id": "HYDROLOGIC-Device-002", "payload": {"device_id": "HYDROLOGIC-Device-001"}}"#,
        r#"{"device_id": "HYDROLOGIC-Device-001", "payload": {"device_id": "HYDROLOGIC-Device-002"}}"#,
    ] {
        assert_eq!(check(wrong, NOW), [Reason::IdentityMismatch], "{wrong}");
        assert_eq!(check(wrong, old), [Reason::IdentityMismatch, Reason::Stale]);
        assert_eq!(check(wrong, soon), [Reason::IdentityMismatch, Reason::Future]);
    }
}

#[test]
fn message_in_another_format_than_its_device_is_malformed_or_carries_no_signature() {
    let json = said().signed();
    let attached = said().cose(TagLength::Full);
    let property = said().property(OLDER[0].as_bytes(), TagLength::Full);
    let (older, property) = (OLDER[0].as_bytes(), Some(property.as_str()));
    let formats = [Format::JsonV1, cose(&["flow_rate"]), Format::CoseDetached];
    for (format, own, others) in [
        (
            &formats[0],
            (&json[..], None),
            [
                (&attached[..], None, Reason::Malformed),
                (older, property, Reason::MissingMac),
            ],
        ),
        (
            &formats[1],
            (&attached[..], None),
            [
                (&json[..], None, Reason::Malformed),
                (older, property, Reason::Malformed),
            ],
        ),
        (
            &formats[2],
            (older, property),
            [
                (&json[..], None, Reason::MissingMac),
                (&attached[..], None, Reason::Malformed),
            ],
        ),
    ] {
        assert_eq!(refused(format, own.0, own.1), []);
        for (payload, property, reason) in others {
            assert_eq!(refused(format, payload, property), [reason], "{format:?}");
        }
    }
    // A property that the format has no use for changes nothing.
    assert_eq!(refused(&formats[0], &json, property), []);
    assert_eq!(refused(&formats[1], &attached, Some("junk")), []);
}

#[test]
fn levels_without_signatures_read_a_cose_device_all_the_same() {
    let format = cose(&["flow_rate"]);
    let read = |payload: &[u8], length: usize| {
        let devices = vec![Device {
            format: format.clone(),
            ..device(1)
        }];
        let verifier = Verifier::new(Arc::new(with_devices(devices)), Protection::Unprotected, length);
        let topic = topic(1);
        let delivery = Delivery {
            topic: &topic,
            payload,
            retained: false,
            principal: &Principal::Anonymous,
            session: SessionId(1),
            resumed: false,
            detached: None,
        };
        let verified = verifier.verify(Unverified::new(delivery), NOW);
        verified
            .map(|message| message.into_inner().reading.channels.get("flow_rate"))
            .map_err(|refusal| refusal.reason)
    };
    let mut forged = said().cose(TagLength::Full);
    *forged.last_mut().unwrap() ^= 1;
    let length = forged.len();
    assert_eq!(read(&forged, length), Ok(Some(50.0)));
    assert_eq!(read(&forged, length - 1), Err(Reason::Oversize));
    assert_eq!(read(&forged[1..], length), Err(Reason::Malformed));
    assert_eq!(read(b"{}", length), Err(Reason::Malformed));
    let mut two_floats = Said::at(1, NOW).cose(TagLength::Short);
    assert_eq!(read(&two_floats, length), Ok(Some(50.0)));
    // An empty list of floats in place of the one: the count and the float go, and the length of
    // the payload is five less.
    let at = two_floats
        .windows(2)
        .position(|pair| pair == [0x81, 0xfa])
        .unwrap();
    two_floats.drain(at..at + 6);
    two_floats.insert(at, 0x80);
    let length_at = two_floats.iter().position(|byte| *byte == 0xa0).unwrap() + 1;
    assert_eq!(two_floats[length_at] & 0xe0, 0x40);
    two_floats[length_at] -= 5;
    assert_eq!(read(&two_floats, length), Err(Reason::BadSchema));
}
