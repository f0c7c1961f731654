//! The strict parser: one pass, no recursion beyond [`MAX_DEPTH`].

use super::{Document, Entry, MAX_DEPTH, MAX_PAYLOAD_BYTES, Number, NumberKind, Text, Value, number};
use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

/// Why a payload is not an acceptable JSON object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// More than [`MAX_PAYLOAD_BYTES`].
    #[error("{0} bytes, more than {MAX_PAYLOAD_BYTES}")]
    TooLong(usize),
    /// Not UTF-8 from this byte on.
    #[error("not UTF-8 at byte {0}")]
    NotUtf8(usize),
    /// The payload ends inside a value.
    #[error("cut off after byte {0}")]
    CutOff(usize),
    /// A byte that JSON does not allow here.
    #[error("unexpected byte at {0}")]
    Unexpected(usize),
    /// The payload is JSON, but not an object.
    #[error("not a JSON object")]
    NotAnObject,
    /// Something follows the object.
    #[error("trailing bytes from byte {0} on")]
    Trailing(usize),
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("nested deeper than {MAX_DEPTH} levels at byte {0}")]
    TooDeep(usize),
    /// The same member twice in one object, which parsers resolve differently.
    #[error("a member stands twice in the object that ends at byte {0}")]
    DuplicateMember(usize),
    /// Half of a surrogate pair.
    #[error("a lone surrogate at byte {0}")]
    LoneSurrogate(usize),
    /// A number that no double holds.
    #[error("a number beyond the range of a double at byte {0}")]
    NumberOverflow(usize),
    /// The member `hmac` is not text.
    #[error("the member `hmac` is not text")]
    HmacNotText,
}

pub(super) fn document(payload: &[u8]) -> Result<Document<'_>, Malformed> {
    if payload.len() > MAX_PAYLOAD_BYTES {
        return Err(Malformed::TooLong(payload.len()));
    }
    let text = core::str::from_utf8(payload).map_err(|error| Malformed::NotUtf8(error.valid_up_to()))?;
    let mut parser = Parser {
        text,
        bytes: payload,
        at: 0,
        open: Vec::with_capacity(16),
        entries: Vec::with_capacity(16),
    };
    parser.skip_space();
    let value = parser.value(0)?;
    parser.skip_space();
    if parser.at < payload.len() {
        return Err(Malformed::Trailing(parser.at));
    }
    let Value::Object(top) = value else {
        return Err(Malformed::NotAnObject);
    };
    let document = Document {
        entries: parser.entries,
        top,
    };
    let hmac = document.entries[document.top.clone()]
        .iter()
        .find(|entry| entry.name.text == "hmac");
    if hmac.is_some_and(|entry| !matches!(entry.value, Value::Text(_))) {
        return Err(Malformed::HmacNotText);
    }
    Ok(document)
}

struct Parser<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    /// Entries of containers that are still open, innermost last.
    open: Vec<Entry<'a>>,
    /// Entries of containers that are closed.
    entries: Vec<Entry<'a>>,
}

impl<'a> Parser<'a> {
    /// A value that starts here; `depth` containers are open around it.
    fn value(&mut self, depth: usize) -> Result<Value<'a>, Malformed> {
        match self.peek()? {
            b'"' => Ok(Value::Text(self.string()?)),
            b'{' => self.object(depth + 1),
            b'[' => self.list(depth + 1),
            b'-' | b'0'..=b'9' => Ok(Value::Number(self.number()?)),
            b't' => self.literal("true", Value::Bool(true)),
            b'f' => self.literal("false", Value::Bool(false)),
            b'n' => self.literal("null", Value::Null),
            _ => Err(Malformed::Unexpected(self.at)),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value<'a>, Malformed> {
        let first = self.enter(depth)?;
        if self.peek()? == b'}' {
            self.at += 1;
            return Ok(Value::Object(self.close(first)));
        }
        loop {
            if self.peek()? != b'"' {
                return Err(Malformed::Unexpected(self.at));
            }
            let name = self.string()?;
            self.skip_space();
            self.expect(b':')?;
            self.skip_space();
            let value = self.value(depth)?;
            self.open.push(Entry { name, value });
            self.skip_space();
            if self.next_or_end(b'}')? {
                break;
            }
        }
        let members = &mut self.open[first..];
        let in_order = |pair: &[Entry<'_>]| pair[0].name.text < pair[1].name.text;
        if !members.windows(2).all(in_order) {
            // UTF-8 sorts by bytes as it does by code points.
            members.sort_unstable_by(|a, b| a.name.text.cmp(&b.name.text));
            if members
                .windows(2)
                .any(|pair| pair[0].name.text == pair[1].name.text)
            {
                return Err(Malformed::DuplicateMember(self.at));
            }
        }
        Ok(Value::Object(self.close(first)))
    }

    fn list(&mut self, depth: usize) -> Result<Value<'a>, Malformed> {
        let first = self.enter(depth)?;
        if self.peek()? == b']' {
            self.at += 1;
            return Ok(Value::List(self.close(first)));
        }
        loop {
            let value = self.value(depth)?;
            self.open.push(Entry {
                name: Text {
                    text: Cow::Borrowed(""),
                    plain: true,
                },
                value,
            });
            self.skip_space();
            if self.next_or_end(b']')? {
                break;
            }
        }
        Ok(Value::List(self.close(first)))
    }

    fn enter(&mut self, depth: usize) -> Result<usize, Malformed> {
        if depth > MAX_DEPTH {
            return Err(Malformed::TooDeep(self.at));
        }
        self.at += 1;
        self.skip_space();
        Ok(self.open.len())
    }

    fn close(&mut self, first: usize) -> Range<usize> {
        let start = self.entries.len();
        self.entries.extend(self.open.drain(first..));
        start..self.entries.len()
    }

    /// After an entry: a comma leads to the next, `end` closes the container.
    fn next_or_end(&mut self, end: u8) -> Result<bool, Malformed> {
        let byte = self.peek()?;
        if byte == end {
            self.at += 1;
            return Ok(true);
        }
        self.expect(b',')?;
        self.skip_space();
        Ok(false)
    }

    fn literal(&mut self, word: &str, value: Value<'a>) -> Result<Value<'a>, Malformed> {
        if !self.bytes[self.at..].starts_with(word.as_bytes()) {
            return Err(Malformed::Unexpected(self.at));
        }
        self.at += word.len();
        Ok(value)
    }

    fn string(&mut self) -> Result<Text<'a>, Malformed> {
        self.at += 1;
        let start = self.at;
        let mut plain = true;
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' => return self.escaped_string(start),
                0..=0x1f => return Err(Malformed::Unexpected(self.at)),
                byte => plain &= (b' '..=b'~').contains(&byte),
            }
            self.at += 1;
        }
        let text = &self.text[start..self.at];
        self.at += 1;
        Ok(Text {
            text: Cow::Borrowed(text),
            plain,
        })
    }

    /// The rest of a string that started at `start`, from its first escape on.
    #[cold]
    fn escaped_string(&mut self, start: usize) -> Result<Text<'a>, Malformed> {
        let mut text = String::from(&self.text[start..self.at]);
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' => {
                    self.at += 1;
                    text.push(self.escape()?);
                }
                0..=0x1f => return Err(Malformed::Unexpected(self.at)),
                _ => {
                    let from = self.at;
                    while !matches!(self.peek()?, b'"' | b'\\' | 0..=0x1f) {
                        self.at += 1;
                    }
                    text.push_str(&self.text[from..self.at]);
                }
            }
        }
        self.at += 1;
        Ok(Text {
            text: Cow::Owned(text),
            plain: false,
        })
    }

    fn escape(&mut self) -> Result<char, Malformed> {
        let byte = self.peek()?;
        self.at += 1;
        Ok(match byte {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode_escape(),
            _ => return Err(Malformed::Unexpected(self.at - 1)),
        })
    }

    fn unicode_escape(&mut self) -> Result<char, Malformed> {
        let at = self.at;
        let lone = Malformed::LoneSurrogate(at);
        let first = self.hex4()?;
        let code = match first {
            0xd800..=0xdbff => {
                if !self.bytes[self.at..].starts_with(b"\\u") {
                    return Err(lone);
                }
                self.at += 2;
                let second = self.hex4()?;
                if !(0xdc00..=0xdfff).contains(&second) {
                    return Err(lone);
                }
                0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)
            }
            other => other,
        };
        char::from_u32(code).ok_or(lone)
    }

    fn hex4(&mut self) -> Result<u32, Malformed> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = char::from(self.peek()?)
                .to_digit(16)
                .ok_or(Malformed::Unexpected(self.at))?;
            code = code * 16 + digit;
            self.at += 1;
        }
        Ok(code)
    }

    /// RFC 8259 §6.
    fn number(&mut self) -> Result<Number<'a>, Malformed> {
        let start = self.at;
        if self.peek()? == b'-' {
            self.at += 1;
        }
        let integer = self.digits()?;
        if integer.len() > 1 && integer[0] == b'0' {
            return Err(Malformed::Unexpected(self.at));
        }
        let mut kind = NumberKind::Integer;
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            let fraction = self.digits()?;
            let own = number::is_own_canonical_form(integer, fraction);
            kind = if own {
                NumberKind::ShortDecimal
            } else {
                NumberKind::Float
            };
        }
        if matches!(self.bytes.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek()?, b'+' | b'-') {
                self.at += 1;
            }
            self.digits()?;
            kind = NumberKind::Float;
        }
        let number = Number {
            spelling: &self.text[start..self.at],
            kind,
        };
        if kind == NumberKind::Float && !number.value().is_finite() {
            return Err(Malformed::NumberOverflow(start));
        }
        Ok(number)
    }

    fn digits(&mut self) -> Result<&'a [u8], Malformed> {
        let start = self.at;
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        if self.at == start {
            self.peek()?;
            return Err(Malformed::Unexpected(self.at));
        }
        Ok(&self.bytes[start..self.at])
    }

    fn expect(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.peek()? != byte {
            return Err(Malformed::Unexpected(self.at));
        }
        self.at += 1;
        Ok(())
    }

    fn peek(&self) -> Result<u8, Malformed> {
        self.bytes.get(self.at).copied().ok_or(Malformed::CutOff(self.at))
    }

    fn skip_space(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }
}
