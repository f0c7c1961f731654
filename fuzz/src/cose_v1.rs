//! cose-v1 and the time answers: what is read has one encoding, and the MAC covers every byte.

use std::sync::LazyLock;
use tidegate_envelope::cose_v1::{self, Draft, Mac0, SchemaError};
use tidegate_envelope::id::{DeviceId, KeyEpoch};
use tidegate_envelope::key::{MacKey, RootKey};
use tidegate_envelope::time_echo::{self, Nonce};

const TOPIC: &str = "site/device-001/sensors";
/// Begins an input of the detached form; then the length of the structure, it, and the payload.
const DETACHED: u8 = 0xd0;
/// Begins an input that is taken for a question or an answer about the time.
const TIME: u8 = 0xe0;

struct Sender {
    device: DeviceId,
    key: MacKey,
}

static SENDER: LazyLock<Sender> = LazyLock::new(|| {
    let device = DeviceId::new("device-001").expect("a sound name");
    let key = MacKey::derive(&RootKey::from_bytes([9; 32]), &device, KeyEpoch(0));
    Sender { device, key }
});

/// Takes `bytes` for a message; the first byte may say that they are something else.
///
/// # Panics
/// When a property does not hold.
pub fn check(bytes: &[u8]) {
    match bytes {
        [DETACHED, length, rest @ ..] => {
            let (structure, payload) = rest.split_at(usize::from(*length).min(rest.len()));
            detached(structure, payload);
        }
        [TIME, rest @ ..] => time(rest),
        _ => attached(bytes),
    }
}

fn attached(bytes: &[u8]) {
    let Ok(message) = Mac0::parse(bytes) else { return };
    let values: Vec<_> = message.values().collect();
    let freshness = message.freshness();
    let draft = Draft {
        epoch: message.epoch(),
        boot: freshness.boot,
        sequence: freshness.sequence,
        timestamp: freshness.timestamp,
        status: message.status().expect("an attached payload has a status"),
        values: &values,
    };
    let key = &SENDER.key;
    let signed = cose_v1::sign(&draft, message.tag_length(), key, TOPIC).expect("what is read can be said");
    let tag = message.tag_length().bytes();
    assert_eq!(bytes.len(), signed.len(), "there is one encoding");
    assert_eq!(
        bytes[..bytes.len() - tag],
        signed[..signed.len() - tag],
        "there is one encoding"
    );
    assert!(
        message.verified(key, TOPIC).is_none() || bytes == signed,
        "one tag is right"
    );

    let again = Mac0::parse(&signed).expect("a signed message can be read");
    assert!(again.verified(key, TOPIC).is_some());
    assert!(
        again.verified(key, "site/device-002/sensors").is_none(),
        "the MAC covers the topic"
    );
    one_bit_off(bytes, &signed, |altered| {
        Mac0::parse(altered).is_ok_and(|message| message.verified(key, TOPIC).is_some())
    });

    let names = |count: usize| {
        (0..count)
            .map(|name| format!("c{name}").into())
            .collect::<Vec<_>>()
    };
    let reading = message
        .reading(&names(values.len()))
        .expect("as many names as floats");
    assert_eq!(reading.channels.len(), values.len());
    assert_eq!(reading.sequence, Some(freshness.sequence));
    let one_more = message.reading(&names(values.len() + 1));
    assert!(matches!(one_more, Err(SchemaError::ChannelCount { .. })));
}

fn detached(structure: &[u8], payload: &[u8]) {
    let Ok(message) = Mac0::parse_detached(structure, payload) else {
        return;
    };
    let (key, length) = (&SENDER.key, message.tag_length());
    let sign = |payload: &[u8]| {
        cose_v1::sign_detached(message.freshness(), message.epoch(), length, key, TOPIC, payload)
    };
    let signed = sign(payload).expect("what is read can be said");
    assert_eq!(structure.len(), signed.len(), "there is one encoding");
    let body = structure.len() - length.bytes();
    assert_eq!(structure[..body], signed[..body], "there is one encoding");

    let holds = |structure: &[u8], payload: &[u8]| {
        Mac0::parse_detached(structure, payload).is_ok_and(|message| message.verified(key, TOPIC).is_some())
    };
    assert!(holds(&signed, payload));
    one_bit_off(structure, &signed, |altered| holds(altered, payload));
    one_bit_off(structure, payload, |altered| holds(&signed, altered));
}

/// Which bit, follows from the input, so that the fuzzer can choose.
fn one_bit_off(input: &[u8], genuine: &[u8], holds: impl Fn(&[u8]) -> bool) {
    if genuine.is_empty() {
        return;
    }
    let seed = input
        .iter()
        .fold(input.len(), |sum, byte| sum.wrapping_mul(31) + usize::from(*byte));
    let mut altered = genuine.to_vec();
    let place = seed / 8 % altered.len();
    altered[place] ^= 1 << (seed % 8);
    assert!(!holds(&altered), "byte {place} is not covered");
}

fn time(bytes: &[u8]) {
    if let Some(nonce) = time_echo::parse_request(bytes) {
        let again = time_echo::request(&nonce);
        assert_eq!(time_echo::parse_request(&again), Some(nonce));
    }
    let Sender { device, key } = &*SENDER;
    let nonce = Nonce([7; 16]);
    if let Some(time) = time_echo::check_answer(bytes, &nonce, device, KeyEpoch(0), key) {
        let answer = time_echo::answer(&nonce, device, time, KeyEpoch(0), key);
        assert_eq!(bytes, answer, "an answer has one spelling");
        one_bit_off(bytes, &answer, |altered| {
            time_echo::check_answer(altered, &nonce, device, KeyEpoch(0), key).is_some()
        });
    }
}
