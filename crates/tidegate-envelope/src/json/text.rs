//! Python's way of writing a text as a JSON string.

use core::fmt;

/// Writes `text` as a JSON string in ASCII, with Python's escapes.
pub fn write_text(text: &str, out: &mut impl fmt::Write) -> fmt::Result {
    out.write_char('"')?;
    // Where the characters begin that go out as they are; in one piece, as a sink may sign them.
    let mut run = 0;
    for (at, character) in text.char_indices() {
        let short = match character {
            '"' => "\\\"",
            '\\' => "\\\\",
            '\n' => "\\n",
            '\r' => "\\r",
            '\t' => "\\t",
            '\u{8}' => "\\b",
            '\u{c}' => "\\f",
            ' '..='~' => continue,
            _ => "",
        };
        out.write_str(&text[run..at])?;
        out.write_str(short)?;
        if short.is_empty() {
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
        }
        run = at + character.len_utf8();
    }
    out.write_str(&text[run..])?;
    out.write_char('"')
}
