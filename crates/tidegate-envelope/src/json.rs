//! Strict JSON, and Python's canonical form of it.
//!
//! Written by hand, because no crate refuses duplicate members, keeps numbers as they were
//! spelled, and writes what `json.dumps(…, sort_keys=True)` writes.

mod number;
mod parse;
mod write;

pub use number::write_float;
pub use parse::Malformed;
pub use write::write_text;

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::ops::Range;

/// Largest payload that is parsed, in bytes.
pub const MAX_PAYLOAD_BYTES: usize = 65_536;
/// Deepest nesting of objects and lists; the outermost object counts as one.
pub const MAX_DEPTH: usize = 8;

/// A parsed JSON object that borrows from the payload.
///
/// Members of every object are sorted by Unicode code point, and each stands once. Holds at most
/// one entry per payload byte, so its memory is bounded by [`MAX_PAYLOAD_BYTES`].
#[derive(Debug)]
pub struct Document<'a> {
    /// Members of objects and items of lists, each container's side by side.
    entries: Vec<Entry<'a>>,
    /// The outermost object's members.
    top: Range<usize>,
}

/// A member of an object, or an item of a list (whose name is empty).
#[derive(Debug)]
struct Entry<'a> {
    name: Text<'a>,
    value: Value<'a>,
}

/// A string with its escapes undone.
#[derive(Debug, Clone)]
struct Text<'a> {
    text: Cow<'a, str>,
    /// Whether the canonical form is the text itself between quotes.
    plain: bool,
}

/// A value inside a document.
#[derive(Debug, Clone)]
enum Value<'a> {
    Null,
    Bool(bool),
    Number(Number<'a>),
    Text(Text<'a>),
    List(Range<usize>),
    Object(Range<usize>),
}

/// A number as it was spelled.
#[derive(Debug, Clone, Copy)]
struct Number<'a> {
    spelling: &'a str,
    kind: NumberKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NumberKind {
    /// No fraction and no exponent.
    Integer,
    /// A short decimal that is its own canonical form; see `number::is_own_canonical_form`.
    ShortDecimal,
    /// Any other finite number: judged by its value.
    Float,
}

/// A member's value as other modules see it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Member<'d> {
    /// `null`, `true` or `false`.
    Literal,
    /// An integer that fits.
    Integer(i64),
    /// An integer beyond 64 bits.
    LargeInteger,
    /// A number with fraction or exponent; finite.
    Float(f64),
    /// A string.
    Text(&'d str),
    /// A list.
    List,
    /// An object.
    Object(Members<'d>),
}

/// The members of one object, sorted by name.
#[derive(Debug, Clone, Copy)]
pub struct Members<'d> {
    document: &'d Document<'d>,
    start: usize,
    end: usize,
}

impl PartialEq for Members<'_> {
    fn eq(&self, other: &Self) -> bool {
        core::ptr::eq(self.document, other.document) && self.start == other.start && self.end == other.end
    }
}

impl<'a> Document<'a> {
    /// Parses one JSON object. Refuses whatever two parsers could read differently.
    pub fn parse(payload: &'a [u8]) -> Result<Self, Malformed> {
        parse::document(payload)
    }

    /// The outermost object's members.
    #[must_use]
    pub fn members(&self) -> Members<'_> {
        Members {
            document: self,
            start: self.top.start,
            end: self.top.end,
        }
    }

    /// The top-level text member `hmac`. A `hmac` of another type does not parse.
    #[must_use]
    pub fn hmac(&self) -> Option<&str> {
        match self.members().find("hmac") {
            Some(Member::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Appends the canonical form: the object without its top-level `hmac`, as Python's
    /// `json.dumps(object, sort_keys=True)` writes it. ASCII only.
    pub fn canonical(&self, out: &mut Vec<u8>) {
        write::canonical(self, out);
    }
}

impl<'d> Members<'d> {
    /// The member of this name.
    #[must_use]
    pub fn find(self, name: &str) -> Option<Member<'d>> {
        let entries = &self.document.entries[self.start..self.end];
        let found = entries
            .binary_search_by(|entry| entry.name.text.as_ref().cmp(name))
            .ok()?;
        Some(self.document.member(&entries[found].value))
    }

    /// Names and values, sorted by name.
    pub fn iter(self) -> impl ExactSizeIterator<Item = (&'d str, Member<'d>)> {
        let document = self.document;
        document.entries[self.start..self.end]
            .iter()
            .map(|entry| (entry.name.text.as_ref(), document.member(&entry.value)))
    }
}

impl Document<'_> {
    fn member<'d>(&'d self, value: &'d Value<'_>) -> Member<'d> {
        match value {
            Value::Null | Value::Bool(_) => Member::Literal,
            Value::Number(number) => match number.kind {
                NumberKind::Integer => number
                    .spelling
                    .parse()
                    .map_or(Member::LargeInteger, Member::Integer),
                NumberKind::ShortDecimal | NumberKind::Float => Member::Float(number.value()),
            },
            Value::Text(text) => Member::Text(&text.text),
            Value::List(_) => Member::List,
            Value::Object(range) => Member::Object(Members {
                document: self,
                start: range.start,
                end: range.end,
            }),
        }
    }
}

impl Member<'_> {
    /// The number, where it is one that a `f64` holds.
    #[must_use]
    pub fn number(self) -> Option<f64> {
        match self {
            Self::Integer(integer) => Some(integer as f64),
            Self::Float(float) => Some(float),
            _ => None,
        }
    }
}
