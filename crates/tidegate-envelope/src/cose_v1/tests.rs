//! Bytes of both forms, and what lies one step away from each.

use super::item::{Head, UNSIGNED};
use super::*;
use crate::id::KeyEpoch;
use crate::key::MacKey;
use crate::reading::Channels;
use alloc::vec::Vec;
use alloc::{format, vec};
use compact_str::CompactString;

const TOPIC: &str = "hydroficient/grandmarina/device-001/sensors";
const VALUES: [f32; 5] = [60.12, 55.7, 50.0, 45.3, 44.9];
const EPOCH: KeyEpoch = KeyEpoch(1);

fn key() -> MacKey {
    MacKey::from_bytes(&[7; 32])
}

fn fresh() -> Freshness {
    Freshness {
        boot: Boot(3),
        sequence: Sequence::new(70_000).unwrap(),
        timestamp: Timestamp::from_micros(1_771_472_105_551_000),
    }
}

fn draft() -> Draft<'static> {
    Draft {
        epoch: EPOCH,
        boot: fresh().boot,
        sequence: fresh().sequence,
        timestamp: fresh().timestamp,
        status: 1,
        values: &VALUES,
    }
}

fn attached(length: TagLength) -> Vec<u8> {
    sign(&draft(), length, &key(), TOPIC).unwrap()
}

const PAYLOAD: &[u8] = br#"{"payload": {"pressure_psi": 60.12}}"#;

fn detached(length: TagLength) -> Vec<u8> {
    sign_detached(fresh(), EPOCH, length, &key(), TOPIC, PAYLOAD).unwrap()
}

/// Everything of the attached message before its tag, as docs/envelope.md shows it.
const ATTACHED: &str = "84 47 a2 01 05 04 42 00 01 a0 58 2b \
     85 03 1a 00 01 11 70 1b 00 00 01 9c 73 f7 30 4f 01 \
     85 fa 42 70 7a e1 fa 42 5e cc cd fa 42 48 00 00 fa 42 35 33 33 fa 42 33 99 9a";
const DETACHED: &str = "84 58 1c a3 01 05 04 42 00 01 3a 00 01 11 70 \
     83 03 1a 00 01 11 70 1b 00 00 01 9c 73 f7 30 4f a0 f6";
const TAG: &str = " 58 20 0000000000000000000000000000000000000000000000000000000000000000";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let mut bytes = vec![0; digits.len() / 2];
    hex::decode_to_slice(digits, &mut bytes).unwrap();
    bytes
}

#[test]
fn both_forms_have_the_documented_bytes() {
    for (form, signed, short) in [
        (ATTACHED, attached(TagLength::Full), attached(TagLength::Short)),
        (DETACHED, detached(TagLength::Full), detached(TagLength::Short)),
    ] {
        let front = bytes(form);
        assert_eq!(signed[..front.len()], front);
        assert_eq!(signed[front.len()..][..2], [0x58, 0x20]);
        assert_eq!(signed.len(), front.len() + 34);
        let algorithm = front.iter().position(|byte| *byte == 0x05).unwrap();
        let mut front = front;
        front[algorithm] = 0x04;
        assert_eq!(short[..front.len()], front);
        assert_eq!(short[front.len()], 0x48);
        assert_eq!(short.len(), front.len() + 9);
    }
    assert_eq!(attached(TagLength::Full).len(), 89);
    assert_eq!(attached(TagLength::Short).len(), 64);
}

#[test]
fn longest_messages_fit_their_rooms_exactly_and_not_one_byte_less() {
    let longest = Draft {
        epoch: KeyEpoch(u16::MAX),
        boot: Boot(u32::MAX),
        sequence: Sequence::MAX,
        timestamp: Timestamp::from_micros(i64::MAX),
        status: u8::MAX,
        values: &[f32::MAX; MAX_CHANNELS],
    };
    let mut out = [0; MAX_MESSAGE_BYTES];
    let into = |out: &mut [u8]| sign_into(&longest, TagLength::Full, &key(), TOPIC, out);
    assert_eq!(into(&mut out), Some(MAX_MESSAGE_BYTES));
    let parsed = Mac0::parse(&out).unwrap();
    assert_eq!(parsed.values().len(), MAX_CHANNELS);
    assert_eq!(
        parsed.freshness().timestamp.as_millis(),
        MAX_TIMESTAMP_MS.cast_signed()
    );
    let freshness = parsed.freshness();
    for room in 0..MAX_MESSAGE_BYTES {
        assert_eq!(into(&mut out[..room]), None);
    }
    let mut out = [0; MAX_DETACHED_BYTES];
    let into = |out: &mut [u8]| {
        sign_detached_into(freshness, longest.epoch, TagLength::Full, &key(), TOPIC, b"", out)
    };
    assert_eq!(into(&mut out), Some(MAX_DETACHED_BYTES));
    assert!(Mac0::parse_detached(&out, b"").is_ok());
    for room in 0..MAX_DETACHED_BYTES {
        assert_eq!(into(&mut out[..room]), None);
    }
}

#[test]
fn drafts_that_the_format_cannot_carry_are_not_signed() {
    let signs = |draft: Draft<'_>| sign(&draft, TagLength::Full, &key(), TOPIC).is_some();
    let with = |values| Draft { values, ..draft() };
    assert!(signs(with(&[0.0; MAX_CHANNELS])));
    assert!(!signs(with(&[0.0; MAX_CHANNELS + 1])));
    assert!(signs(with(&[])));
    assert!(signs(with(&[f32::MIN, -0.0])));
    assert!(!signs(with(&[0.0, f32::NAN])));
    assert!(!signs(with(&[f32::INFINITY])));
    for (micros, expected) in [(0, true), (-1, false), (i64::MIN, false), (i64::MAX, true)] {
        let timestamp = Timestamp::from_micros(micros);
        assert_eq!(signs(Draft { timestamp, ..draft() }), expected, "{micros}");
        let freshness = Freshness { timestamp, ..fresh() };
        let detached = sign_detached(freshness, EPOCH, TagLength::Short, &key(), TOPIC, b"");
        assert_eq!(detached.is_some(), expected, "{micros}");
    }
}

#[test]
fn time_below_a_millisecond_is_cut_off() {
    let timestamp = Timestamp::from_micros(1_999);
    let message = sign(&Draft { timestamp, ..draft() }, TagLength::Full, &key(), TOPIC).unwrap();
    let carried = Mac0::parse(&message).unwrap().freshness().timestamp;
    assert_eq!(carried, Timestamp::from_micros(1_000));
}

/// Replaces `from`, which stands there exactly once, and says how that parses.
fn edited(form: &str, from: &str, to: &str) -> Result<(), Malformed> {
    let whole = format!("{form}{TAG}");
    assert_eq!(whole.matches(from).count(), 1, "{from}");
    let message = bytes(&whole.replace(from, to));
    if form == ATTACHED {
        Mac0::parse(&message).map(drop)
    } else {
        Mac0::parse_detached(&message, PAYLOAD).map(drop)
    }
}

fn unexpected(at: usize) -> impl Fn(Malformed) -> bool {
    move |error| matches!(error, Malformed::Unexpected { at: found, .. } if found == at)
}

fn out_of_range(at: usize) -> impl Fn(Malformed) -> bool {
    move |error| matches!(error, Malformed::OutOfRange { at: found, .. } if found == at)
}

fn is(expected: Malformed) -> impl Fn(Malformed) -> bool {
    move |error| error == expected
}

/// An edit, and what the error must be.
type Edit<'a> = (&'a str, &'a str, &'a dyn Fn(Malformed) -> bool);

fn refuse(form: &str, edits: &[Edit<'_>]) {
    assert_eq!(edited(form, "84 ", "84 "), Ok(()));
    for (from, to, is_expected) in edits {
        let error = edited(form, from, to).expect_err(to);
        assert!(is_expected(error), "{from} -> {to}: {error}");
        assert_eq!(error.reason(), Reason::Malformed);
    }
}

#[test]
fn attached_message_one_step_from_right_is_malformed() {
    const SEQUENCE: &str = "1a 00 01 11 70";
    const TIME: &str = "1b 00 00 01 9c 73 f7 30 4f";
    refuse(
        ATTACHED,
        &[
            // The array, and a tag in front of it.
            ("84 47", "d1 84 47", &unexpected(0)),
            ("84 47", "83 47", &unexpected(0)),
            ("84 47", "9f 47", &unexpected(0)),
            ("84 47", "98 04 47", &unexpected(0)),
            // The protected header: kind, length, count and order of members.
            ("47 a2", "67 a2", &unexpected(1)),
            ("47 a2", "58 07 a2", &is(Malformed::NotDeterministic(1))),
            ("47 a2", "5f a2", &is(Malformed::NotDeterministic(1))),
            ("47 a2", "46 a2", &is(Malformed::CutOff(8))),
            ("47 a2", "a2", &unexpected(1)),
            ("a2 01", "a1 01", &unexpected(2)),
            ("a2 01", "b8 02 01", &unexpected(2)),
            ("a2 01 05 04 42 00 01", "a2 04 42 00 01 01 05", &unexpected(3)),
            ("01 05 04", "01 06 04", &out_of_range(4)),
            ("01 05 04", "01 03 04", &out_of_range(4)),
            ("01 05 04", "01 26 04", &unexpected(4)),
            ("04 42 00 01 a0", "05 42 00 01 a0", &unexpected(5)),
            (
                "47 a2 01 05 04 42 00 01 a0",
                "46 a2 01 05 04 41 01 a0",
                &unexpected(6),
            ),
            (
                "47 a2 01 05 04 42 00 01 a0",
                "48 a2 01 05 04 43 00 00 01 a0",
                &unexpected(6),
            ),
            (
                "47 a2 01 05 04 42 00 01 a0",
                "48 a2 01 05 04 42 00 01 00 a0",
                &is(Malformed::Trailing(9)),
            ),
            // The unprotected header.
            ("a0 58 2b", "a1 01 05 58 2b", &unexpected(9)),
            ("a0 58 2b", "40 58 2b", &unexpected(9)),
            // The payload: kind and length.
            ("58 2b 85", "59 00 2b 85", &is(Malformed::NotDeterministic(10))),
            ("58 2b 85", "5f 58 2b 85", &is(Malformed::NotDeterministic(10))),
            ("58 2b 85", "78 2b 85", &unexpected(10)),
            ("58 2b 85", "58 2a 85", &is(Malformed::CutOff(54))),
            ("58 2b 85", "58 2c 85", &is(Malformed::Trailing(55))),
            ("58 2b 85", "58 ff 85", &is(Malformed::CutOff(89))),
            (
                "58 2b 85",
                "5b ff ff ff ff ff ff ff ff 85",
                &is(Malformed::CutOff(96)),
            ),
            ("58 2b 85", "5c 85", &unexpected(10)),
            (&ATTACHED[30..], " f6", &unexpected(10)),
            // The payload's items.
            ("2b 85 03", "2b 84 03", &unexpected(12)),
            ("2b 85 03", "2b 86 03", &unexpected(12)),
            ("2b 85 03", "2c 85 18 03", &is(Malformed::NotDeterministic(13))),
            ("2b 85 03", "2b 85 23", &unexpected(13)),
            ("2b 85 03", "2b 85 f5", &unexpected(13)),
            ("2b 85 03", "33 85 1b 00 00 00 01 00 00 00 00", &out_of_range(13)),
            (SEQUENCE, "1a 00 00 ff ff", &is(Malformed::NotDeterministic(14))),
            (SEQUENCE, "3a 00 01 11 70", &unexpected(14)),
            (SEQUENCE, "fa 00 01 11 70", &unexpected(14)),
            (TIME, "3b 00 00 01 9c 73 f7 30 4f", &unexpected(19)),
            (TIME, "fb 00 00 01 9c 73 f7 30 4f", &unexpected(19)),
            (
                TIME,
                "1b 00 00 00 00 73 f7 30 4f",
                &is(Malformed::NotDeterministic(19)),
            ),
            (TIME, "1b 00 20 c4 9b a5 e3 53 f8", &out_of_range(19)),
            ("4f 01", "4f 20", &unexpected(28)),
            ("4f 01", "4f f6", &unexpected(28)),
            // The floats: count, width, value.
            ("01 85 fa", "01 84 fa", &is(Malformed::Trailing(50))),
            ("01 85 fa", "01 86 fa", &is(Malformed::CutOff(55))),
            ("01 85 fa", "01 9f fa", &is(Malformed::NotDeterministic(29))),
            ("01 85 fa", "01 a5 fa", &unexpected(29)),
            ("fa 42 48 00 00", "f9 52 40 00 00", &unexpected(40)),
            ("fa 42 48 00 00", "1a 42 48 00 00", &unexpected(40)),
            ("fa 42 48 00 00", "fb 42 48 00 00", &unexpected(40)),
            ("fa 42 48 00 00", "fa 7f 80 00 00", &is(Malformed::NotFinite(40))),
            ("fa 42 48 00 00", "fa ff 80 00 00", &is(Malformed::NotFinite(40))),
            ("fa 42 48 00 00", "fa 7f c0 00 00", &is(Malformed::NotFinite(40))),
            // The tag.
            ("58 20 00", "58 21 00 00", &out_of_range(55)),
            ("58 20 00", "58 1f", &out_of_range(55)),
            ("58 20 00", "59 00 20 00", &is(Malformed::NotDeterministic(55))),
            ("58 20 00", "78 20 00", &unexpected(55)),
            ("58 20 00", "58 20", &is(Malformed::CutOff(88))),
            ("58 20 00", "58 20 00 00", &is(Malformed::Trailing(89))),
            ("01 05 04", "01 04 04", &out_of_range(55)),
        ],
    );
}

#[test]
fn numbers_at_the_edges_of_their_ranges_are_taken_and_beyond_refused() {
    let numbers = |boot: &str, sequence: &str, time: &str, status: &str| {
        let body = bytes(&format!("85 {boot} {sequence} {time} {status} 80"));
        let length = Head::new(2, body.len() as u64);
        let mut message = bytes("84 47 a2 01 05 04 42 00 01 a0");
        message.extend_from_slice(length.as_bytes());
        message.extend_from_slice(&body);
        message.extend_from_slice(&bytes(TAG));
        Mac0::parse(&message).map(drop)
    };
    for (boot, sequence, time, status) in [
        ("00", "01", "00", "00"),
        (
            "1a ff ff ff ff",
            "1b 00 20 00 00 00 00 00 00",
            "1b 00 20 c4 9b a5 e3 53 f7",
            "18 ff",
        ),
    ] {
        assert_eq!(numbers(boot, sequence, time, status), Ok(()));
    }
    for (boot, sequence, time, status) in [
        ("1b 00 00 00 01 00 00 00 00", "01", "00", "00"),
        ("00", "00", "00", "00"),
        ("00", "1b 00 20 00 00 00 00 00 01", "00", "00"),
        ("00", "1b ff ff ff ff ff ff ff ff", "00", "00"),
        ("00", "01", "1b 00 20 c4 9b a5 e3 53 f8", "00"),
        ("00", "01", "1b ff ff ff ff ff ff ff ff", "00"),
        ("00", "01", "00", "19 01 00"),
    ] {
        let error = numbers(boot, sequence, time, status).unwrap_err();
        assert!(matches!(error, Malformed::OutOfRange { .. }), "{error}");
    }
}

#[test]
fn thirty_two_floats_are_taken_and_one_more_is_malformed() {
    let floats = |count: usize| {
        let mut body = bytes("85 00 01 00 00 98");
        body.push(count as u8);
        body.extend((0..count).flat_map(|_| [0xfa, 0, 0, 0, 0]));
        let mut message = bytes("84 47 a2 01 05 04 42 00 01 a0 58");
        message.push(body.len() as u8);
        message.extend_from_slice(&body);
        message.extend_from_slice(&bytes(TAG));
        Mac0::parse(&message).map(|mac0| mac0.values().len())
    };
    assert_eq!(floats(MAX_CHANNELS), Ok(MAX_CHANNELS));
    assert_eq!(
        floats(MAX_CHANNELS + 1),
        Err(Malformed::TooManyChannels(MAX_CHANNELS as u64 + 1))
    );
}

#[test]
fn detached_structure_one_step_from_right_is_malformed() {
    refuse(
        DETACHED,
        &[
            ("84 58", "d1 84 58", &unexpected(0)),
            ("58 1c a3", "58 1b a3", &unexpected(30)),
            ("58 1c a3", "58 1d a3", &unexpected(32)),
            ("58 1c a3", "58 1c a2", &unexpected(3)),
            ("3a 00 01 11 70", "3a 00 01 11 71", &unexpected(14)),
            ("3a 00 01 11 70", "1a 00 01 11 70", &unexpected(10)),
            ("83 03", "82 03", &unexpected(15)),
            ("83 03", "84 03", &unexpected(15)),
            ("83 03 1a", "83 03 3a", &unexpected(17)),
            ("a0 f6", "a1 01 05 f6", &unexpected(31)),
            ("a0 f6", "a0 f7", &unexpected(32)),
            ("a0 f6", "a0 40", &unexpected(32)),
            ("58 20 00", "58 20 00 00", &is(Malformed::Trailing(67))),
            ("01 05 04", "01 04 04", &out_of_range(33)),
        ],
    );
    // Neither form passes for the other.
    assert!(Mac0::parse(&detached(TagLength::Full)).is_err());
    assert!(Mac0::parse_detached(&attached(TagLength::Full), b"").is_err());
}

#[test]
fn message_cut_off_anywhere_is_refused() {
    for length in [TagLength::Full, TagLength::Short] {
        let (attached, detached) = (attached(length), detached(length));
        for end in 0..attached.len() {
            assert!(Mac0::parse(&attached[..end]).is_err(), "{end}");
        }
        for end in 0..detached.len() {
            assert!(Mac0::parse_detached(&detached[..end], PAYLOAD).is_err(), "{end}");
        }
    }
}

/// Calls `refused` with every copy of `bytes` that differs in one bit.
fn flips(bytes: &[u8], mut refused: impl FnMut(&[u8])) {
    let mut flipped = bytes.to_vec();
    for bit in 0..bytes.len() * 8 {
        flipped[bit / 8] ^= 1 << (bit % 8);
        refused(&flipped);
        flipped[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn no_bit_of_a_signed_message_can_be_flipped() {
    let key = key();
    for length in [TagLength::Full, TagLength::Short] {
        let message = attached(length);
        let tag = Mac0::parse(&message).unwrap().verified(&key, TOPIC).unwrap();
        assert_eq!(tag.0[..length.bytes()], message[message.len() - length.bytes()..]);
        assert!(tag.0[length.bytes()..].iter().all(|byte| *byte == 0));
        flips(&message, |flipped| {
            assert!(Mac0::parse(flipped).map_or(true, |mac0| mac0.verified(&key, TOPIC).is_none()));
        });

        let structure = detached(length);
        let verified = |structure: &[u8], payload: &[u8]| {
            Mac0::parse_detached(structure, payload).is_ok_and(|mac0| mac0.verified(&key, TOPIC).is_some())
        };
        assert!(verified(&structure, PAYLOAD));
        flips(&structure, |flipped| assert!(!verified(flipped, PAYLOAD)));
        flips(PAYLOAD, |flipped| assert!(!verified(&structure, flipped)));
        assert!(!verified(&structure, &PAYLOAD[1..]));
        assert!(!verified(&structure, b""));
    }
}

#[test]
fn message_on_another_topic_or_under_another_key_is_refused() {
    let (message, structure) = (attached(TagLength::Short), detached(TagLength::Short));
    for mac0 in [
        Mac0::parse(&message).unwrap(),
        Mac0::parse_detached(&structure, PAYLOAD).unwrap(),
    ] {
        assert_eq!((mac0.epoch(), mac0.freshness()), (EPOCH, fresh()));
        assert_eq!(mac0.tag_length(), TagLength::Short);
        assert!(mac0.verified(&key(), TOPIC).is_some());
        assert!(mac0.verified(&key(), &TOPIC.replace("001", "002")).is_none());
        assert!(mac0.verified(&key(), "").is_none());
        assert!(mac0.verified(&MacKey::from_bytes(&[8; 32]), TOPIC).is_none());
    }
}

#[test]
fn reading_has_the_registered_names_and_every_field() {
    let names = |names: &[&str]| -> Vec<CompactString> { names.iter().map(|name| (*name).into()).collect() };
    let order = names(&["pressure_upstream", "pressure_downstream", "flow_rate", "b", "a"]);
    let message = attached(TagLength::Full);
    let mac0 = Mac0::parse(&message).unwrap();
    assert_eq!(mac0.status(), Some(1));
    let reading = mac0.reading(&order).unwrap();
    assert_eq!(reading.device, None);
    assert_eq!(reading.boot, Some(fresh().boot));
    assert_eq!(reading.sequence, Some(fresh().sequence));
    assert_eq!(reading.timestamp, Some(fresh().timestamp));
    assert_eq!(reading.epoch, Some(EPOCH));
    assert_eq!(reading.status, "operational");
    let pairs = order.iter().cloned().zip(VALUES.map(f64::from)).collect();
    assert_eq!(reading.channels, Channels::new(pairs).unwrap());

    let count = |registered| SchemaError::ChannelCount {
        carried: 5,
        registered,
    };
    assert_eq!(mac0.reading(&order[1..]), Err(count(4)));
    assert_eq!(mac0.reading(&[&order[..], &order[..1]].concat()), Err(count(6)));
    assert_eq!(
        mac0.reading(&names(&["a", "b", "c", "d", "a"])),
        Err(SchemaError::ChannelNames)
    );
    assert_eq!(count(4).reason(), Reason::BadSchema);
    let structure = detached(TagLength::Full);
    let detached = Mac0::parse_detached(&structure, PAYLOAD).unwrap();
    assert_eq!(detached.reading(&[]), Err(SchemaError::Detached));
    assert_eq!((detached.status(), detached.values().len()), (None, 0));
}

#[test]
fn status_bytes_and_texts_lead_to_each_other() {
    for (byte, text) in [
        (0, ""),
        (1, "operational"),
        (2, "degraded"),
        (3, "maintenance"),
        (4, "fault"),
    ] {
        assert_eq!((status_text(byte), status_byte(text)), (Some(text), Some(byte)));
    }
    assert_eq!((status_text(5), status_byte("Fault")), (None, None));
    let message = sign(&Draft { status: 5, ..draft() }, TagLength::Full, &key(), TOPIC).unwrap();
    let names = ["a", "b", "c", "d", "e"].map(CompactString::new);
    assert_eq!(
        Mac0::parse(&message).unwrap().reading(&names).unwrap().status,
        "status 5"
    );
}

#[test]
fn heads_have_the_shortest_form_at_every_boundary() {
    for (number, expected) in [
        (0, "00"),
        (23, "17"),
        (24, "18 18"),
        (0xff, "18 ff"),
        (0x100, "19 01 00"),
        (0xffff, "19 ff ff"),
        (0x1_0000, "1a 00 01 00 00"),
        (0xffff_ffff, "1a ff ff ff ff"),
        (0x1_0000_0000, "1b 00 00 00 01 00 00 00 00"),
        (u64::MAX, "1b ff ff ff ff ff ff ff ff"),
    ] {
        let head = Head::new(UNSIGNED, number);
        assert_eq!(
            (head.as_bytes(), head.len()),
            (&bytes(expected)[..], bytes(expected).len())
        );
        let mut reader = item::Reader::new(head.as_bytes());
        assert_eq!(reader.head(UNSIGNED, ""), Ok(number));
        assert_eq!(reader.end(), Ok(()));
    }
    for longer in [
        "18 17",
        "19 00 ff",
        "1a 00 00 ff ff",
        "1b 00 00 00 00 ff ff ff ff",
        "1f",
    ] {
        assert_eq!(
            item::Reader::new(&bytes(longer)).head(UNSIGNED, ""),
            Err(Malformed::NotDeterministic(0)),
            "{longer}"
        );
    }
}
