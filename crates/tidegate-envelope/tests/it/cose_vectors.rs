//! The committed cose-v1 vectors, which pycose signed: each has its verdict, and what it says.

use compact_str::CompactString;
use serde_json::Value;
use tidegate_envelope::cose_v1::{
    Draft, Freshness, Mac0, Malformed, TagLength, sign, sign_detached, status_text,
};
use tidegate_envelope::id::{Boot, KeyEpoch, Sequence};
use tidegate_envelope::key::MacKey;
use tidegate_envelope::time::Timestamp;

const VECTORS: &str = include_str!("../../testdata/cose-v1.jsonl");
const CHANNELS: [&str; 5] = [
    "pressure_upstream",
    "pressure_downstream",
    "flow_rate",
    "gate_a_position",
    "gate_b_position",
];

struct Vector {
    name: String,
    topic: String,
    key: MacKey,
    message: Vec<u8>,
    /// Of the detached form.
    payload: Option<Vec<u8>>,
    verdict: String,
    said: Value,
}

impl Vector {
    fn read(line: &str) -> Self {
        let value: Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| value[name].as_str().unwrap().to_owned();
        let bytes = |name: &str| hex::decode(text(name)).unwrap();
        let payload = (text("form") == "detached").then(|| {
            let mut payload = bytes("payload");
            if let Some(length) = value["payload_padded_to"].as_u64() {
                payload.resize(length as usize, b' ');
            }
            payload
        });
        Self {
            name: text("name"),
            topic: text("topic"),
            key: MacKey::from_bytes(&bytes("key")),
            message: bytes("message"),
            payload,
            verdict: text("verdict"),
            said: value["said"].clone(),
        }
    }

    fn parse(&self) -> Result<Mac0<'_>, Malformed> {
        match &self.payload {
            Some(payload) => Mac0::parse_detached(&self.message, payload),
            None => Mac0::parse(&self.message),
        }
    }

    fn judge(&self) -> &'static str {
        let Ok(mac0) = self.parse() else {
            return "malformed";
        };
        let channels = CHANNELS.map(CompactString::new);
        match mac0.verified(&self.key, &self.topic) {
            None => "bad_mac",
            Some(_) if self.payload.is_none() && mac0.reading(&channels).is_err() => "bad_schema",
            Some(_) => "authentic",
        }
    }

    fn number(&self, name: &str) -> u64 {
        self.said[name].as_u64().unwrap()
    }

    /// What is said here, signed by Tidegate.
    fn sign(&self, length: TagLength) -> Vec<u8> {
        let epoch = KeyEpoch(self.number("epoch") as u16);
        let freshness = self.freshness();
        let Some(payload) = &self.payload else {
            let draft = Draft {
                epoch,
                boot: freshness.boot,
                sequence: freshness.sequence,
                timestamp: freshness.timestamp,
                status: self.number("status") as u8,
                values: &self.values(),
            };
            return sign(&draft, length, &self.key, &self.topic).unwrap();
        };
        sign_detached(freshness, epoch, length, &self.key, &self.topic, payload).unwrap()
    }

    fn freshness(&self) -> Freshness {
        Freshness {
            boot: Boot(self.number("boot") as u32),
            sequence: Sequence::new(self.number("sequence")).unwrap(),
            timestamp: Timestamp::from_micros(self.number("timestamp_ms") as i64 * 1_000),
        }
    }

    fn values(&self) -> Vec<f32> {
        let values = self.said["values"].as_array().unwrap();
        values
            .iter()
            .map(|value| value.as_f64().unwrap() as f32)
            .collect()
    }
}

#[test]
fn all_113_vectors_of_pycose_have_their_verdict() {
    let mut counts = [
        ("authentic", 0),
        ("bad_mac", 0),
        ("bad_schema", 0),
        ("malformed", 0),
    ];
    for line in VECTORS.lines() {
        let vector = Vector::read(line);
        assert_eq!(
            vector.judge(),
            vector.verdict,
            "{}: {:?}",
            vector.name,
            vector.parse()
        );
        let count = counts.iter_mut().find(|(verdict, _)| *verdict == vector.verdict);
        count.unwrap().1 += 1;
    }
    assert_eq!(
        counts,
        [
            ("authentic", 26),
            ("bad_mac", 21),
            ("bad_schema", 3),
            ("malformed", 63)
        ]
    );
}

#[test]
fn authentic_vectors_say_what_pycose_was_told_and_tidegate_signs_the_same_bytes() {
    let vectors = VECTORS.lines().map(Vector::read);
    for vector in vectors.filter(|vector| vector.verdict == "authentic") {
        let name = &vector.name;
        let mac0 = vector.parse().unwrap();
        assert_eq!(u64::from(mac0.epoch().0), vector.number("epoch"), "{name}");
        assert_eq!(mac0.freshness(), vector.freshness(), "{name}");
        assert_eq!(vector.sign(mac0.tag_length()), vector.message, "{name}");
        if vector.payload.is_none() {
            let reading = mac0.reading(&CHANNELS.map(CompactString::new)).unwrap();
            for (channel, value) in CHANNELS.iter().zip(vector.values()) {
                let read = reading.channels.get(channel).unwrap();
                assert_eq!(read.to_bits(), f64::from(value).to_bits(), "{name}: {channel}");
            }
            let status = vector.number("status") as u8;
            let text = status_text(status).map_or_else(|| format!("status {status}"), str::to_owned);
            assert_eq!(reading.status, text, "{name}");
        }
    }
}
