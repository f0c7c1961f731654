//! cose-v1 over generated input: what was signed reads back, and nothing has two encodings.

use proptest::prelude::*;
use tidegate_envelope::cose_v1::{Draft, Freshness, Mac0, Malformed, TagLength, sign, sign_detached};
use tidegate_envelope::id::{Boot, KeyEpoch, Sequence};
use tidegate_envelope::key::MacKey;
use tidegate_envelope::reading::MAX_CHANNELS;
use tidegate_envelope::time::Timestamp;

/// The parts of one message.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) epoch: KeyEpoch,
    pub(crate) freshness: Freshness,
    pub(crate) status: u8,
    pub(crate) values: Vec<f32>,
    pub(crate) length: TagLength,
    pub(crate) topic: String,
    pub(crate) secret: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

impl Parts {
    fn key(&self) -> MacKey {
        MacKey::from_bytes(&self.secret)
    }

    pub(crate) fn attached(&self) -> Vec<u8> {
        let draft = Draft {
            epoch: self.epoch,
            boot: self.freshness.boot,
            sequence: self.freshness.sequence,
            timestamp: self.freshness.timestamp,
            status: self.status,
            values: &self.values,
        };
        sign(&draft, self.length, &self.key(), &self.topic).unwrap()
    }

    pub(crate) fn detached(&self) -> Vec<u8> {
        let (key, topic, payload) = (self.key(), &self.topic, &self.payload);
        sign_detached(self.freshness, self.epoch, self.length, &key, topic, payload).unwrap()
    }
}

/// Numbers of every length, small ones as often as large ones.
fn number(most: u64) -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..64_u32).prop_map(move |(number, shift)| (number >> shift).min(most))
}

pub(crate) fn parts() -> impl Strategy<Value = Parts> {
    let freshness = (
        number(u32::MAX.into()),
        number(Sequence::MAX.get() - 1),
        number(i64::MAX as u64 / 1_000),
    );
    let freshness = freshness.prop_map(|(boot, sequence, timestamp_ms)| Freshness {
        boot: Boot(boot as u32),
        sequence: Sequence::new(sequence + 1).unwrap(),
        timestamp: Timestamp::from_micros(timestamp_ms as i64 * 1_000),
    });
    let float = any::<u32>()
        .prop_map(f32::from_bits)
        .prop_filter("finite", |value| value.is_finite());
    (
        any::<u16>().prop_map(KeyEpoch),
        freshness,
        any::<u8>(),
        prop::collection::vec(float, 0..=MAX_CHANNELS),
        prop_oneof![Just(TagLength::Full), Just(TagLength::Short)],
        "[a-zé/]{0,60}",
        // pycose takes keys of 16, 24 and 32 bytes only.
        prop::collection::vec(any::<u8>(), 32),
        prop::collection::vec(any::<u8>(), 0..300),
    )
        .prop_map(
            |(epoch, freshness, status, values, length, topic, secret, payload)| Parts {
                epoch,
                freshness,
                status,
                values,
                length,
                topic,
                secret,
                payload,
            },
        )
}

/// What parsed, written again with another tag.
fn rewritten(mac0: &Mac0<'_>, payload: Option<&[u8]>) -> Vec<u8> {
    let parts = Parts {
        epoch: mac0.epoch(),
        freshness: mac0.freshness(),
        status: mac0.status().unwrap_or(0),
        values: mac0.values().collect(),
        length: mac0.tag_length(),
        topic: String::new(),
        secret: vec![0],
        payload: payload.unwrap_or_default().to_vec(),
    };
    match payload {
        Some(_) => parts.detached(),
        None => parts.attached(),
    }
}

/// Whatever parses is what would be written, but for the tag.
fn has_one_encoding(message: &[u8], payload: Option<&[u8]>) -> Result<(), TestCaseError> {
    let parsed: Result<Mac0<'_>, Malformed> = match payload {
        Some(payload) => Mac0::parse_detached(message, payload),
        None => Mac0::parse(message),
    };
    if let Ok(mac0) = parsed {
        let again = rewritten(&mac0, payload);
        let front = message.len() - mac0.tag_length().bytes();
        prop_assert_eq!(again.len(), message.len());
        prop_assert_eq!(&again[..front], &message[..front]);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_signed_reads_back_and_verifies_nowhere_else(parts in parts()) {
        let (attached, detached) = (parts.attached(), parts.detached());
        let mac0 = Mac0::parse(&attached).unwrap();
        prop_assert_eq!(mac0.status(), Some(parts.status));
        prop_assert_eq!(mac0.values().map(f32::to_bits).collect::<Vec<_>>(), parts.values.iter().map(|value| value.to_bits()).collect::<Vec<_>>());
        for mac0 in [mac0, Mac0::parse_detached(&detached, &parts.payload).unwrap()] {
            prop_assert_eq!((mac0.epoch(), mac0.freshness(), mac0.tag_length()), (parts.epoch, parts.freshness, parts.length));
            prop_assert!(mac0.verified(&parts.key(), &parts.topic).is_some());
            let elsewhere = parts.topic.clone() + "a";
            prop_assert!(mac0.verified(&parts.key(), &elsewhere).is_none());
            let other = [&parts.secret[..], b"x"].concat();
            prop_assert!(mac0.verified(&MacKey::from_bytes(&other), &parts.topic).is_none());
        }
    }

    #[test]
    fn changed_message_is_refused_or_has_one_encoding(parts in parts(), edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..4)) {
        for (mut message, payload) in [(parts.attached(), None), (parts.detached(), Some(&parts.payload[..]))] {
            let right = message.clone();
            for (place, byte, kind) in &edits {
                let place = place.index(message.len());
                match kind {
                    0 => message[place] = *byte,
                    1 => message.insert(place, *byte),
                    _ => drop(message.remove(place)),
                }
            }
            has_one_encoding(&message, payload)?;
            let parsed = match payload {
                Some(payload) => Mac0::parse_detached(&message, payload),
                None => Mac0::parse(&message),
            };
            let verified = parsed.is_ok_and(|mac0| mac0.verified(&parts.key(), &parts.topic).is_some());
            prop_assert_eq!(verified, message == right);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        has_one_encoding(&bytes, None)?;
        has_one_encoding(&bytes, Some(b"{}"))?;
    }
}
