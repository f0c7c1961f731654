//! The canonical form: what Python's `json.dumps(…, sort_keys=True)` writes.

use super::{Document, Entry, Number, NumberKind, Text, Value, write_float};
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

pub(super) fn canonical(document: &Document<'_>, out: &mut Vec<u8>) {
    let top = &document.entries[document.top.clone()];
    object(
        document,
        top.iter().filter(|entry| entry.name.text != "hmac"),
        out,
    );
}

/// Writes `text` as a JSON string in ASCII, with Python's escapes.
pub fn write_text(text: &str, out: &mut impl fmt::Write) -> fmt::Result {
    out.write_char('"')?;
    for character in text.chars() {
        match character {
            '"' => out.write_str("\\\"")?,
            '\\' => out.write_str("\\\\")?,
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            '\u{8}' => out.write_str("\\b")?,
            '\u{c}' => out.write_str("\\f")?,
            ' '..='~' => out.write_char(character)?,
            other => {
                let mut units = [0; 2];
                for unit in other.encode_utf16(&mut units) {
                    write!(out, "\\u{unit:04x}")?;
                }
            }
        }
    }
    out.write_char('"')
}

fn object<'d, 'a: 'd>(
    document: &Document<'a>,
    members: impl Iterator<Item = &'d Entry<'a>>,
    out: &mut Vec<u8>,
) {
    out.push(b'{');
    for (position, entry) in members.enumerate() {
        if position > 0 {
            out.extend_from_slice(b", ");
        }
        text(&entry.name, out);
        out.extend_from_slice(b": ");
        value(document, &entry.value, out);
    }
    out.push(b'}');
}

fn list(document: &Document<'_>, range: &Range<usize>, out: &mut Vec<u8>) {
    out.push(b'[');
    for (position, entry) in document.entries[range.clone()].iter().enumerate() {
        if position > 0 {
            out.extend_from_slice(b", ");
        }
        value(document, &entry.value, out);
    }
    out.push(b']');
}

/// Recurses as deep as the parser let the document be.
fn value(document: &Document<'_>, value: &Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(spelled) => number(spelled, out),
        Value::Text(content) => text(content, out),
        Value::List(range) => list(document, range, out),
        Value::Object(range) => object(document, document.entries[range.clone()].iter(), out),
    }
}

fn number(number: &Number<'_>, out: &mut Vec<u8>) {
    match number.kind {
        NumberKind::Integer if number.spelling == "-0" => out.push(b'0'),
        NumberKind::Integer | NumberKind::ShortDecimal => out.extend_from_slice(number.spelling.as_bytes()),
        NumberKind::Float => {
            write_float(number.value(), &mut Bytes(out)).expect("a vector takes everything");
        }
    }
}

fn text(text: &Text<'_>, out: &mut Vec<u8>) {
    if text.plain {
        out.push(b'"');
        out.extend_from_slice(text.text.as_bytes());
        out.push(b'"');
    } else {
        write_text(&text.text, &mut Bytes(out)).expect("a vector takes everything");
    }
}

struct Bytes<'v>(&'v mut Vec<u8>);

impl fmt::Write for Bytes<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}
