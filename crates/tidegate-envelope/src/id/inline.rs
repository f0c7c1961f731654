//! A name where there is no allocator: as many bytes as the longest one takes.

use super::MAX_NAME_BYTES;
use core::fmt;
use core::ops::Deref;

/// A text of at most [`MAX_NAME_BYTES`]; what is longer is cut off. The bytes behind it are zero,
/// so that comparing all of them compares the texts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Name {
    bytes: [u8; MAX_NAME_BYTES],
    length: u8,
}

impl Name {
    pub(super) fn new(name: &str) -> Self {
        name.chars().collect()
    }
}

impl FromIterator<char> for Name {
    fn from_iter<T: IntoIterator<Item = char>>(characters: T) -> Self {
        let mut bytes = [0; MAX_NAME_BYTES];
        let mut length = 0;
        for character in characters {
            let end = length + character.len_utf8();
            let Some(room) = bytes.get_mut(length..end) else {
                break;
            };
            character.encode_utf8(room);
            length = end;
        }
        Self {
            bytes,
            length: length as u8,
        }
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        core::str::from_utf8(&self.bytes[..usize::from(self.length)]).expect("whole characters are added")
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}
