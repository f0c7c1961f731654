//! `tidegate keys rotate`: the next key, while the present one goes on working.

use super::made::{Made, Out};
use super::standing::{self, Phase, Standing};
use super::{positions, shared_secret};
use crate::commands::table;
use crate::config::Config;
use crate::devices::{DeviceEntry, DevicesFile, LAST_EPOCH, read_secret};
use anyhow::{Result, bail};
use clap::Args;
use owo_colors::OwoColorize;
use std::path::{Path, PathBuf};

/// Devices that a message names before it only counts.
const NAMED: usize = 5;

/// Give devices their next key; the present one works until the next has been seen
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidegate keys rotate device-001 --out new-keys
  tidegate keys rotate --all --dry-run
  tidegate keys rotate device-001 --out - | ssh device-001 'cat > signing.key'

Each file holds the bytes of one key, and belongs on that device only. Until a device signs with
its new key the old one goes on working; its first message with the new key retires the old one.")]
pub(super) struct Rotate {
    /// The devices
    #[arg(required_unless_present = "all", value_name = "DEVICE")]
    devices: Vec<String>,
    /// Every enabled device, but those whose last rotation is not finished
    #[arg(long, conflicts_with = "devices")]
    all: bool,
    /// Write the new keys to this folder, one file of mode 0600 a device; - writes one to standard output
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// For a device provisioned elsewhere: the file with its next key [default: a new random one]
    #[arg(long, value_name = "FILE", conflicts_with = "all")]
    key_file: Option<PathBuf>,
    /// Rotate although the last rotation is not finished; the key that the device uses may be cut off
    #[arg(long)]
    force: bool,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
}

impl Rotate {
    pub(super) fn run(self, config: &Config) -> Result<()> {
        let mut file = DevicesFile::load(&config.files.registry)?;
        let chosen = self.choose(&file, config)?;
        let out = Out::new(self.out.clone(), chosen.len())?;
        if self.dry_run {
            anstream::eprintln!("nothing is changed; this would be:");
            return self.report(&file, &chosen, &[]);
        }
        let mut made = Made::default();
        for position in &chosen {
            let device = &mut file.devices[*position];
            let epoch = device.key_epoch + 1;
            let next = match (&device.key_file, &self.key_file) {
                (None, _) => None,
                (Some(_), Some(given)) => Some(given.clone()),
                (Some(_), None) => Some(made.key_file(config, device, epoch)?),
            };
            if let Some(next) = next {
                device.previous_key_file = device.key_file.replace(next);
            }
            device.lowest_key_epoch = device.key_epoch;
            device.key_epoch = epoch;
        }
        let rotated = || chosen.iter().map(|position| &file.devices[*position]);
        let paths = out.hand(config, rotated(), &mut made)?;
        let one = rotated().next().cloned();
        file.save(&config.files.registry)?;
        made.keep();
        self.report(&file, &chosen, &paths)?;
        one.map_or(Ok(()), |device| out.finish(config, &device))
    }

    /// Which devices are rotated; refuses what would lock a device out.
    fn choose(&self, file: &DevicesFile, config: &Config) -> Result<Vec<usize>> {
        let seen = standing::seen(config)?;
        let mut chosen = Vec::new();
        let mut unfinished = Vec::new();
        for position in positions(file, &self.devices)? {
            let device = &file.devices[position];
            if self.all && !device.enabled {
                continue;
            }
            if let (Phase::Shared, Some(secret)) = (
                Standing::of(device, config, &seen).phase,
                &config.legacy_shared_secret,
            ) {
                bail!(shared_secret(device, secret));
            }
            if device.key_epoch == LAST_EPOCH {
                bail!(
                    "{} has reached key epoch {LAST_EPOCH}, the last one; register it anew under another id",
                    device.id
                );
            }
            match Standing::of(device, config, &seen).phase {
                Phase::Rotating | Phase::Behind if !self.force => unfinished.push(position),
                _ => chosen.push(position),
            }
        }
        if self.all && !unfinished.is_empty() {
            anstream::eprintln!(
                "{} {} left out, whose last rotation is not finished: {}",
                "note:".yellow().bold(),
                unfinished.len(),
                names(file, &unfinished)
            );
        } else if let Some(first) = unfinished.first() {
            bail!(refusal(&Standing::of(&file.devices[*first], config, &seen)));
        }
        if chosen.is_empty() {
            bail!("no device is left to rotate");
        }
        self.check_key_file(file, &chosen, config)?;
        Ok(chosen)
    }

    fn check_key_file(&self, file: &DevicesFile, chosen: &[usize], config: &Config) -> Result<()> {
        let Some(path) = &self.key_file else {
            return Ok(());
        };
        let ([position], true) = (chosen, path.is_absolute()) else {
            bail!("--key-file holds the key of one device, and is given by its whole path");
        };
        let device = &file.devices[*position];
        let Some(present) = &device.key_file else {
            bail!(
                "{}'s key is derived from the root key; --key-file is for devices with a key_file",
                device.id
            );
        };
        let same = *read_secret(path)? == *read_secret(&DevicesFile::folder(config).join(present))?;
        if same {
            bail!("{} holds the key that {} has already", path.display(), device.id);
        }
        Ok(())
    }

    /// Says what was done, to standard error where the key goes to standard output.
    fn report(&self, file: &DevicesFile, chosen: &[usize], paths: &[PathBuf]) -> Result<()> {
        let step = usize::from(self.dry_run);
        let mut table = table::new(&["device", "epoch", "accepted until then", "new key"]);
        for (row, position) in chosen.iter().enumerate() {
            let device = &file.devices[*position];
            let newest = usize::from(device.key_epoch) + step;
            let place = paths.get(row).map(|path| path.display().to_string());
            table.add_row([
                device.id.clone(),
                newest.to_string(),
                format!("{} and {newest}", newest - 1),
                place.unwrap_or_else(|| self.place(device)),
            ]);
        }
        let to_stdout = self.out.as_deref() == Some(Path::new("-"));
        let text = format!("{table}\n");
        if to_stdout {
            anstream::eprint!("{text}");
        } else {
            anstream::print!("{text}");
        }
        if !self.dry_run {
            anstream::eprintln!(
                "\nGive each device its new key; the old one works until the first message with the new one.\n\
                 `tidegate keys list` shows when that has come."
            );
        }
        Ok(())
    }

    fn place(&self, device: &DeviceEntry) -> String {
        match &self.out {
            Some(path) if path.as_os_str() == "-" => "standard output".into(),
            Some(folder) => folder.display().to_string(),
            None => format!("tidegate devices key {} --out FILE", device.id),
        }
    }
}

fn refusal(standing: &Standing<'_>) -> String {
    let (device, newest) = (standing.device, standing.newest);
    if standing.phase == Phase::Behind {
        return format!(
            "{device}: {}, and the registry says {newest} (is devices.toml from a backup?); set its key_epoch right, \
             or use --force",
            standing.state
        );
    }
    format!(
        "{device} has not been seen with its key of epoch {newest} yet; another step would refuse the key that it \
         may still sign with. Give it that key (`tidegate devices key {device} --out FILE`) and wait until \
         `tidegate keys list {device}` says current, or use --force"
    )
}

fn names(file: &DevicesFile, positions: &[usize]) -> String {
    let mut names: Vec<_> = positions
        .iter()
        .take(NAMED)
        .map(|position| file.devices[*position].id.as_str())
        .collect();
    if positions.len() > NAMED {
        names.push("…");
    }
    names.join(", ")
}
