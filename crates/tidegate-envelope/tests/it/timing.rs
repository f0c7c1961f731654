//! Temporary micro-timing.
use std::hint::black_box;
use std::time::Instant;
use tidegate_envelope::json::{Document, Parser};
use tidegate_envelope::json_v1;
use tidegate_envelope::key::MacKey;

const INDENTED: &str = "{\n  \"device_id\": \"HYDROLOGIC-Device-001\",\n  \"timestamp\": \"2026-02-19T03:35:05.551904Z\",\n  \"sequence\": 7,\n  \"readings\": {\n    \"pressure_upstream\": 60.12,\n    \"pressure_downstream\": 55.7,\n    \"flow_rate\": 50.0,\n    \"gate_a_position\": 45.3,\n    \"gate_b_position\": 44.9\n  },\n  \"status\": \"operational\",\n  \"hmac\": \"a25339877179947f38a220264a3a698536701978b9234f81e91b074cc3b917a8\"\n}";

fn best(name: &str, mut f: impl FnMut()) {
    let mut best = f64::MAX;
    for _ in 0..30 {
        let n = 20_000;
        let t = Instant::now();
        for _ in 0..n {
            f();
        }
        best = best.min(t.elapsed().as_nanos() as f64 / f64::from(n));
    }
    println!("{name:24} {best:8.1} ns");
}

#[test]
#[ignore = "timing"]
fn timing() {
    let bytes = INDENTED.as_bytes();
    println!("payload {} bytes", bytes.len());
    let key = MacKey::from_bytes(b"a-secret-for-vectors-only");
    let document = Document::parse(bytes).unwrap();
    let mut out = Vec::new();
    document.canonical(&mut out);
    let canonical = out.clone();
    println!("canonical {} bytes", canonical.len());
    let hex = document.hmac().unwrap().to_owned();
    best("parse", || {
        black_box(Document::parse(black_box(bytes)).unwrap());
    });
    let mut parser = Parser::new();
    best("parse reused", || {
        black_box(parser.parse(black_box(bytes)).unwrap());
    });
    let compact = INDENTED
        .replace("\n    ", "")
        .replace("\n  ", "")
        .replace('\n', "");
    println!("compact {} bytes", compact.len());
    best("parse compact", || {
        black_box(parser.parse(black_box(compact.as_bytes())).unwrap());
    });
    let mut sorted = Vec::new();
    document.canonical(&mut sorted);
    best("parse sorted, no hmac", || {
        black_box(parser.parse(black_box(&sorted)).unwrap());
    });
    best("parse only text", || {
        black_box(
            parser
                .parse(black_box(
                    br#"{"a": "a25339877179947f38a220264a3a698536701978b9234f81e91b074cc3b917a8"}"#,
                ))
                .unwrap(),
        );
    });
    best("parse 12 numbers", || {
        black_box(
            parser
                .parse(black_box(
                    br#"{"a": [60.12, 55.7, 50.0, 45.3, 44.9, 60.12, 55.7, 50.0, 45.3, 44.9, 1.5, 1.25]}"#,
                ))
                .unwrap(),
        );
    });
    best("parse empty", || {
        black_box(parser.parse(black_box(b"{}")).unwrap());
    });
    best("from_hex", || {
        black_box(tidegate_envelope::key::Tag::from_hex(black_box(&hex)));
    });
    best("device id", || {
        black_box(tidegate_envelope::id::MessageDeviceId::new(black_box("HYDROLOGIC-Device-001")).ok());
    });
    let reading = json_v1::reading(&document).unwrap();
    best("sign", || {
        black_box(json_v1::sign(
            &json_v1::Draft {
                device: reading.device.as_ref().unwrap(),
                timestamp: reading.timestamp.unwrap(),
                sequence: reading.sequence.unwrap(),
                boot: None,
                epoch: None,
                status: "operational",
                channels: &reading.channels,
            },
            &key,
        ));
    });
    let blocks = [[7_u8; 64]; 5];
    let mut state = [1_u32; 8];
    best("sha 5+1 blocks", || {
        sha2::block_api::compress256(&mut state, black_box(&blocks));
        sha2::block_api::compress256(&mut state, black_box(&blocks[..1]));
        black_box(&state);
    });
    best("utf8", || {
        black_box(core::str::from_utf8(black_box(bytes)).unwrap());
    });
    best("canonical", || {
        out.clear();
        black_box(&document).canonical(&mut out);
        black_box(&out);
    });
    best("mac", || {
        black_box(key.mac(black_box(&canonical)));
    });
    best("check", || {
        assert!(key.check(black_box(&canonical), black_box(&hex)));
    });
    best("schema", || {
        black_box(json_v1::reading(black_box(&document)).unwrap());
    });
    best("timestamp", || {
        black_box(tidegate_envelope::time::Timestamp::parse_rfc3339(black_box(
            "2026-02-19T03:35:05.551904Z",
        )));
    });
    best("all", || {
        let document = parser.parse(black_box(bytes)).unwrap();
        let reading = json_v1::reading(&document).unwrap();
        out.clear();
        document.canonical(&mut out);
        assert!(key.check(&out, document.hmac().unwrap()));
        black_box(reading);
    });
}

#[test]
#[ignore = "timing"]
fn only_parse() {
    let mut parser = Parser::new();
    for _ in 0..6_000_000 {
        black_box(parser.parse(black_box(INDENTED.as_bytes())).unwrap());
    }
}
