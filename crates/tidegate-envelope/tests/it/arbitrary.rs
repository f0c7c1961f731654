//! Whatever comes: no panic, and a canonical form that is its own canonical form.

use proptest::prelude::*;
use tidegate_envelope::json::{Document, Parser};
use tidegate_envelope::{json_v1, unsigned};

fn canonical(payload: &[u8]) -> Option<Vec<u8>> {
    let once = Document::parse(payload);
    // A parser that has just failed in the middle of another message judges no differently.
    let mut parser = Parser::new();
    assert!(parser.parse(br#"{"hmac": "x", "a\n": [1, {"b\t": "#).is_err());
    assert_eq!(parser.parse(payload).err(), once.as_ref().err().cloned());
    let document = once.ok()?;
    // Neither may panic, whatever the document holds.
    drop(json_v1::reading(&document));
    drop(unsigned::reading(&document));
    let mut out = Vec::new();
    document.canonical(&mut out);
    Some(out)
}

/// Bytes that look like JSON often enough to get deep into the parser.
fn nearly_json() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop_oneof![
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just(","),
        Just(":"),
        Just("\"a\""),
        Just("\"hmac\""),
        Just("\"sequence\""),
        Just("\"timestamp\""),
        Just("\"readings\""),
        Just("\"\\ud83d\\ude00\""),
        Just("\"\\u00e9"),
        Just("\""),
        Just("\\"),
        Just("-0"),
        Just("1e5"),
        Just("0.10"),
        Just("60.12"),
        Just("9007199254740993"),
        Just("true"),
        Just("null"),
        Just(" "),
        Just("é"),
        Just("\"2026-01-01T00:00:00Z\""),
    ];
    prop::collection::vec(pieces, 0..40).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        canonical(&bytes);
    }

    #[test]
    fn canonical_form_is_its_own_canonical_form(bytes in nearly_json()) {
        if let Some(once) = canonical(&bytes) {
            prop_assert_eq!(canonical(&once), Some(once));
        }
    }
}
