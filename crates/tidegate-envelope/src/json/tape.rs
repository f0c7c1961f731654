//! A document's values, flat and without pointers, so that its buffers serve for the next one too.

use super::MAX_PAYLOAD_BYTES;
use alloc::string::String;
use alloc::vec::Vec;

/// All values of one document.
#[derive(Debug, Default)]
pub(super) struct Tape {
    /// Members of objects and items of lists, each container's side by side.
    pub(super) entries: Vec<Entry>,
    /// The text of strings that were spelled with escapes, one after the other.
    pub(super) unescaped: String,
}

/// A member of an object, or an item of a list (whose name is empty).
///
/// The value's parts lie here in the open, and not in an enum, so that the parser can write each
/// once and straight to its place: an enum that passes through the stack on its way costs more
/// than reading the number that it holds. Positions are bytes of the payload, which is far shorter
/// than 4 GiB.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) name: Name,
    pub(super) kind: Kind,
    /// Where the value is spelled, or which entries a container holds.
    pub(super) start: u32,
    pub(super) end: u32,
    /// The number: an `i64` or the bits of an `f64`.
    pub(super) bits: u64,
}

/// What sort of value an entry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    True,
    False,
    /// No fraction and no exponent; its spelling is its canonical form unless it is `-0`.
    Integer,
    /// An integer beyond 64 bits; its spelling is its canonical form.
    LargeInteger,
    /// Its spelling is its canonical form.
    CanonicalFloat,
    OtherFloat,
    Text(Form),
    List,
    Object,
}

/// A string, and the first eight bytes of it, big-endian and filled up with zeros. Names sort by
/// those first, and few need more than that: one comparison instead of a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name {
    pub(super) prefix: u64,
    pub(super) span: Span,
}

/// Where a string's text is: start, end and form in 24, 24 and 16 bits.
///
/// One word, because three fields would be written to the stack one by one and read back
/// together, and the processor waits for such a read until all the writes are done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span(u64);

const POSITION_BITS: u32 = 24;
const POSITION_MASK: u64 = (1 << POSITION_BITS) - 1;
const _: () = assert!(MAX_PAYLOAD_BYTES as u64 <= POSITION_MASK);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// In the payload, between quotes; as it stands there it is canonical.
    Plain,
    /// In the payload, with characters that the canonical form escapes.
    Raw,
    /// In [`Tape::unescaped`].
    Unescaped,
}

/// Some entries that lie side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Name {
    /// The name of a list's items, and of the document itself.
    pub(super) const NONE: Self = Self {
        prefix: 0,
        span: Span(Form::Raw as u64),
    };
}

impl Span {
    pub(super) fn new(start: usize, end: usize, form: Form) -> Self {
        Self((start as u64) << (POSITION_BITS + 16) | (end as u64) << 16 | form as u64)
    }

    pub(super) fn start(self) -> usize {
        (self.0 >> (POSITION_BITS + 16)) as usize
    }

    pub(super) fn end(self) -> usize {
        (self.0 >> 16 & POSITION_MASK) as usize
    }

    pub(super) fn form(self) -> Form {
        match self.0 & 0xffff {
            0 => Form::Plain,
            1 => Form::Raw,
            _ => Form::Unescaped,
        }
    }
}

impl Entry {
    /// The string that the value is, if its kind is that of one.
    pub(super) fn span(&self, form: Form) -> Span {
        Span::new(self.start as usize, self.end as usize, form)
    }

    /// The entries that the value holds, if its kind is that of a container.
    pub(super) fn range(&self) -> Range {
        Range {
            start: self.start,
            end: self.end,
        }
    }
}

impl Tape {
    pub(super) fn text<'t>(&'t self, payload: &'t str, span: Span) -> &'t str {
        let text = if span.form() == Form::Unescaped {
            &self.unescaped
        } else {
            payload
        };
        &text[span.start()..span.end()]
    }

    pub(super) fn entries(&self, range: Range) -> &[Entry] {
        &self.entries[range.start as usize..range.end as usize]
    }
}
