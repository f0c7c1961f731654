//! A parsed object, and its members as other modules see them.

use super::parse::{Malformed, Parser};
use super::tape::{Entry, Kind, Range, Tape};
use super::{canonical, number};
use alloc::vec::Vec;

/// A parsed JSON object that borrows from the payload.
///
/// Members of every object are sorted by Unicode code point, and each stands once. Every member
/// and item takes at least two bytes of the payload, so its memory is bounded by
/// [`MAX_PAYLOAD_BYTES`](super::MAX_PAYLOAD_BYTES).
#[derive(Debug)]
pub struct Document<'a> {
    pub(super) payload: &'a str,
    pub(super) tape: Buffers<'a>,
    /// The outermost object's members.
    pub(super) top: Range,
    /// Where among all entries the top-level `hmac` is.
    pub(super) hmac: Option<usize>,
}

#[derive(Debug)]
pub(super) enum Buffers<'a> {
    /// Of [`Document::parse`].
    Own(Tape),
    /// Of [`Parser::parse`], which uses them again.
    Lent(&'a Tape),
}

/// A member's value as other modules see it.
#[derive(Debug, Clone, Copy)]
pub enum Member<'d> {
    /// `null`, `true` or `false`.
    Literal,
    /// An integer that fits.
    Integer(i64),
    /// An integer beyond 64 bits, as the nearest double; infinite where there is none.
    LargeInteger(f64),
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
    payload: &'d str,
    tape: &'d Tape,
    range: Range,
}

impl<'a> Document<'a> {
    /// Parses one JSON object. Refuses whatever two parsers could read differently.
    ///
    /// A [`Parser`] does the same without allocating for every message.
    pub fn parse(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut parser = Parser::with_room();
        let (payload, top, hmac) = parser.run(payload)?;
        Ok(Self {
            payload,
            tape: Buffers::Own(parser.into_tape()),
            top,
            hmac,
        })
    }

    /// The outermost object's members.
    #[must_use]
    pub fn members(&self) -> Members<'_> {
        Members {
            payload: self.payload,
            tape: self.tape(),
            range: self.top,
        }
    }

    /// The top-level text member `hmac`. A `hmac` of another type does not parse.
    #[must_use]
    pub fn hmac(&self) -> Option<&str> {
        let entry = &self.tape().entries[self.hmac?];
        match entry.kind {
            Kind::Text(form) => Some(self.tape().text(self.payload, entry.span(form))),
            _ => None,
        }
    }

    /// Appends the canonical form: the object without its top-level `hmac`, as Python's
    /// `json.dumps(object, sort_keys=True)` writes it. ASCII only.
    pub fn canonical(&self, out: &mut Vec<u8>) {
        canonical::write(self, out);
    }

    pub(super) fn tape(&self) -> &Tape {
        match &self.tape {
            Buffers::Own(tape) => tape,
            Buffers::Lent(tape) => tape,
        }
    }
}

impl<'d> Members<'d> {
    /// The member of this name.
    #[must_use]
    pub fn find(self, name: &str) -> Option<Member<'d>> {
        let entries = self.tape.entries(self.range);
        let found = entries
            .binary_search_by(|entry| self.tape.text(self.payload, entry.name.span).cmp(name))
            .ok()?;
        Some(self.member(&entries[found]))
    }

    /// Names and values, sorted by name.
    pub fn iter(self) -> impl ExactSizeIterator<Item = (&'d str, Member<'d>)> {
        self.tape
            .entries(self.range)
            .iter()
            .map(move |entry| (self.tape.text(self.payload, entry.name.span), self.member(entry)))
    }

    fn member(self, entry: &Entry) -> Member<'d> {
        match entry.kind {
            Kind::Null | Kind::True | Kind::False => Member::Literal,
            Kind::Integer => Member::Integer(entry.bits.cast_signed()),
            Kind::LargeInteger => {
                let spelling = &self.payload[entry.start as usize..entry.end as usize];
                Member::LargeInteger(number::value(spelling))
            }
            Kind::CanonicalFloat | Kind::OtherFloat => Member::Float(f64::from_bits(entry.bits)),
            Kind::Text(form) => Member::Text(self.tape.text(self.payload, entry.span(form))),
            Kind::List => Member::List,
            Kind::Object => Member::Object(Self {
                range: entry.range(),
                ..self
            }),
        }
    }
}

impl Member<'_> {
    /// The number, where it is one that a finite `f64` holds.
    #[must_use]
    pub fn number(self) -> Option<f64> {
        match self {
            Self::Integer(integer) => Some(integer as f64),
            Self::LargeInteger(number) => Some(number).filter(|number| number.is_finite()),
            Self::Float(float) => Some(float),
            _ => None,
        }
    }
}
