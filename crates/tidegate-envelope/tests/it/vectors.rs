//! The committed vectors: canonical bytes, MAC and verdict of each.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tidegate_envelope::json::{Document, MAX_PAYLOAD_BYTES, Malformed};
use tidegate_envelope::json_v1;
use tidegate_envelope::key::MacKey;
use tidegate_envelope::reason::Reason;

const VECTORS: &str = include_str!("../../testdata/json-v1.jsonl");

#[test]
fn all_104_vectors_give_their_canonical_bytes_mac_and_verdict() {
    let mut count = 0;
    for line in VECTORS.lines() {
        let vector: Value = serde_json::from_str(line).unwrap();
        let name = vector["name"].as_str().unwrap();
        let payload = STANDARD.decode(vector["payload"].as_str().unwrap()).unwrap();
        let key = MacKey::from_bytes(vector["secret"].as_str().unwrap().as_bytes());
        let (verdict, canonical, hmac) = judge(&payload, &key);
        assert_eq!(verdict, vector["verdict"], "{name}");
        assert_eq!(canonical.as_deref(), vector["canonical"].as_str(), "{name}");
        assert_eq!(hmac.as_deref(), vector["hmac"].as_str(), "{name}");
        count += 1;
    }
    assert_eq!(count, 104);
}

fn judge(payload: &[u8], key: &MacKey) -> (&'static str, Option<String>, Option<String>) {
    let Ok(document) = Document::parse(payload) else {
        return ("malformed", None, None);
    };
    if json_v1::reading(&document).is_err_and(|error| error.reason() == Reason::Malformed) {
        return ("malformed", None, None);
    }
    let mut canonical = Vec::new();
    document.canonical(&mut canonical);
    let verdict = match document.hmac() {
        None => "missing_mac",
        Some(hmac) if key.check(&canonical, hmac) => "authentic",
        Some(_) => "bad_mac",
    };
    let mac = key.mac(&canonical).to_string();
    (verdict, Some(String::from_utf8(canonical).unwrap()), Some(mac))
}

#[test]
fn everything_that_parsers_could_read_differently_is_refused() {
    let nested = |levels: usize| format!("{{\"a\": {}{}}}", "[".repeat(levels), "]".repeat(levels));
    let refused: &[&[u8]] = &[
        br#"{"a": 1, "a": 1}"#,
        br#"{"a": 1, "\u0061": 1}"#,
        br#"{"b": {"a": 1, "c": 2, "a": 3}}"#,
        br#"{"b": [{"a": 1, "a": 3}]}"#,
        b"{\"a\": NaN}",
        b"{\"a\": Infinity}",
        b"{\"a\": 1e309}",
        b"{\"a\": -1e309}",
        br#"{"a": "\ud800"}"#,
        br#"{"a": "\udc00\ud800"}"#,
        br#"{"a": "\ud800\u0061"}"#,
        b"\xef\xbb\xbf{}",
        b"{} ",
        b"{}x",
        b"{}{}",
        b"",
        b"[]",
        b"{\"a\": \"\xff\"}",
        b"{\"a\": \"\t\"}",
        b"{\"a\": 01}",
        b"{\"a\": 1.}",
        b"{\"a\": .5}",
        b"{\"a\": +1}",
        b"{\"a\": 1,}",
        b"{'a': 1}",
        b"{\"a\"}",
        b"{\"a\": tru}",
        br#"{"hmac": 1}"#,
        br#"{"hmac": null}"#,
    ];
    for payload in refused {
        // Trailing white space is not a trailing byte: JSON text may end with it.
        let expected = *payload == b"{} ";
        assert_eq!(
            Document::parse(payload).is_ok(),
            expected,
            "{}",
            String::from_utf8_lossy(payload)
        );
    }
    assert!(Document::parse(nested(7).as_bytes()).is_ok());
    assert!(Document::parse(nested(8).as_bytes()).is_err());
    assert!(Document::parse("[".repeat(60_000).as_bytes()).is_err());
    assert!(Document::parse("{\"a\":".repeat(13_000).as_bytes()).is_err());
    for levels in [9, 1_000, 30_000, 100_000] {
        assert!(Document::parse(nested(levels).as_bytes()).is_err());
    }
    let of_length = |bytes: usize| format!("{{\"a\": \"{}\"}}", "x".repeat(bytes - 9));
    assert!(Document::parse(of_length(MAX_PAYLOAD_BYTES).as_bytes()).is_ok());
    assert_eq!(
        Document::parse(of_length(MAX_PAYLOAD_BYTES + 1).as_bytes()).unwrap_err(),
        Malformed::TooLong(MAX_PAYLOAD_BYTES + 1)
    );
}
