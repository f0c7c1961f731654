//! A large registry's text read in pieces: TOML's tree of 1,000,000 devices takes 3 GB at once, and
//! a running Tidegate that reads a changed file must not need that.
//!
//! A text is cut before lines that begin with `[[device]]`. In valid TOML such a line begins an
//! entry, except inside a text of several lines, and a file that has those is read whole. So is one
//! with a mistake, so that the error names its line.

use super::{DeviceEntry, DevicesFile, ZoneEntry};
use serde::Deserialize;
use std::ops::Range;

/// A text from this size on is read in pieces.
const LARGE_BYTES: usize = 4 << 20;
/// Size of a piece, at least.
const PIECE_BYTES: usize = 1 << 20;
const HEADER: &str = "[[device]]";

/// What a piece may hold.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Piece {
    #[serde(rename = "zone", default)]
    zones: Vec<ZoneEntry>,
    #[serde(rename = "device", default)]
    devices: Vec<DeviceEntry>,
}

/// Reads a registry.
pub(super) fn parse(text: &str) -> Result<DevicesFile, toml::de::Error> {
    if text.len() >= LARGE_BYTES
        && let Some(file) = parse_pieces(text, PIECE_BYTES)
    {
        return Ok(file);
    }
    toml::from_str(text)
}

/// Where each entry begins and ends, its header and the comments behind it included, for a text of
/// `devices` entries; none where that cannot be told without reading the whole.
pub(super) fn entries(text: &str, devices: usize) -> Option<Vec<Range<usize>>> {
    let starts = starts(text)?;
    let ends = starts.iter().copied().skip(1).chain([text.len()]);
    (starts.len() == devices).then(|| {
        starts
            .iter()
            .copied()
            .zip(ends)
            .map(|(start, end)| start..end)
            .collect()
    })
}

/// Where a line begins with the header of an entry.
fn starts(text: &str) -> Option<Vec<usize>> {
    if text.contains("\"\"\"") || text.contains("'''") {
        return None;
    }
    let begins_line = |start: &usize| *start == 0 || text.as_bytes()[start - 1] == b'\n';
    Some(
        text.match_indices(HEADER)
            .map(|(start, _)| start)
            .filter(begins_line)
            .collect(),
    )
}

fn parse_pieces(text: &str, piece_bytes: usize) -> Option<DevicesFile> {
    let mut cuts = vec![0];
    let mut last = 0;
    for start in starts(text)? {
        // What stands before the first entry is a piece of its own, however small.
        if cuts.len() == 1 || start - last >= piece_bytes {
            cuts.push(start);
            last = start;
        }
    }
    cuts.push(text.len());
    let pieces: Vec<&str> = cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let read = |pieces: &[&str]| -> Option<Vec<Piece>> {
        pieces.iter().map(|piece| toml::from_str(piece).ok()).collect()
    };
    let read = std::thread::scope(|scope| {
        let shares = pieces.chunks(pieces.len().div_ceil(threads));
        let shares: Vec<_> = shares.map(|share| scope.spawn(move || read(share))).collect();
        let joined = shares.into_iter().map(|share| share.join().ok()?);
        joined.collect::<Option<Vec<_>>>()
    })?;
    let mut pieces = read.into_iter().flatten();
    let before = pieces.next()?;
    // A list in one place and entries in others are not one TOML document.
    if before.zones.is_empty() || !before.devices.is_empty() {
        return None;
    }
    let mut file = DevicesFile {
        zones: before.zones,
        devices: Vec::new(),
        text: None,
    };
    for mut piece in pieces {
        file.zones.append(&mut piece.zones);
        file.devices.append(&mut piece.devices);
    }
    Some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZONE: &str = "# first\n[[zone]]\nid = \"z\"\nname = \"Z\"\n";

    fn device(number: u32) -> String {
        format!(
            "[[device]] # {number}\nid = \"d{number}\"\ntopic = \"d{number}\"\nmessage_id = \"d{number}\"\nzone = \"z\"\n\n"
        )
    }

    #[test]
    fn pieces_give_what_the_whole_gives() {
        let devices: String = (0..100).map(device).collect();
        let late_zone = "[[zone]]\nid = \"y\"\nname = \"Y\"\n";
        for text in [
            format!("{ZONE}{devices}"),
            format!("{ZONE}{devices}{late_zone}{}", device(100)),
            format!(
                "{ZONE}{}[[ device ]]\nid = \"e\"\ntopic = \"e\"\nmessage_id = \"e\"\nzone = \"z\"\n",
                device(1)
            ),
            format!(
                "{ZONE}{}# [[device]]\n  [[device]]\nid = \"e\"\ntopic = \"e\"\nmessage_id = \"e\"\nzone = \"z\"\n",
                device(1)
            ),
        ] {
            let whole: DevicesFile = toml::from_str(&text).unwrap();
            for piece_bytes in [1, 300, 1 << 20] {
                let pieces = parse_pieces(&text, piece_bytes).unwrap();
                assert_eq!((&pieces.zones, &pieces.devices), (&whole.zones, &whole.devices));
            }
        }
    }

    #[test]
    fn text_that_cannot_be_cut_or_has_a_mistake_is_left_to_be_read_whole() {
        let inline = "zone = [{ id = \"z\", name = \"Z\" }]\ndevice = [{ id = \"d\", topic = \"d\", message_id = \"d\", zone = \"z\" }]\n";
        for text in [
            format!(
                "{ZONE}{}\nclass = \"\"\"\n[[device]]\n\"\"\"\n",
                device(1).trim_end()
            ),
            format!("{ZONE}{}\nclass = '''\n[[device]]\n'''\n", device(1).trim_end()),
            format!("{inline}{}", device(2)),
            format!("{ZONE}{}nonsense = 1\n", device(1)),
            device(1),
            String::new(),
        ] {
            assert!(parse_pieces(&text, 1).is_none(), "{text}");
        }
        let whole = format!("{ZONE}{}\nclass = '''\n[[device]]\n'''\n", device(1).trim_end());
        assert_eq!(parse(&whole).unwrap().devices[0].class, "[[device]]\n");
    }

    #[test]
    fn large_registry_with_a_mistake_is_refused_with_its_line() {
        let devices: String = (0..60_000).map(device).collect();
        let text = format!("{ZONE}{devices}{}\nwrong = 1\n", device(60_000).trim_end());
        assert!(text.len() >= LARGE_BYTES);
        let line = text.lines().count();
        let error = parse(&text).map(drop).unwrap_err().to_string();
        assert!(
            error.contains(&format!("line {line}")) && error.contains("wrong"),
            "{error}"
        );
        let mended = parse(&text.replace("wrong = 1", "window = 0")).ok();
        assert_eq!(mended.map(|file| file.devices.len()), Some(60_001));
    }

    #[test]
    fn entries_reach_to_the_next_and_must_be_as_many_as_expected() {
        let text = format!("{ZONE}{}{}# end\n", device(1), device(2));
        let found = entries(&text, 2).unwrap();
        assert_eq!(&text[found[0].clone()], device(1));
        assert_eq!(&text[found[1].clone()], format!("{}# end\n", device(2)));
        assert_eq!(entries(&text, 3), None);
    }
}
