//! How a device's key stands: what the registry says, against what was last accepted.

use crate::config::Config;
use crate::devices::{DeviceEntry, Source};
use anyhow::{Context, Result};
use serde::Serialize;
use std::collections::HashMap;
use tidegate_envelope::id::DeviceId;
use tidegate_store::reader::Reader;
use tidegate_verify::state::DeviceState;

/// The epoch last accepted from each device.
pub(super) type Seen = HashMap<String, u16>;

/// One device's key.
#[derive(Debug, Serialize)]
pub(super) struct Standing<'d> {
    pub(super) device: &'d str,
    pub(super) source: &'static str,
    #[serde(rename = "newest_epoch")]
    pub(super) newest: u16,
    #[serde(rename = "lowest_accepted_epoch")]
    pub(super) lowest: u16,
    #[serde(rename = "last_seen_epoch")]
    pub(super) seen: Option<u16>,
    pub(super) state: String,
    #[serde(skip)]
    pub(super) phase: Phase,
}

/// Where in its life a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The newest key was seen; it is the only one accepted.
    Current,
    /// No message was ever accepted, and only the newest key is.
    Unseen,
    /// The newest key was not seen yet, and the one before it is accepted too.
    Rotating,
    /// The newest key was not seen yet, and no other is accepted.
    Waiting,
    /// A key was accepted that the registry does not know yet: the file is older than the database.
    Behind,
    /// There is no key of its own.
    Shared,
}

/// Reads from the database which epochs were last accepted; without a database, none was.
pub(super) fn seen(config: &Config) -> Result<Seen> {
    let path = config.files.database();
    if !path.exists() {
        return Ok(Seen::new());
    }
    let states = Reader::open(&path)
        .and_then(|reader| reader.replay_states())
        .with_context(|| {
            format!(
                "cannot read from the database {} which keys were seen",
                path.display()
            )
        })?;
    let epoch = |(device, state): (DeviceId, DeviceState)| (device.to_string(), state.epoch().0);
    Ok(states.into_iter().map(epoch).collect())
}

impl<'d> Standing<'d> {
    pub(super) fn of(device: &'d DeviceEntry, config: &Config, seen: &Seen) -> Self {
        let source = device.key_source(config);
        let newest = device.key_epoch;
        let seen = seen.get(&device.id).copied();
        let accepted = device.oldest_accepted();
        let phase = match (source, seen) {
            (Source::Shared, _) => Phase::Shared,
            (_, Some(seen)) if seen == newest => Phase::Current,
            (_, Some(seen)) if seen > newest => Phase::Behind,
            (_, None) if accepted == newest => Phase::Unseen,
            (_, Some(seen)) if seen < accepted => Phase::Waiting,
            (_, _) => Phase::Rotating,
        };
        let mut state = match phase {
            Phase::Current => "current".to_owned(),
            Phase::Unseen => "no message accepted yet".to_owned(),
            Phase::Rotating => format!("rotating: epoch {newest} not yet seen"),
            Phase::Waiting => format!("waiting: epoch {newest} not yet seen, older ones are refused"),
            Phase::Behind => format!(
                "the registry is behind: epoch {} was accepted",
                seen.unwrap_or_default()
            ),
            Phase::Shared => "shared with every device".to_owned(),
        };
        if !device.enabled {
            state.push_str("; disabled");
        }
        Self {
            device: &device.id,
            source: source.name(),
            newest,
            // The guard retires an epoch with the first message of a newer one.
            lowest: accepted.max(seen.unwrap_or(0)),
            seen,
            state,
            phase,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phase_follows_from_what_is_accepted_and_what_was_seen() {
        let derived = Config::parse("", std::path::Path::new(".")).unwrap();
        let shared = "[keys]\nlegacy_shared_secret = \"s\"";
        let shared = Config::parse(shared, std::path::Path::new(".")).unwrap();
        for (config, newest, lowest, seen, phase, accepted) in [
            (&derived, 0, 0, None, Phase::Unseen, 0),
            (&derived, 0, 0, Some(0), Phase::Current, 0),
            (&derived, 3, 2, Some(2), Phase::Rotating, 2),
            (&derived, 3, 0, Some(2), Phase::Rotating, 2),
            (&derived, 3, 2, None, Phase::Rotating, 2),
            (&derived, 3, 2, Some(3), Phase::Current, 3),
            (&derived, 3, 3, Some(2), Phase::Waiting, 3),
            (&derived, 3, 3, None, Phase::Unseen, 3),
            (&derived, 3, 2, Some(1), Phase::Waiting, 2),
            (&derived, 3, 2, Some(4), Phase::Behind, 4),
            (&shared, 0, 0, Some(0), Phase::Shared, 0),
        ] {
            let mut device = DeviceEntry::new("device-001", "kitchen");
            (device.key_epoch, device.lowest_key_epoch) = (newest, lowest);
            let seen = seen
                .map(|epoch| ("device-001".to_owned(), epoch))
                .into_iter()
                .collect();
            let standing = Standing::of(&device, config, &seen);
            assert_eq!(
                (standing.phase, standing.lowest),
                (phase, accepted),
                "{standing:?}"
            );
        }
    }
}
