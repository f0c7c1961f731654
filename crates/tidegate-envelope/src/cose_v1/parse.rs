//! Reading a COSE_Mac0: its one encoding, and nothing else.

use super::item::{ARRAY, EMPTY_MAP, FLOAT, FLOAT_BYTES, FRESHNESS_LABEL, NULL, Reader};
use super::{Freshness, MAX_TIMESTAMP_MS, Malformed, TagLength, mac};
#[cfg(feature = "alloc")]
use super::{SchemaError, status_text};
use crate::id::{Boot, KeyEpoch, Sequence};
use crate::key::{MacKey, Tag};
use crate::reading::MAX_CHANNELS;
#[cfg(feature = "alloc")]
use crate::reading::{Channels, Reading};
use crate::time::Timestamp;
#[cfg(feature = "alloc")]
use alloc::vec::Vec;
#[cfg(feature = "alloc")]
use compact_str::{CompactString, format_compact};
use subtle::ConstantTimeEq;

/// A parsed COSE_Mac0, which borrows from the message. Whether it is authentic is not yet said.
#[derive(Debug, Clone, Copy)]
pub struct Mac0<'m> {
    protected: &'m [u8],
    payload: &'m [u8],
    tag: &'m [u8],
    length: TagLength,
    epoch: KeyEpoch,
    freshness: Freshness,
    measured: Option<Measured<'m>>,
}

/// What an attached payload says beside its freshness.
#[derive(Debug, Clone, Copy)]
struct Measured<'m> {
    status: u8,
    /// Floats of 32 bits with their heads.
    floats: &'m [u8],
}

impl<'m> Mac0<'m> {
    /// Reads a message of the attached form: a COSE_Mac0 with its payload inside.
    pub fn parse(message: &'m [u8]) -> Result<Self, Malformed> {
        let mut outer = Reader::new(message);
        let header = Header::read(&mut outer, 0xa2, "a map of 2")?;
        header.contents.end()?;
        let payload = outer.byte_string("the payload, a byte string")?;
        let (freshness, measured) = reading(payload)?;
        Ok(Self {
            protected: header.protected,
            payload: payload.rest(),
            tag: tag(outer, header.length)?,
            length: header.length,
            epoch: header.epoch,
            freshness,
            measured: Some(measured),
        })
    }

    /// Reads a COSE_Mac0 with a detached payload (RFC 9052 §2): `structure` is what the user
    /// property holds, after base64url, and `payload` the MQTT message's payload.
    pub fn parse_detached(structure: &'m [u8], payload: &'m [u8]) -> Result<Self, Malformed> {
        let mut outer = Reader::new(structure);
        let mut header = Header::read(&mut outer, 0xa3, "a map of 3")?;
        for byte in FRESHNESS_LABEL {
            header.contents.exactly(byte, "the label -70001")?;
        }
        header.contents.exactly(0x83, "an array of 3")?;
        let freshness = freshness(&mut header.contents)?;
        header.contents.end()?;
        outer.exactly(NULL, "null, as the payload is detached")?;
        Ok(Self {
            protected: header.protected,
            payload,
            tag: tag(outer, header.length)?,
            length: header.length,
            epoch: header.epoch,
            freshness,
            measured: None,
        })
    }

    /// The key epoch that it names.
    #[must_use]
    pub fn epoch(&self) -> KeyEpoch {
        self.epoch
    }

    /// What tells it from an older message.
    #[must_use]
    pub fn freshness(&self) -> Freshness {
        self.freshness
    }

    /// How much of the MAC it carries.
    #[must_use]
    pub fn tag_length(&self) -> TagLength {
        self.length
    }

    /// The tag, if the message carries this key's MAC for this topic; a short tag is filled up
    /// with zeros.
    ///
    /// Takes the same time wherever the first difference lies. A false yes lets a forged message
    /// in; a false no loses a reading.
    #[must_use]
    pub fn verified(&self, key: &MacKey, topic: &str) -> Option<Tag> {
        let mut claimed = Tag([0; 32]);
        claimed.0[..self.tag.len()].copy_from_slice(self.tag);
        let expected = mac::tag(key, self.length, self.protected, topic, self.payload);
        bool::from(expected.ct_eq(&claimed)).then_some(expected)
    }

    /// The status byte of an attached payload; see [`super::status_text`].
    #[must_use]
    pub fn status(&self) -> Option<u8> {
        self.measured.map(|measured| measured.status)
    }

    /// The floats of an attached payload, finite and at most [`MAX_CHANNELS`]. A detached one has
    /// none.
    pub fn values(&self) -> impl ExactSizeIterator<Item = f32> + use<'m> {
        let floats = self.measured.map_or(&[][..], |measured| measured.floats);
        floats
            .as_chunks::<FLOAT_BYTES>()
            .0
            .iter()
            .map(|[_, a, b, c, d]| f32::from_be_bytes([*a, *b, *c, *d]))
    }

    /// What an attached payload says, with the names that the device's registry entry has for the
    /// floats, in their order. The reading names no device: the topic does.
    #[cfg(feature = "alloc")]
    pub fn reading(&self, channels: &[CompactString]) -> Result<Reading, SchemaError> {
        let status = self.status().ok_or(SchemaError::Detached)?;
        let floats = self.values();
        if floats.len() != channels.len() {
            return Err(SchemaError::ChannelCount {
                carried: floats.len(),
                registered: channels.len(),
            });
        }
        let values: Vec<_> = channels.iter().cloned().zip(floats.map(f64::from)).collect();
        Ok(Reading {
            device: None,
            timestamp: Some(self.freshness.timestamp),
            sequence: Some(self.freshness.sequence),
            boot: Some(self.freshness.boot),
            epoch: Some(self.epoch),
            status: match status_text(status) {
                Some(text) => CompactString::const_new(text),
                None => format_compact!("status {status}"),
            },
            channels: Channels::new(values).ok_or(SchemaError::ChannelNames)?,
        })
    }
}

/// The front of both forms.
struct Header<'m> {
    protected: &'m [u8],
    length: TagLength,
    epoch: KeyEpoch,
    /// What follows in the protected header.
    contents: Reader<'m>,
}

impl<'m> Header<'m> {
    /// `map` begins the protected header's map.
    fn read(outer: &mut Reader<'m>, map: u8, expected: &'static str) -> Result<Self, Malformed> {
        outer.exactly(0x84, "an array of 4 without a tag")?;
        let mut contents = outer.byte_string("the protected header, a byte string")?;
        let protected = contents.rest();
        contents.exactly(map, expected)?;
        contents.exactly(0x01, "the label 1, alg")?;
        let at = contents.position();
        let length = match contents.unsigned(5, "5 or 4, the algorithm")? {
            5 => TagLength::Full,
            4 => TagLength::Short,
            _ => {
                return Err(Malformed::OutOfRange {
                    at,
                    expected: "5 or 4, the algorithm",
                });
            }
        };
        contents.exactly(0x04, "the label 4, kid")?;
        contents.exactly(0x42, "a kid of 2 bytes")?;
        let epoch = KeyEpoch(u16::from_be_bytes(contents.array()?));
        outer.exactly(EMPTY_MAP, "the unprotected header, an empty map")?;
        Ok(Self {
            protected,
            length,
            epoch,
            contents,
        })
    }
}

fn freshness(reader: &mut Reader<'_>) -> Result<Freshness, Malformed> {
    let boot = reader.unsigned(u32::MAX.into(), "a boot of 32 bits")?;
    let at = reader.position();
    let expected = "a sequence from 1 to 2^53";
    let sequence = reader.unsigned(Sequence::MAX.get(), expected)?;
    let timestamp_ms = reader.unsigned(MAX_TIMESTAMP_MS, "a time in milliseconds since 1970")?;
    Ok(Freshness {
        boot: Boot(boot as u32),
        sequence: Sequence::new(sequence).ok_or(Malformed::OutOfRange { at, expected })?,
        timestamp: Timestamp::from_micros(timestamp_ms as i64 * 1_000),
    })
}

/// The payload of the attached form.
fn reading(mut payload: Reader<'_>) -> Result<(Freshness, Measured<'_>), Malformed> {
    payload.exactly(0x85, "an array of 5")?;
    let freshness = freshness(&mut payload)?;
    let status = payload.unsigned(u8::MAX.into(), "a status of 8 bits")? as u8;
    let count = payload.head(ARRAY, "an array of floats")?;
    if count > MAX_CHANNELS as u64 {
        return Err(Malformed::TooManyChannels(count));
    }
    let floats = payload.rest();
    for _ in 0..count {
        let at = payload.position();
        payload.exactly(FLOAT, "a float of 32 bits")?;
        if !f32::from_be_bytes(payload.array()?).is_finite() {
            return Err(Malformed::NotFinite(at));
        }
    }
    payload.end()?;
    Ok((freshness, Measured { status, floats }))
}

/// The last item: as long as the algorithm says.
fn tag(mut outer: Reader<'_>, length: TagLength) -> Result<&[u8], Malformed> {
    let at = outer.position();
    let tag = outer.byte_string("the tag, a byte string")?.rest();
    if tag.len() != length.bytes() {
        return Err(Malformed::OutOfRange {
            at,
            expected: "the length of the algorithm's tag",
        });
    }
    outer.end()?;
    Ok(tag)
}
