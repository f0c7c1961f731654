//! How measured values are stored: an array of numbers, and the channels' names once per layout.
//!
//! `[40.21,45.0,45.0,55.11,60.01]` with the layout `["flow_rate","gate_a_position",…]`. Text,
//! because the `sqlite3` tool and its JSON functions then read it without us (view
//! `reading_values`), and because it is the smaller form for what sensors send: these five numbers
//! take 29 bytes, as 64-bit floats 40, with their names 119. Numbers of full precision take up to
//! twice the floats' room. Numbers have the shortest digits that read back bit for bit.

use compact_str::CompactString;
use rusqlite::Transaction;
use std::collections::HashMap;
use std::sync::Arc;
use tidegate_envelope::reading::Channels;

/// Most layouts that are remembered. Unsigned senders choose their own channel names, so the table
/// must end somewhere; a reading beyond it is stored as an object that carries its own names.
pub(crate) const MAX_LAYOUTS: usize = 1_024;

/// Numbers of the layouts in the database.
#[derive(Debug, Default)]
pub(crate) struct Layouts {
    /// Names, as a JSON array, to number.
    numbers: HashMap<String, i64>,
    /// Layouts that the open transaction has added, and that a rollback takes back.
    unconfirmed: Vec<String>,
    names: String,
}

impl Layouts {
    pub(crate) fn with(numbers: HashMap<String, i64>) -> Self {
        Self {
            numbers,
            ..Self::default()
        }
    }

    /// Writes `channels` to `text` and says its layout, as number and names; `None` where `text`
    /// carries the names.
    pub(crate) fn encode(
        &mut self,
        transaction: &Transaction<'_>,
        channels: &Channels,
        text: &mut String,
    ) -> rusqlite::Result<Option<(i64, &str)>> {
        self.names.clear();
        self.names.push('[');
        for (position, (name, _)) in channels.iter().enumerate() {
            separate(&mut self.names, position);
            push_json(&mut self.names, name);
        }
        self.names.push(']');
        let number = match self.numbers.get(&self.names) {
            Some(number) => *number,
            None if self.numbers.len() >= MAX_LAYOUTS => {
                object(channels, text);
                return Ok(None);
            }
            None => {
                let number = transaction
                    .prepare_cached("INSERT INTO layouts (names) VALUES (?1)")?
                    .insert([&self.names])?;
                self.numbers.insert(self.names.clone(), number);
                self.unconfirmed.push(self.names.clone());
                number
            }
        };
        array(channels, text);
        Ok(Some((number, &self.names)))
    }

    /// Call after a commit.
    pub(crate) fn confirm(&mut self) {
        self.unconfirmed.clear();
    }

    /// Call after a rollback: the layouts of that transaction do not exist.
    pub(crate) fn forget_unconfirmed(&mut self) {
        for names in self.unconfirmed.drain(..) {
            self.numbers.remove(&names);
        }
    }
}

/// Writes values and names, as `{"flow_rate":40.1}`.
pub(crate) fn object(channels: &Channels, text: &mut String) {
    text.clear();
    text.push('{');
    for (position, (name, value)) in channels.iter().enumerate() {
        separate(text, position);
        push_json(text, name);
        text.push(':');
        push_json(text, &value);
    }
    text.push('}');
}

fn array(channels: &Channels, text: &mut String) {
    text.clear();
    text.push('[');
    for (position, (_, value)) in channels.iter().enumerate() {
        separate(text, position);
        push_json(text, &value);
    }
    text.push(']');
}

fn separate(text: &mut String, position: usize) {
    if position > 0 {
        text.push(',');
    }
}

fn push_json<T: serde::Serialize + ?Sized>(text: &mut String, value: &T) {
    struct Utf8<'a>(&'a mut String);
    impl std::io::Write for Utf8<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.write_all(bytes).map(|()| bytes.len())
        }
        fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
            self.0
                .push_str(std::str::from_utf8(bytes).map_err(std::io::Error::other)?);
            Ok(())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    serde_json::to_writer(Utf8(text), value).expect("a text or a finite number is always JSON");
}

/// The names of a layout.
#[derive(Debug)]
pub(crate) struct Layout {
    /// As they are stored.
    pub(crate) json: String,
    pub(crate) names: Vec<CompactString>,
}

/// Reads a layout; `None` when `json` is not what this module writes.
pub(crate) fn layout(json: String) -> Option<Arc<Layout>> {
    let names: Vec<String> = serde_json::from_str(&json).ok()?;
    let names = names.into_iter().map(CompactString::from).collect();
    Some(Arc::new(Layout { json, names }))
}

/// The channels of an array of numbers.
pub(crate) fn decode_array(names: &[CompactString], text: &str) -> Option<Channels> {
    let values: Vec<f64> = serde_json::from_str(text).ok()?;
    if values.len() != names.len() {
        return None;
    }
    Channels::new(names.iter().cloned().zip(values).collect())
}

/// The channels of an object.
pub(crate) fn decode_object(text: &str) -> Option<Channels> {
    let values: HashMap<String, f64> = serde_json::from_str(text).ok()?;
    Channels::new(
        values
            .into_iter()
            .map(|(name, value)| (CompactString::from(name), value))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channels(values: &[(&str, f64)]) -> Channels {
        Channels::new(
            values
                .iter()
                .map(|(name, value)| (CompactString::from(*name), *value))
                .collect(),
        )
        .unwrap()
    }

    #[test]
    fn values_come_back_bit_for_bit() {
        let extremes = [
            0.1 + 0.2,
            5e-324,
            f64::MAX,
            -0.0,
            1.0 / 3.0,
            1e16,
            123_456_789.123_456_79,
        ];
        for value in extremes {
            let before = channels(&[("a", value), ("b \"quoted\", é", -value)]);
            let mut text = String::new();
            object(&before, &mut text);
            let after = decode_object(&text).unwrap();
            assert_eq!(after.get("a").unwrap().to_bits(), value.to_bits(), "{text}");
            array(&before, &mut text);
            let layout = layout(r#"["a","b \"quoted\", é"]"#.to_owned()).unwrap();
            assert_eq!(decode_array(&layout.names, &text).unwrap(), before);
        }
    }

    #[test]
    fn damaged_text_gives_no_channels() {
        let names = &layout(r#"["a","b"]"#.to_owned()).unwrap().names;
        for bad in ["[1.0]", "[1.0,2.0,3.0]", "[1.0,null]", "[1.0,2.0", "", "{}"] {
            assert_eq!(decode_array(names, bad), None, "{bad}");
        }
        assert_eq!(decode_object("[1.0]"), None);
        assert!(layout("{}".to_owned()).is_none());
    }
}
