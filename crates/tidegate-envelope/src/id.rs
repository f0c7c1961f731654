//! Names and counters of devices, each its own type so that one cannot stand in for another.

#[cfg(not(feature = "alloc"))]
mod inline;

#[cfg(feature = "alloc")]
use compact_str::CompactString as Name;
use core::fmt;
#[cfg(not(feature = "alloc"))]
use inline::Name;

/// Longest accepted name of a device, in bytes.
pub const MAX_NAME_BYTES: usize = 64;

/// A name is refused when it is empty, too long, or holds anything but `A-Z a-z 0-9 . _ -`.
///
/// The set excludes MQTT's `/ + # $`, so a name can never widen a topic filter, and every
/// character that a terminal, an HTML page or a file path could read as syntax.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not a device name: 1 to {MAX_NAME_BYTES} characters of A-Z a-z 0-9 . _ - are allowed")]
pub struct NameError {
    name: Name,
}

fn checked(name: &str) -> Result<Name, NameError> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let dots_only = name.bytes().all(|b| b == b'.');
    if name.is_empty() || dots_only || name.len() > MAX_NAME_BYTES || !name.bytes().all(legal) {
        let shown: Name = name
            .chars()
            .take(MAX_NAME_BYTES)
            .flat_map(char::escape_default)
            .collect();
        return Err(NameError { name: shown });
    }
    Ok(Name::new(name))
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Name);

        impl $name {
            /// Checks a name; see [`NameError`] for what is refused.
            pub fn new(name: &str) -> Result<Self, NameError> {
                checked(name).map(Self)
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type! {
    /// The registry's name of a device, and the identity in its certificate: `device-001`.
    DeviceId
}
name_type! {
    /// The `device_id` that a device's messages carry: `HYDROLOGIC-Device-001`.
    ///
    /// Only a registry entry says which [`DeviceId`] it belongs to.
    MessageDeviceId
}
name_type! {
    /// A zone of the building: `main_building`, `pool_spa`, `kitchen`.
    ZoneId
}

/// Position of a device in the registry: what the pipeline carries instead of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceIndex(pub u32);

/// A message's sequence number, 1 to 2^53.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sequence(u64);

impl Sequence {
    /// The largest sequence number: what a JSON number still holds exactly.
    pub const MAX: Self = Self(1 << 53);

    /// `None` when `number` is 0 or above 2^53.
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        if number == 0 || number > Self::MAX.0 {
            None
        } else {
            Some(Self(number))
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many times the publisher has started, as it says itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Boot(pub u32);

/// A device's key epoch: which of its derived keys signed a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct KeyEpoch(pub u16);

impl fmt::Display for KeyEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::SliceSink;
    use core::fmt::Write;

    #[test]
    fn names_with_topic_or_markup_characters_are_refused() {
        for bad in ["", "a/b", "#", "+", "$SYS", "<img>", "a b", "é", "..", "a\n"] {
            assert!(DeviceId::new(bad).is_err(), "{bad:?}");
        }
        let longest = [b'a'; MAX_NAME_BYTES + 1];
        let longest = core::str::from_utf8(&longest).unwrap();
        assert!(DeviceId::new(longest).is_err());
        assert_eq!(DeviceId::new(&longest[1..]).unwrap().as_str(), &longest[1..]);
        assert_eq!(DeviceId::new("device-001").unwrap().as_str(), "device-001");
    }

    #[test]
    fn names_compare_as_their_texts() {
        let name = |text| DeviceId::new(text).unwrap();
        assert!(name("a") < name("a-") && name("a-") < name("b") && name("B") < name("a"));
        assert_eq!(name("a"), name("a"));
    }

    #[test]
    fn refused_name_is_shown_without_control_characters() {
        let shown = |name: &str, expected: &str| {
            let mut buffer = [0; 256];
            let mut sink = SliceSink::new(&mut buffer);
            write!(sink, "{}", DeviceId::new(name).unwrap_err()).unwrap();
            let text = core::str::from_utf8(sink.written()).unwrap();
            assert!(text.starts_with(expected), "{text}");
        };
        shown("a\n", "`a\\n` is not a device name: 1 to 64 characters");
        shown("\u{1f600}", "`\\u{1f600}` is not");
    }

    #[test]
    fn sequence_zero_and_above_2_53_are_refused() {
        assert_eq!(Sequence::new(0), None);
        assert_eq!(Sequence::new((1 << 53) + 1), None);
        assert_eq!(Sequence::new(1 << 53), Some(Sequence::MAX));
    }
}
