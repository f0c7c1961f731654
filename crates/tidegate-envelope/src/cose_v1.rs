//! cose-v1: COSE_Mac0 (RFC 9052 §6.2) for constrained links (docs/envelope.md).
//!
//! Attached, the message is one COSE_Mac0 around a short CBOR payload. Detached, the COSE_Mac0
//! travels in the MQTT 5 user property [`DETACHED_PROPERTY`], and the payload stays as it is.
//!
//! Both have one encoding only: integers, lengths and the order of members are the deterministic
//! ones of RFC 8949 §4.2.1, and floats always have 32 bits, so that all messages of a device are
//! of one length. The reader and the writer are our own: `minicbor`, which needs no allocator
//! either, takes an integer in any of its lengths and does not say which it was, so every call
//! would need a check beside it; and what is needed here is a few kinds of items in one order.

mod item;
mod mac;
mod parse;
mod write;

pub use parse::Mac0;
pub use write::{Draft, sign_detached_into, sign_into};
#[cfg(feature = "alloc")]
pub use write::{sign, sign_detached};

use crate::id::{Boot, Sequence};
use crate::reading::MAX_CHANNELS;
use crate::reason::Reason;
use crate::time::Timestamp;

/// The MQTT 5 user property that carries a COSE_Mac0 with a detached payload, in base64url
/// without padding (RFC 4648 §5).
pub const DETACHED_PROPERTY: &str = "tidegate-mac0";

/// Room that every signed message fits into, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 234;
/// Room that every COSE_Mac0 with a detached payload fits into, in bytes.
pub const MAX_DETACHED_BYTES: usize = 75;

/// The latest time that a message can carry, in milliseconds since 1970: what microseconds in 64
/// bits still hold.
pub const MAX_TIMESTAMP_MS: u64 = (i64::MAX / 1_000) as u64;

/// How much of the MAC a message carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagLength {
    /// All 32 bytes: HMAC 256/256, COSE algorithm 5 (RFC 9053 §3.1).
    Full,
    /// The first 8 bytes: HMAC 256/64, COSE algorithm 4. A forger guesses one in 2^64.
    Short,
}

impl TagLength {
    /// Length of the tag in bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Full => 32,
            Self::Short => 8,
        }
    }

    const fn algorithm(self) -> u8 {
        match self {
            Self::Full => 5,
            Self::Short => 4,
        }
    }
}

/// What tells a new message from an old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// How often the publisher has started.
    pub boot: Boot,
    /// Above every number the device has used.
    pub sequence: Sequence,
    /// When it measured. Carried in milliseconds: what lies below is cut off.
    pub timestamp: Timestamp,
}

/// Why bytes are not a cose-v1 message. Positions are bytes from the start of the COSE_Mac0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The bytes end inside an item.
    #[error("cut off after byte {0}")]
    CutOff(usize),
    /// Another item than the format has here.
    #[error("byte {at} must begin {expected}")]
    Unexpected {
        /// Where it stands.
        at: usize,
        /// What the format has here.
        expected: &'static str,
    },
    /// A number or length that was spelled longer than it needs, or a length left open.
    #[error("the number at byte {0} must have its shortest encoding (RFC 8949, 4.2.1)")]
    NotDeterministic(usize),
    /// A number outside its range.
    #[error("the number at byte {at} must be {expected}")]
    OutOfRange {
        /// Where it stands.
        at: usize,
        /// What it is, and its range.
        expected: &'static str,
    },
    /// More than [`MAX_CHANNELS`] floats.
    #[error("{0} floats, more than {MAX_CHANNELS}")]
    TooManyChannels(u64),
    /// A NaN or an infinity.
    #[error("the float at byte {0} must be finite")]
    NotFinite(usize),
    /// Something follows where the format ends.
    #[error("trailing bytes from byte {0} on")]
    Trailing(usize),
}

impl Malformed {
    /// Always `malformed`: the bytes alone show it, whatever key signed them.
    #[must_use]
    pub const fn reason(self) -> Reason {
        Reason::Malformed
    }
}

/// Why a well-formed message does not fit the device's registry entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// The message and the registry entry disagree about the channels.
    #[error("the message carries {carried} floats, but the device is registered with {registered} channels")]
    ChannelCount {
        /// How many floats the message carries.
        carried: usize,
        /// How many channels the registry entry names.
        registered: usize,
    },
    /// The registry entry names a channel twice, or by too long a name.
    #[error("the device is registered with a channel name that stands twice or is too long")]
    ChannelNames,
    /// The payload is detached, and has a format of its own.
    #[error("the payload is detached and holds no cose-v1 reading")]
    Detached,
}

impl SchemaError {
    /// Always `bad_schema`.
    #[must_use]
    pub const fn reason(self) -> Reason {
        Reason::BadSchema
    }
}

/// The text of a status byte; `None` where none is agreed on.
#[must_use]
pub const fn status_text(status: u8) -> Option<&'static str> {
    match status {
        0 => Some(""),
        1 => Some("operational"),
        2 => Some("degraded"),
        3 => Some("maintenance"),
        4 => Some("fault"),
        _ => None,
    }
}

/// The status byte of a text; `None` where none is agreed on.
#[must_use]
pub fn status_byte(text: &str) -> Option<u8> {
    (0..=4).find(|status| status_text(*status) == Some(text))
}

#[cfg(test)]
#[cfg(feature = "alloc")]
mod tests;
