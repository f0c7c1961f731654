//! The strict parser: one pass, no recursion beyond [`MAX_DEPTH`].

use super::document::{Buffers, Document};
use super::tape::{Entry, Form, Kind, Name, Range, Span, Tape};
use super::{MAX_DEPTH, MAX_PAYLOAD_BYTES, number};
use alloc::vec::Vec;
use core::cmp::Ordering;

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

/// A json-v1 message of a water sensor has 12.
const USUAL_ENTRIES: usize = 16;

/// Parses one message after the other in the same buffers, so that none of them allocates.
///
/// It keeps as much memory as the largest document so far took, at most some 3 MiB.
#[derive(Debug, Default)]
pub struct Parser {
    tape: Tape,
    /// Entries of containers that are still open, innermost last.
    open: Vec<Entry>,
    /// The order of an object's members: prefixes of their names, and places in `open`.
    order: Vec<(u64, u32)>,
}

impl Parser {
    /// A parser whose buffers are still empty.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With room for a usual message, where the buffers serve only once.
    pub(super) fn with_room() -> Self {
        let mut parser = Self::new();
        parser.tape.entries.reserve_exact(USUAL_ENTRIES);
        parser.open.reserve_exact(USUAL_ENTRIES);
        parser
    }

    /// Does what [`Document::parse`] does.
    pub fn parse<'p>(&'p mut self, payload: &'p [u8]) -> Result<Document<'p>, Malformed> {
        let (payload, top, hmac) = self.run(payload)?;
        Ok(Document {
            payload,
            tape: Buffers::Lent(&self.tape),
            top,
            hmac,
        })
    }

    /// The payload as text, its top-level members, and which of all entries is the `hmac`.
    pub(super) fn run<'p>(
        &mut self,
        payload: &'p [u8],
    ) -> Result<(&'p str, Range, Option<usize>), Malformed> {
        if payload.len() > MAX_PAYLOAD_BYTES {
            return Err(Malformed::TooLong(payload.len()));
        }
        let text = core::str::from_utf8(payload).map_err(|error| Malformed::NotUtf8(error.valid_up_to()))?;
        self.tape.entries.clear();
        self.tape.unescaped.clear();
        self.open.clear();
        let mut builder = Builder {
            text,
            bytes: payload,
            tape: &mut self.tape,
            open: &mut self.open,
            order: &mut self.order,
        };
        let end = builder.value(skip_space(payload, 0), 0, Name::NONE)?;
        let end = skip_space(payload, end);
        if end < payload.len() {
            return Err(Malformed::Trailing(end));
        }
        let top = match self.open.pop() {
            Some(entry) if entry.kind == Kind::Object => entry.range(),
            _ => return Err(Malformed::NotAnObject),
        };
        Ok((text, top, hmac(&self.tape, text, top)?))
    }

    pub(super) fn into_tape(self) -> Tape {
        self.tape
    }
}

fn hmac(tape: &Tape, payload: &str, top: Range) -> Result<Option<usize>, Malformed> {
    const PREFIX: u64 = u64::from_be_bytes(*b"hmac\0\0\0\0");
    let members = tape.entries(top);
    let is_hmac =
        |entry: &Entry| entry.name.prefix == PREFIX && tape.text(payload, entry.name.span) == "hmac";
    let Some(position) = members.iter().position(is_hmac) else {
        return Ok(None);
    };
    match members[position].kind {
        Kind::Text(_) => Ok(Some(top.start as usize + position)),
        _ => Err(Malformed::HmacNotText),
    }
}

/// Puts values on the tape.
///
/// Where it reads is not kept here but handed from call to call, and so stays in a register:
/// every method takes the position where its part starts, and gives the one behind it.
struct Builder<'p> {
    text: &'p str,
    bytes: &'p [u8],
    tape: &'p mut Tape,
    open: &'p mut Vec<Entry>,
    order: &'p mut Vec<(u64, u32)>,
}

impl Builder<'_> {
    /// Makes a value the last entry of the innermost container; `depth` containers are open around it.
    #[inline(always)]
    fn value(&mut self, at: usize, depth: usize, name: Name) -> Result<usize, Malformed> {
        match byte(self.bytes, at)? {
            b'"' => {
                let (text, next) = self.string(at)?;
                let (start, end) = (position(text.start()), position(text.end()));
                self.put(name, Kind::Text(text.form()), start, end, 0);
                Ok(next)
            }
            b'-' | b'0'..=b'9' => {
                let number = number::scan(self.text, at)?;
                self.put(name, number.kind, position(at), position(number.end), number.bits);
                Ok(number.end)
            }
            b'{' => self.object(at, depth + 1, name),
            b'[' => self.list(at, depth + 1, name),
            b't' => self.literal(at, name, "true", Kind::True),
            b'f' => self.literal(at, name, "false", Kind::False),
            b'n' => self.literal(at, name, "null", Kind::Null),
            _ => Err(Malformed::Unexpected(at)),
        }
    }

    #[inline(always)]
    fn put(&mut self, name: Name, kind: Kind, start: u32, end: u32, bits: u64) {
        self.open.push(Entry {
            name,
            kind,
            start,
            end,
            bits,
        });
    }

    fn object(&mut self, at: usize, depth: usize, name: Name) -> Result<usize, Malformed> {
        let mut at = enter(self.bytes, at, depth)?;
        let first = self.open.len();
        let mut rising = true;
        let mut before = None;
        if byte(self.bytes, at)? == b'}' {
            self.close(first, name, Kind::Object);
            return Ok(at + 1);
        }
        loop {
            if byte(self.bytes, at)? != b'"' {
                return Err(Malformed::Unexpected(at));
            }
            let (span, next) = self.string(at)?;
            let prefix = self.prefix(span);
            rising &= before.is_none_or(|before| before < prefix);
            before = Some(prefix);
            at = skip_space(self.bytes, next);
            if byte(self.bytes, at)? != b':' {
                return Err(Malformed::Unexpected(at));
            }
            at = skip_space(self.bytes, at + 1);
            at = self.value(at, depth, Name { prefix, span })?;
            let (next, is_end) = next_or_end(self.bytes, at, b'}')?;
            at = next;
            if is_end {
                break;
            }
        }
        if rising {
            self.close(first, name, Kind::Object);
        } else {
            self.close_unsorted(first, name)
                .map_err(|Duplicate| Malformed::DuplicateMember(at - 1))?;
        }
        Ok(at)
    }

    fn list(&mut self, at: usize, depth: usize, name: Name) -> Result<usize, Malformed> {
        let mut at = enter(self.bytes, at, depth)?;
        let first = self.open.len();
        if byte(self.bytes, at)? == b']' {
            self.close(first, name, Kind::List);
            return Ok(at + 1);
        }
        loop {
            at = self.value(at, depth, Name::NONE)?;
            let (next, is_end) = next_or_end(self.bytes, at, b']')?;
            at = next;
            if is_end {
                break;
            }
        }
        self.close(first, name, Kind::List);
        Ok(at)
    }

    /// Moves the entries of the innermost container to the tape, and makes it an entry itself.
    fn close(&mut self, first: usize, name: Name, kind: Kind) {
        let start = position(self.tape.entries.len());
        self.tape.entries.extend_from_slice(&self.open[first..]);
        self.open.truncate(first);
        self.put(name, kind, start, position(self.tape.entries.len()), 0);
    }

    /// Closes an object after sorting its members by name, which brings duplicates together.
    fn close_unsorted(&mut self, first: usize, name: Name) -> Result<(), Duplicate> {
        let (tape, payload, open) = (&*self.tape, self.text, &*self.open);
        let text = |place: u32| tape.text(payload, open[place as usize].name.span);
        // UTF-8 sorts by bytes as it does by code points.
        let by_name = |a: &(u64, u32), b: &(u64, u32)| a.0.cmp(&b.0).then_with(|| text(a.1).cmp(text(b.1)));
        self.order.clear();
        let members = (first..).zip(&open[first..]);
        self.order
            .extend(members.map(|(place, entry)| (entry.name.prefix, position(place))));
        self.order.sort_unstable_by(by_name);
        if self
            .order
            .windows(2)
            .any(|pair| by_name(&pair[0], &pair[1]) == Ordering::Equal)
        {
            return Err(Duplicate);
        }
        let start = position(self.tape.entries.len());
        let sorted = self.order.iter().map(|(_, place)| self.open[*place as usize]);
        self.tape.entries.extend(sorted);
        self.open.truncate(first);
        self.put(name, Kind::Object, start, position(self.tape.entries.len()), 0);
        Ok(())
    }

    fn literal(&mut self, at: usize, name: Name, word: &str, kind: Kind) -> Result<usize, Malformed> {
        if !self.bytes[at..].starts_with(word.as_bytes()) {
            return Err(Malformed::Unexpected(at));
        }
        self.put(name, kind, 0, 0, 0);
        Ok(at + word.len())
    }

    #[inline(always)]
    fn string(&mut self, at: usize) -> Result<(Span, usize), Malformed> {
        let start = at + 1;
        let mut form = Form::Plain;
        let mut at = start;
        loop {
            at = end_of_plain(self.bytes, at);
            match byte(self.bytes, at)? {
                b'"' => break,
                b'\\' => return self.escaped_string(start, at),
                0..=0x1f => return Err(Malformed::Unexpected(at)),
                _ => {
                    form = Form::Raw;
                    at += 1;
                }
            }
        }
        Ok((Span::new(start, at, form), at + 1))
    }

    /// The rest of a string that started at `start`, from its first escape on.
    #[cold]
    fn escaped_string(&mut self, start: usize, mut at: usize) -> Result<(Span, usize), Malformed> {
        let first = self.tape.unescaped.len();
        let mut run = start;
        loop {
            match byte(self.bytes, at)? {
                b'"' => break,
                b'\\' => {
                    self.tape.unescaped.push_str(&self.text[run..at]);
                    let (character, next) = escape(self.bytes, at + 1)?;
                    self.tape.unescaped.push(character);
                    (run, at) = (next, next);
                }
                0..=0x1f => return Err(Malformed::Unexpected(at)),
                _ => at = end_of_plain(self.bytes, at + 1),
            }
        }
        self.tape.unescaped.push_str(&self.text[run..at]);
        let end = self.tape.unescaped.len();
        Ok((Span::new(first, end, Form::Unescaped), at + 1))
    }

    #[inline(always)]
    fn prefix(&self, name: Span) -> u64 {
        let text = if name.form() == Form::Unescaped {
            self.tape.unescaped.as_bytes()
        } else {
            self.bytes
        };
        let (start, length) = (name.start(), name.end() - name.start());
        match text.get(start..).and_then(<[u8]>::first_chunk) {
            Some(_) if length == 0 => 0,
            // Whatever follows a shorter name is not part of it.
            Some(chunk) => u64::from_be_bytes(*chunk) & (u64::MAX << (64 - 8 * length.min(8))),
            None => {
                let mut chunk = [0; 8];
                let kept = length.min(8);
                chunk[..kept].copy_from_slice(&text[start..start + kept]);
                u64::from_be_bytes(chunk)
            }
        }
    }
}

/// A member stands twice in one object.
struct Duplicate;

/// A container opens here: where its first entry or its end is.
#[inline(always)]
fn enter(bytes: &[u8], at: usize, depth: usize) -> Result<usize, Malformed> {
    if depth > MAX_DEPTH {
        return Err(Malformed::TooDeep(at));
    }
    Ok(skip_space(bytes, at + 1))
}

/// After an entry: a comma leads to the next, `end` closes the container.
#[inline(always)]
fn next_or_end(bytes: &[u8], at: usize, end: u8) -> Result<(usize, bool), Malformed> {
    let at = skip_space(bytes, at);
    match byte(bytes, at)? {
        b',' => Ok((skip_space(bytes, at + 1), false)),
        other if other == end => Ok((at + 1, true)),
        _ => Err(Malformed::Unexpected(at)),
    }
}

/// The character that an escape stands for; `at` is behind the backslash.
fn escape(bytes: &[u8], at: usize) -> Result<(char, usize), Malformed> {
    let character = match byte(bytes, at)? {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unicode_escape(bytes, at + 1),
        _ => return Err(Malformed::Unexpected(at)),
    };
    Ok((character, at + 1))
}

fn unicode_escape(bytes: &[u8], at: usize) -> Result<(char, usize), Malformed> {
    let lone = Malformed::LoneSurrogate(at);
    let mut end = at + 4;
    let code = match hex4(bytes, at)? {
        first @ 0xd800..=0xdbff => {
            if !bytes[end..].starts_with(b"\\u") {
                return Err(lone);
            }
            let second = hex4(bytes, end + 2)?;
            if !(0xdc00..=0xdfff).contains(&second) {
                return Err(lone);
            }
            end += 6;
            0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)
        }
        other => other,
    };
    Ok((char::from_u32(code).ok_or(lone)?, end))
}

fn hex4(bytes: &[u8], at: usize) -> Result<u32, Malformed> {
    (at..at + 4).try_fold(0, |code, at| {
        let digit = char::from(byte(bytes, at)?).to_digit(16);
        Ok(code * 16 + digit.ok_or(Malformed::Unexpected(at))?)
    })
}

#[inline(always)]
fn byte(bytes: &[u8], at: usize) -> Result<u8, Malformed> {
    bytes.get(at).copied().ok_or(Malformed::CutOff(at))
}

#[inline(always)]
fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

/// Positions lie within the payload, or within its strings without their escapes, or count its values.
fn position(at: usize) -> u32 {
    at as u32
}

/// The first byte from `at` on that the canonical form does not copy: a quote, a backslash, or
/// anything outside 0x20 to 0x7e. The end of `bytes` where there is none.
///
/// Looks at eight bytes at a time (Mycroft's test for a zero byte in a word). A borrow may mark
/// bytes above the first match, never below it, and only the first is asked for.
fn end_of_plain(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    const fn zero_bytes(word: u64) -> u64 {
        word.wrapping_sub(ONES) & !word & HIGHS
    }
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let word = u64::from_le_bytes(*chunk);
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        let marks = zero_bytes(word ^ (ONES * b'"' as u64))
            | zero_bytes(word ^ (ONES * b'\\' as u64))
            | zero_bytes(word ^ (ONES * 0x7f))
            | control
            | (word & HIGHS);
        if marks != 0 {
            return at + marks.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let plain = |byte: &u8| matches!(byte, b' '..=b'~') && *byte != b'"' && *byte != b'\\';
    while bytes.get(at).is_some_and(plain) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_at_every_place_of_a_word_ends_plain_text_or_not() {
        for byte in 0..=255_u8 {
            let plain = (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\';
            for place in 0..20 {
                for filler in [b'a', b' ', b'~', b'!', b'#', b'[', b']'] {
                    let mut bytes = [filler; 20];
                    bytes[place] = byte;
                    let expected = if plain { 20 } else { place };
                    assert_eq!(end_of_plain(&bytes, 0), expected, "{byte:#x} at {place}");
                }
            }
        }
    }

    #[test]
    fn escape_stands_for_its_character() {
        let stands_for = |text: &str| escape(text.as_bytes(), 0);
        for (text, character) in [
            ("\"", '"'),
            ("\\", '\\'),
            ("/", '/'),
            ("b", '\u{8}'),
            ("f", '\u{c}'),
            ("n", '\n'),
            ("r", '\r'),
            ("t", '\t'),
            ("u002f", '/'),
        ] {
            assert_eq!(stands_for(text), Ok((character, text.len())), "{text}");
        }
        assert_eq!(stands_for("v"), Err(Malformed::Unexpected(0)));
    }

    #[test]
    fn only_the_name_hmac_is_the_mac() {
        let hmac = |payload: &[u8]| {
            let mut parser = Parser::new();
            parser.run(payload).unwrap().2
        };
        assert!(hmac(br#"{"hmac": "a"}"#).is_some());
        // Packed into eight bytes, these are alike.
        assert!(hmac(br#"{"hmac\u0000": "a"}"#).is_none());
    }

    #[test]
    fn faults_are_found_at_their_byte() {
        for (payload, fault) in [
            (&b"{\"a\": }"[..], Malformed::Unexpected(6)),
            (b"{\"a\": 01}", Malformed::Unexpected(7)),
            (b"{\"a\": 1.}", Malformed::Unexpected(8)),
            (b"{\"a\": 1", Malformed::CutOff(7)),
            (b"{\"a\": -", Malformed::CutOff(7)),
            (b"{\"a\": 1e", Malformed::CutOff(8)),
            (b"{\"a\": 1e999}", Malformed::NumberOverflow(6)),
            (b"{\"a\xff", Malformed::NotUtf8(3)),
            (b"{\"a\": \"\\ud800\"}", Malformed::LoneSurrogate(9)),
            (b"{\"a\": 1, \"a\": 2} ", Malformed::DuplicateMember(15)),
            (b"{} {}", Malformed::Trailing(3)),
            (b"\xef\xbb\xbf{}", Malformed::Unexpected(0)),
            (b"[[[[[[[[[", Malformed::TooDeep(8)),
        ] {
            assert_eq!(Document::parse(payload).unwrap_err(), fault);
        }
    }

    #[test]
    fn buffers_of_a_parser_hold_nothing_of_the_message_before() {
        let mut parser = Parser::new();
        let long = br#"{"a\n": [1, {"b": 2}], "hmac": "x", "c\t": "d\r"}"#;
        assert_eq!(parser.parse(long).unwrap().hmac(), Some("x"));
        assert!(parser.parse(br#"{"e\n": [1, {"f": 2, "g"#).is_err());
        let mut canonical = Vec::new();
        let document = parser.parse(br#"{"h\n": 1}"#).unwrap();
        document.canonical(&mut canonical);
        assert_eq!(
            (document.hmac(), canonical.as_slice()),
            (None, &br#"{"h\n": 1}"#[..])
        );
    }
}
