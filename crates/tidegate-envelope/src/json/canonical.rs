//! The canonical form: what Python's `json.dumps(…, sort_keys=True)` writes.

use super::tape::{Entry, Form, Kind, Range, Span};
use super::{Document, write_float, write_text};
use alloc::vec::Vec;
use core::fmt;

pub(super) fn write(document: &Document<'_>, out: &mut Vec<u8>) {
    // Enough unless separators or escapes are added; then the vector grows.
    out.reserve(document.payload.len());
    let tape = document.tape();
    let writer = Writer {
        document,
        bytes: document.payload.as_bytes(),
    };
    let members = tape.entries(document.top);
    out.push(b'{');
    match document
        .hmac
        .map(|position| position - document.top.start as usize)
    {
        None => writer.members(members, out),
        Some(position) => {
            let (before, after) = (&members[..position], &members[position + 1..]);
            writer.members(before, out);
            if !before.is_empty() && !after.is_empty() {
                out.extend_from_slice(b", ");
            }
            writer.members(after, out);
        }
    }
    out.push(b'}');
}

struct Writer<'d> {
    document: &'d Document<'d>,
    bytes: &'d [u8],
}

impl Writer<'_> {
    fn members(&self, members: &[Entry], out: &mut Vec<u8>) {
        for (position, entry) in members.iter().enumerate() {
            if position > 0 {
                out.extend_from_slice(b", ");
            }
            self.text(entry.name.span, out);
            out.extend_from_slice(b": ");
            self.value(entry, out);
        }
    }

    fn object(&self, range: Range, out: &mut Vec<u8>) {
        out.push(b'{');
        self.members(self.document.tape().entries(range), out);
        out.push(b'}');
    }

    fn list(&self, range: Range, out: &mut Vec<u8>) {
        out.push(b'[');
        for (position, entry) in self.document.tape().entries(range).iter().enumerate() {
            if position > 0 {
                out.extend_from_slice(b", ");
            }
            self.value(entry, out);
        }
        out.push(b']');
    }

    /// Recurses as deep as the parser let the document be.
    fn value(&self, entry: &Entry, out: &mut Vec<u8>) {
        match entry.kind {
            Kind::Null => out.extend_from_slice(b"null"),
            Kind::True => out.extend_from_slice(b"true"),
            Kind::False => out.extend_from_slice(b"false"),
            // Also for `-0`, which Python reads as the integer 0.
            Kind::Integer if entry.bits == 0 => out.push(b'0'),
            Kind::Integer | Kind::LargeInteger | Kind::CanonicalFloat => {
                self.copy(entry.start as usize, entry.end as usize, out);
            }
            Kind::OtherFloat => {
                let value = f64::from_bits(entry.bits);
                write_float(value, &mut Bytes(out)).expect("a vector takes everything");
            }
            Kind::Text(form) => self.text(entry.span(form), out),
            Kind::List => self.list(entry.range(), out),
            Kind::Object => self.object(entry.range(), out),
        }
    }

    fn text(&self, span: Span, out: &mut Vec<u8>) {
        if span.form() == Form::Plain {
            // With its quotes, which lie around it in the payload.
            self.copy(span.start() - 1, span.end() + 1, out);
        } else {
            let text = self.document.tape().text(self.document.payload, span);
            write_text(text, &mut Bytes(out)).expect("a vector takes everything");
        }
    }

    fn copy(&self, start: usize, end: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes[start..end]);
    }
}

struct Bytes<'v>(&'v mut Vec<u8>);

impl fmt::Write for Bytes<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}
