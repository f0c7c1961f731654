//! Temporary micro-timing.
use std::hint::black_box;
use std::time::Instant;
use tidegate_envelope::json::Document;
use tidegate_envelope::json_v1;
use tidegate_envelope::key::MacKey;

const INDENTED: &str = "{\n  \"device_id\": \"HYDROLOGIC-Device-001\",\n  \"timestamp\": \"2026-02-19T03:35:05.551904Z\",\n  \"sequence\": 7,\n  \"readings\": {\n    \"pressure_upstream\": 60.12,\n    \"pressure_downstream\": 55.7,\n    \"flow_rate\": 50.0,\n    \"gate_a_position\": 45.3,\n    \"gate_b_position\": 44.9\n  },\n  \"status\": \"operational\",\n  \"hmac\": \"a25339877179947f38a220264a3a698536701978b9234f81e91b074cc3b917a8\"\n}";

fn best(name: &str, mut f: impl FnMut()) {
    let mut best = f64::MAX;
    for _ in 0..30 {
        let n = 20_000;
        let t = Instant::now();
        for _ in 0..n { f(); }
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
    best("parse", || { black_box(Document::parse(black_box(bytes)).unwrap()); });
    best("canonical", || { out.clear(); black_box(&document).canonical(&mut out); black_box(&out); });
    best("mac", || { black_box(key.mac(black_box(&canonical))); });
    best("check", || { assert!(key.check(black_box(&canonical), black_box(&hex))); });
    best("schema", || { black_box(json_v1::reading(black_box(&document)).unwrap()); });
    best("timestamp", || { black_box(tidegate_envelope::time::Timestamp::parse_rfc3339(black_box("2026-02-19T03:35:05.551904Z"))); });
    best("all", || {
        let document = Document::parse(black_box(bytes)).unwrap();
        let reading = json_v1::reading(&document).unwrap();
        out.clear();
        document.canonical(&mut out);
        assert!(key.check(&out, document.hmac().unwrap()));
        black_box(reading);
    });
}
