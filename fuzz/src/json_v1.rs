//! json-v1: the canonical form is a fixed point, and the MAC covers every byte of it.

use std::cell::RefCell;
use tidegate_envelope::json::{Document, MAX_PAYLOAD_BYTES, Parser};
use tidegate_envelope::json_v1::{self, Draft};
use tidegate_envelope::key::MacKey;
use tidegate_envelope::reading::Reading;
use tidegate_envelope::unsigned;

const SECRET: &[u8] = b"a-secret-for-vectors-only";

thread_local! {
    /// Used for one input after the other, as a connection does.
    static PARSER: RefCell<Parser> = RefCell::default();
}

/// Takes `payload` for a message.
///
/// # Panics
/// When a property does not hold.
pub fn check(payload: &[u8]) {
    let parsed = Document::parse(payload);
    PARSER.with_borrow_mut(|parser| agrees(parser, payload, parsed.as_ref().ok()));
    let Ok(document) = parsed else { return };
    drop(unsigned::reading(&document));
    let _ = json_v1::epoch(&document);
    let reading = json_v1::reading(&document);
    let canonical = canonical(&document);
    // An escape is longer than what it stands for.
    if canonical.len() < MAX_PAYLOAD_BYTES - 100 {
        let again = Document::parse(&canonical).expect("the canonical form is JSON");
        assert!(
            self::canonical(&again) == canonical,
            "the canonical form is a fixed point"
        );
        assert_eq!(
            json_v1::reading(&again),
            reading,
            "the canonical form says the same"
        );
        signed(payload, &canonical);
    }
    if let Ok(reading) = reading {
        signs_what_it_reads(&reading);
    }
}

/// A parser with a history judges as a new one.
fn agrees(parser: &mut Parser, payload: &[u8], expected: Option<&Document<'_>>) {
    let parsed = parser.parse(payload);
    assert_eq!(
        parsed.is_ok(),
        expected.is_some(),
        "buffers that were used before change nothing"
    );
    if let (Ok(document), Some(expected)) = (parsed, expected) {
        assert_eq!(canonical(&document), canonical(expected));
    }
}

/// With its MAC the document verifies; with any byte of it changed it does not, unless it still
/// has the same canonical form, such as after a change of white space.
fn signed(payload: &[u8], canonical: &[u8]) {
    let key = MacKey::from_bytes(SECRET);
    let tag = key.mac(canonical).to_string();
    let body = &canonical[..canonical.len() - 1];
    let comma = if body == b"{" { "" } else { ", " };
    let mut message = [body, format!("{comma}\"hmac\": \"{tag}\"}}").as_bytes()].concat();
    {
        let document = Document::parse(&message).expect("one more member keeps it JSON");
        assert_eq!(
            self::canonical(&document),
            canonical,
            "the MAC is not part of what it covers"
        );
        assert!(key.check(canonical, document.hmac().expect("it was put in")));
    }
    // Which byte, and how, follows from the input, so that the fuzzer can choose.
    let seed = payload.iter().fold(payload.len(), |sum, byte| {
        sum.wrapping_mul(31) + usize::from(*byte)
    });
    let bit = 1 << (seed % 8);
    let mut altered = canonical.to_vec();
    let place = seed / 8 % altered.len();
    altered[place] ^= bit;
    assert!(!key.check(&altered, &tag), "byte {place} is not covered");
    let place = seed / 8 % message.len();
    message[place] ^= bit;
    if let Ok(document) = Document::parse(&message)
        && let Some(hmac) = document.hmac()
    {
        let altered = self::canonical(&document);
        assert!(
            !key.check(&altered, hmac) || altered == canonical,
            "byte {place} is not covered"
        );
    }
}

/// What a reading says can be signed, and reads back the same.
fn signs_what_it_reads(reading: &Reading) {
    let device = reading
        .device
        .as_ref()
        .expect("a signed message names its device");
    let draft = Draft {
        device,
        timestamp: reading.timestamp.expect("a signed message has a timestamp"),
        sequence: reading.sequence.expect("a signed message has a sequence"),
        boot: reading.boot,
        epoch: reading.epoch,
        status: &reading.status,
        channels: &reading.channels,
    };
    let key = MacKey::from_bytes(SECRET);
    let message = json_v1::sign(&draft, &key);
    let document = Document::parse(&message).expect("a signed message is JSON");
    assert_eq!(
        json_v1::reading(&document).as_ref(),
        Ok(reading),
        "it says what was signed"
    );
    assert!(key.check(&canonical(&document), document.hmac().expect("it was signed")));
}

fn canonical(document: &Document<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    document.canonical(&mut bytes);
    bytes
}
