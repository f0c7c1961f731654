//! The time from the gateway, signed, for a device without a clock (docs/envelope.md).
//!
//! The device asks with a random nonce, and the gateway answers with the time and a MAC over both;
//! so an old answer cannot be passed off as a new one. The idea is that of Echo (RFC 9175 §2).
//!
//! An answer has one spelling only. So a device checks it by comparing, without an allocator and
//! without a JSON parser.

use crate::id::{DeviceId, KeyEpoch};
#[cfg(feature = "alloc")]
use crate::json::{Document, Member};
#[cfg(feature = "alloc")]
use crate::key::from_lower_hex;
use crate::key::{MacKey, Tag};
use crate::sink::SliceSink;
use crate::time::Timestamp;
#[cfg(feature = "alloc")]
use alloc::{string::String, vec::Vec};
use core::fmt::{self, Write};
use subtle::ConstantTimeEq;

/// Length of a nonce in bytes.
pub const NONCE_BYTES: usize = 16;
/// Length of a question in bytes.
pub const REQUEST_BYTES: usize = 44;
/// Room that every answer fits into, in bytes.
pub const MAX_ANSWER_BYTES: usize = 167;

/// What is signed begins so. No json-v1 or cose-v1 message does, so none can stand in for another.
const CONTEXT: &[u8] = b"tidegate/v1 time";
/// Length of a time text in an answer, for the years 0 to 9999.
const TIME_BYTES: usize = 27;
const TAG_DIGITS: usize = 64;

/// 16 random bytes, new for every question. Shown in lower-case hex.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nonce(pub [u8; NONCE_BYTES]);

impl Nonce {
    fn digits(&self) -> [u8; NONCE_BYTES * 2] {
        let mut digits = [0; NONCE_BYTES * 2];
        hex::encode_to_slice(self.0, &mut digits).expect("two digits for each byte");
        digits
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(core::str::from_utf8(&self.digits()).map_err(|_| fmt::Error)?)
    }
}

/// The question, to be published on the device's `time` topic: `{"nonce":"<32 digits>"}`.
#[must_use]
pub fn request_bytes(nonce: &Nonce) -> [u8; REQUEST_BYTES] {
    let mut request = *b"{\"nonce\":\"00000000000000000000000000000000\"}";
    request[10..10 + NONCE_BYTES * 2].copy_from_slice(&nonce.digits());
    request
}

/// As [`request_bytes`].
#[cfg(feature = "alloc")]
#[must_use]
pub fn request(nonce: &Nonce) -> Vec<u8> {
    request_bytes(nonce).into()
}

/// The nonce of a question: a JSON object of any spelling whose one member is `nonce`, with 32
/// lower-case hex digits. `None` for anything else.
#[cfg(feature = "alloc")]
#[must_use]
pub fn parse_request(request: &[u8]) -> Option<Nonce> {
    let document = Document::parse(request).ok()?;
    let mut members = document.members().iter();
    match (members.next()?, members.next()) {
        (("nonce", Member::Text(digits)), None) => from_lower_hex(digits).map(Nonce),
        _ => None,
    }
}

/// The answer to a question, for the device's `commands` topic:
/// `{"kid":E,"nonce":"…","time":"…","hmac":"…"}`.
#[cfg(feature = "alloc")]
#[must_use]
pub fn answer(nonce: &Nonce, device: &DeviceId, time: Timestamp, epoch: KeyEpoch, key: &MacKey) -> Vec<u8> {
    let mut out = String::with_capacity(MAX_ANSWER_BYTES);
    write_answer(nonce, device, time, epoch, key, &mut out).expect("a string takes everything");
    out.into_bytes()
}

/// The time in an answer, if it is the one to the question with this nonce, for this device, and
/// signed with its key of this epoch. A MAC is compared in constant time.
///
/// The caller forgets the nonce once it has been answered, or has stood open for too long: the
/// time is as wrong as the answer was under way. A false yes sets the device's clock wrong, so
/// that its readings are refused; a false no makes it ask again.
#[must_use]
pub fn check_answer(
    answer: &[u8],
    nonce: &Nonce,
    device: &DeviceId,
    epoch: KeyEpoch,
    key: &MacKey,
) -> Option<Timestamp> {
    let mut front = [0; MAX_ANSWER_BYTES];
    let mut sink = SliceSink::new(&mut front);
    write_front(nonce, epoch, &mut sink).ok()?;
    let rest = answer.strip_prefix(sink.written())?;
    let (text, rest) = rest.split_at_checked(TIME_BYTES)?;
    let (digits, rest) = rest
        .strip_prefix(BEFORE_TAG.as_bytes())?
        .split_at_checked(TAG_DIGITS)?;
    if rest != END.as_bytes() {
        return None;
    }
    let text = core::str::from_utf8(text).ok()?;
    let time = Timestamp::parse_rfc3339(text)?;
    let claimed = Tag::from_hex(core::str::from_utf8(digits).ok()?)?;
    bool::from(tag(nonce, device, text, key).ct_eq(&claimed)).then_some(time)
}

const BEFORE_TAG: &str = "\",\"hmac\":\"";
const END: &str = "\"}";

fn write_front(nonce: &Nonce, epoch: KeyEpoch, out: &mut impl Write) -> fmt::Result {
    write!(out, "{{\"kid\":{epoch},\"nonce\":\"{nonce}\",\"time\":\"")
}

#[cfg(feature = "alloc")]
fn write_answer(
    nonce: &Nonce,
    device: &DeviceId,
    time: Timestamp,
    epoch: KeyEpoch,
    key: &MacKey,
    out: &mut String,
) -> fmt::Result {
    write_front(nonce, epoch, out)?;
    let start = out.len();
    write!(out, "{time}")?;
    let tag = tag(nonce, device, &out[start..], key);
    write!(out, "{BEFORE_TAG}{tag}{END}")
}

/// The MAC over context, device, nonce and time as they are written, with a byte 00 between them,
/// which none of them can hold.
fn tag(nonce: &Nonce, device: &DeviceId, time: &str, key: &MacKey) -> Tag {
    let mut mac = key.start();
    mac.update(CONTEXT);
    for part in [device.as_str().as_bytes(), &nonce.digits(), time.as_bytes()] {
        mac.update(&[0]);
        mac.update(part);
    }
    mac.finish()
}

#[cfg(test)]
#[cfg(feature = "alloc")]
mod tests {
    use super::*;
    use alloc::vec;

    const NONCE: Nonce = Nonce(*b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\xff");
    const EPOCH: KeyEpoch = KeyEpoch(3);
    /// Python: `hmac.new(b"key", b"tidegate/v1 time\0device-001\0" + nonce.encode() + b"\0" +
    /// time.encode(), "sha256").hexdigest()`.
    const ANSWER: &str = r#"{"kid":3,"nonce":"000102030405060708090a0b0c0d0eff","time":"2026-02-19T03:35:05.551904Z","hmac":"fa67d50f2023678bb0929b3232f646fb288b1ef73a6b26c4487ad907aad1b628"}"#;

    fn device() -> DeviceId {
        DeviceId::new("device-001").unwrap()
    }

    fn key() -> MacKey {
        MacKey::from_bytes(b"key")
    }

    fn check(answer: &[u8]) -> Option<Timestamp> {
        check_answer(answer, &NONCE, &device(), EPOCH, &key())
    }

    #[test]
    fn answer_is_the_one_that_python_computes_and_gives_its_time() {
        let time = Timestamp::from_micros(1_771_472_105_551_904);
        let answer = answer(&NONCE, &device(), time, EPOCH, &key());
        assert_eq!(core::str::from_utf8(&answer), Ok(ANSWER));
        assert_eq!(check(&answer), Some(time));
    }

    #[test]
    fn answer_with_any_bit_flipped_is_refused() {
        for bit in 0..ANSWER.len() * 8 {
            let mut flipped = ANSWER.as_bytes().to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(check(&flipped), None, "bit {bit}");
        }
        for length in 0..ANSWER.len() {
            assert_eq!(check(&ANSWER.as_bytes()[..length]), None, "{length} bytes");
        }
        let mut longer = ANSWER.as_bytes().to_vec();
        longer.push(b' ');
        assert_eq!(check(&longer), None);
    }

    #[test]
    fn answer_to_another_question_device_epoch_or_key_is_refused() {
        let answer = ANSWER.as_bytes();
        let other = Nonce([7; 16]);
        let stranger = DeviceId::new("device-002").unwrap();
        assert_eq!(check_answer(answer, &other, &device(), EPOCH, &key()), None);
        assert_eq!(check_answer(answer, &NONCE, &stranger, EPOCH, &key()), None);
        assert_eq!(check_answer(answer, &NONCE, &device(), KeyEpoch(4), &key()), None);
        let wrong = MacKey::from_bytes(b"kez");
        assert_eq!(check_answer(answer, &NONCE, &device(), EPOCH, &wrong), None);
    }

    #[test]
    fn longest_answer_has_the_stated_length() {
        let time = Timestamp::from_micros(0);
        let longest = answer(&NONCE, &device(), time, KeyEpoch(u16::MAX), &key());
        assert_eq!(longest.len(), MAX_ANSWER_BYTES);
        assert_eq!(
            check_answer(&longest, &NONCE, &device(), KeyEpoch(u16::MAX), &key()),
            Some(time)
        );
    }

    #[test]
    fn question_gives_its_nonce_and_one_step_away_is_refused() {
        let right = request(&NONCE);
        assert_eq!(parse_request(&right), Some(NONCE));
        assert_eq!(
            parse_request(b" {\"nonce\" : \"000102030405060708090a0b0c0d0eff\"}\n"),
            Some(NONCE)
        );
        let text = core::str::from_utf8(&right).unwrap();
        for wrong in [
            text.replace("0eff", "0eFF"),
            text.replace("0eff", "0ef"),
            text.replace("0eff", "0eff0"),
            text.replace("0eff", "0eff00"),
            text.replace("0eff", "0efg"),
            text.replace("nonce", "Nonce"),
            text.replace("{", "{\"a\":1,"),
            text.replace("}", ",\"z\":1}"),
            text.replace("}", "}x"),
            text.replace("\"000102030405060708090a0b0c0d0eff\"", "1"),
        ] {
            assert_eq!(parse_request(wrong.as_bytes()), None, "{wrong}");
        }
        for wrong in [vec![], b"{}".to_vec(), b"[]".to_vec()] {
            assert_eq!(parse_request(&wrong), None);
        }
    }
}
