//! `tidegate keys`: the life of the devices' signing keys.

mod made;
mod retire;
mod rotate;
mod standing;

use super::{Format, table};
use crate::cli::Place;
use crate::config::Config;
use crate::devices::{DeviceEntry, DevicesFile};
use anyhow::Result;
use clap::{Args, Subcommand};
use std::path::Path;
use std::process::ExitCode;

use retire::Retire;
use rotate::Rotate;
use standing::{Phase, Standing};

/// List, rotate and retire the devices' signing keys
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidegate keys list
  tidegate keys rotate device-001 --out new-keys
  tidegate keys retire device-001 --stolen --out new-keys

Each key has an epoch. A device signs with its newest; while keys are rotated the one before is
accepted too, until the first message with the newest has been. A running Tidegate takes every
change within a second.")]
pub(crate) struct Keys {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show which key each device has, which are accepted, and which was last seen
    #[command(after_help = "Examples:
  tidegate keys list
  tidegate keys list device-001 device-002
  tidegate keys list --format json")]
    List {
        /// These devices only
        devices: Vec<String>,
        /// How to print them
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    Rotate(Rotate),
    Retire(Retire),
}

impl Keys {
    pub(crate) fn run(self, place: &Place) -> Result<ExitCode> {
        let config = place.load()?;
        match self.action {
            Action::List { devices, format } => list(&config, &devices, format)?,
            Action::Rotate(rotate) => rotate.run(&config)?,
            Action::Retire(retire) => retire.run(&config)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn list(config: &Config, named: &[String], format: Format) -> Result<()> {
    let file = DevicesFile::load(&config.files.registry)?;
    let seen = standing::seen(config)?;
    let standings: Vec<_> = positions(&file, named)?
        .into_iter()
        .map(|position| Standing::of(&file.devices[position], config, &seen))
        .collect();
    if format == Format::Json {
        for standing in &standings {
            anstream::println!("{}", serde_json::to_string(standing)?);
        }
        return Ok(());
    }
    let header = [
        "device",
        "source",
        "newest",
        "accepted from",
        "last seen",
        "state",
    ];
    let rows = standings.iter().map(|standing| {
        [
            standing.device.to_owned(),
            standing.source.to_owned(),
            standing.newest.to_string(),
            standing.lowest.to_string(),
            standing.seen.map_or("never".into(), |seen| seen.to_string()),
            standing.state.clone(),
        ]
    });
    table::print(header, rows, format)
}

/// How many devices have a newer key than the one they were last seen with.
pub(super) fn unfinished(file: &DevicesFile, config: &Config) -> Result<usize> {
    let seen = standing::seen(config)?;
    let phases = file
        .devices
        .iter()
        .map(|device| Standing::of(device, config, &seen).phase);
    let unfinished = |phase: &Phase| matches!(phase, Phase::Rotating | Phase::Waiting | Phase::Behind);
    Ok(phases.filter(unfinished).count())
}

/// Where the named devices stand in the file; all of them when none is named.
fn positions(file: &DevicesFile, named: &[String]) -> Result<Vec<usize>> {
    if named.is_empty() {
        return Ok((0..file.devices.len()).collect());
    }
    let mut positions = Vec::with_capacity(named.len());
    for id in named {
        let position = file.position(id)?;
        // Named twice means once.
        if !positions.contains(&position) {
            positions.push(position);
        }
    }
    Ok(positions)
}

/// What keeps a device's key from being changed by epochs: it has none of its own.
fn shared_secret(device: &DeviceEntry, path: &Path) -> String {
    format!(
        "{id} signs with the secret that all devices share ({secret}); a change of its epoch changes no key. \
         Give it a key of its own: write key_file = \"keys/{id}.key\", previous_key_file = \"{secret}\" and \
         key_epoch = 1 into its entry; both are accepted until its first message with the new one",
        id = device.id,
        secret = path.display(),
    )
}
