//! Heads of CBOR data items (RFC 8949 §3), in their shortest form only.

use super::Malformed;

pub(super) const UNSIGNED: u8 = 0;
pub(super) const BYTES: u8 = 2;
pub(super) const ARRAY: u8 = 4;

/// The label of [`Freshness`](super::Freshness) in a protected header: -70001, in the range for
/// private use (RFC 9052 §11.1).
pub(super) const FRESHNESS_LABEL: [u8; 5] = [0x3a, 0x00, 0x01, 0x11, 0x70];
/// An empty map.
pub(super) const EMPTY_MAP: u8 = 0xa0;
/// `null`: COSE's payload that is detached.
pub(super) const NULL: u8 = 0xf6;
/// A float of 32 bits follows.
pub(super) const FLOAT: u8 = 0xfa;
/// A float of 32 bits with its head.
pub(super) const FLOAT_BYTES: usize = 5;

/// The head of an item with its argument.
#[derive(Clone, Copy)]
pub(super) struct Head {
    bytes: [u8; 9],
    length: u8,
}

impl Head {
    pub(super) const fn new(major: u8, argument: u64) -> Self {
        let [b0, b1, b2, b3, b4, b5, b6, b7] = argument.to_be_bytes();
        let (bytes, length) = match argument {
            0..=23 => ([major << 5 | b7, 0, 0, 0, 0, 0, 0, 0, 0], 1),
            24..=0xff => ([major << 5 | 24, b7, 0, 0, 0, 0, 0, 0, 0], 2),
            0x100..=0xffff => ([major << 5 | 25, b6, b7, 0, 0, 0, 0, 0, 0], 3),
            0x1_0000..=0xffff_ffff => ([major << 5 | 26, b4, b5, b6, b7, 0, 0, 0, 0], 5),
            _ => ([major << 5 | 27, b0, b1, b2, b3, b4, b5, b6, b7], 9),
        };
        Self { bytes, length }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    pub(super) const fn len(&self) -> usize {
        self.length as usize
    }
}

/// Reads items from the front. Positions are those of the outermost bytes.
#[derive(Clone, Copy)]
pub(super) struct Reader<'m> {
    bytes: &'m [u8],
    at: usize,
}

impl<'m> Reader<'m> {
    pub(super) fn new(bytes: &'m [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Exactly this byte.
    pub(super) fn exactly(&mut self, byte: u8, expected: &'static str) -> Result<(), Malformed> {
        match self.bytes.get(self.at) {
            Some(found) if *found == byte => {
                self.at += 1;
                Ok(())
            }
            Some(_) => Err(Malformed::Unexpected {
                at: self.at,
                expected,
            }),
            None => Err(Malformed::CutOff(self.at)),
        }
    }

    /// The argument of an item of this major type.
    pub(super) fn head(&mut self, major: u8, expected: &'static str) -> Result<u64, Malformed> {
        let at = self.at;
        let [first] = self.array()?;
        if first >> 5 != major {
            return Err(Malformed::Unexpected { at, expected });
        }
        // Each longer form must hold what the next shorter one cannot.
        let (argument, least) = match first & 0x1f {
            argument @ 0..=23 => return Ok(u64::from(argument)),
            24 => (u64::from(u8::from_be_bytes(self.array()?)), 24),
            25 => (u64::from(u16::from_be_bytes(self.array()?)), 1 << 8),
            26 => (u64::from(u32::from_be_bytes(self.array()?)), 1 << 16),
            27 => (u64::from_be_bytes(self.array()?), 1 << 32),
            31 => return Err(Malformed::NotDeterministic(at)),
            // 28 to 30 mean nothing yet.
            _ => return Err(Malformed::Unexpected { at, expected }),
        };
        if argument < least {
            return Err(Malformed::NotDeterministic(at));
        }
        Ok(argument)
    }

    /// An unsigned integer of at most `most`.
    pub(super) fn unsigned(&mut self, most: u64, expected: &'static str) -> Result<u64, Malformed> {
        let at = self.at;
        let number = self.head(UNSIGNED, expected)?;
        if number > most {
            return Err(Malformed::OutOfRange { at, expected });
        }
        Ok(number)
    }

    /// A byte string, as a reader of what is in it.
    pub(super) fn byte_string(&mut self, expected: &'static str) -> Result<Reader<'m>, Malformed> {
        let length = self.head(BYTES, expected)?;
        let start = self.at;
        let end = usize::try_from(length)
            .ok()
            .and_then(|length| start.checked_add(length))
            .filter(|end| *end <= self.bytes.len())
            .ok_or(Malformed::CutOff(self.bytes.len()))?;
        self.at = end;
        Ok(Reader {
            bytes: &self.bytes[..end],
            at: start,
        })
    }

    /// The next bytes, whatever they are.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let found = self.bytes[self.at..]
            .first_chunk()
            .ok_or(Malformed::CutOff(self.bytes.len()))?;
        self.at += N;
        Ok(*found)
    }

    /// What has not been read yet.
    pub(super) fn rest(&self) -> &'m [u8] {
        &self.bytes[self.at..]
    }

    /// Nothing is left.
    pub(super) fn end(&self) -> Result<(), Malformed> {
        if self.at < self.bytes.len() {
            return Err(Malformed::Trailing(self.at));
        }
        Ok(())
    }
}
