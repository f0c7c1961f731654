//! `tidegate keys retire`: an end to older keys, and to the key of a stolen device.

use super::made::{Made, Out};
use super::standing::{self, Phase, Standing};
use super::{positions, shared_secret};
use crate::config::Config;
use crate::devices::{DevicesFile, LAST_EPOCH};
use anyhow::{Context, Result, bail};
use clap::Args;
use owo_colors::OwoColorize;
use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;

/// Refuse a device's older keys from now on, or all that a stolen device has
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidegate keys retire device-001                              only its newest key is accepted
  tidegate keys retire device-001 --below 3                    keys before epoch 3 are refused
  tidegate keys retire device-001 --stolen --out new-keys      whatever it holds is refused

A rotation retires the old key by itself. This is for one that must not be waited for.")]
pub(super) struct Retire {
    /// The devices
    #[arg(required = true, value_name = "DEVICE")]
    devices: Vec<String>,
    /// The lowest epoch that stays accepted [default: the newest]
    #[arg(long, value_name = "EPOCH", conflicts_with = "stolen")]
    below: Option<u16>,
    /// Go on to a new key at once, and refuse every other
    #[arg(long)]
    stolen: bool,
    /// Write the new keys to this folder, one file of mode 0600 a device; - writes one to standard output
    #[arg(long, value_name = "DIR", requires = "stolen")]
    out: Option<PathBuf>,
    /// Do not ask, also where a device is cut off
    #[arg(long)]
    yes: bool,
}

impl Retire {
    pub(super) fn run(self, config: &Config) -> Result<()> {
        let mut file = DevicesFile::load(&config.files.registry)?;
        let chosen = positions(&file, &self.devices)?;
        let seen = standing::seen(config)?;
        let mut cut_off = Vec::new();
        for position in &chosen {
            let device = &file.devices[*position];
            let standing = Standing::of(device, config, &seen);
            if let (Phase::Shared, Some(secret)) = (standing.phase, &config.legacy_shared_secret) {
                bail!(shared_secret(device, secret));
            }
            let lowest = self.below.unwrap_or(device.key_epoch);
            if lowest > device.key_epoch {
                bail!(
                    "{}'s newest key has epoch {}, so nothing would be left with --below {lowest}; \
                     `tidegate keys rotate` makes the next one, --stolen does both at once",
                    device.id,
                    device.key_epoch
                );
            }
            if standing.seen.is_some_and(|seen| seen < lowest) {
                cut_off.push(device.id.clone());
            }
        }
        if self.stolen {
            return self.replace(file, &chosen, config);
        }
        if !cut_off.is_empty() && !self.yes {
            confirm(&format!(
                "{} last signed with an older key, and will be refused until it has the newest",
                cut_off.join(", ")
            ))?;
        }
        let mut left_over = Vec::new();
        for position in &chosen {
            let device = &mut file.devices[*position];
            let lowest = self
                .below
                .unwrap_or(device.key_epoch)
                .max(device.lowest_key_epoch);
            device.lowest_key_epoch = lowest;
            if lowest == device.key_epoch {
                left_over.extend(device.previous_key_file.take());
            }
        }
        file.save(&config.files.registry)?;
        for position in chosen {
            let device = &file.devices[position];
            anstream::println!(
                "{} accepts keys of epoch {} to {}",
                device.id,
                device.oldest_accepted(),
                device.key_epoch
            );
        }
        for path in left_over {
            let path = DevicesFile::folder(config).join(path);
            anstream::println!("{} is no longer used; delete it", path.display());
        }
        Ok(())
    }

    /// The step for a stolen device: a new key, and no other.
    fn replace(&self, mut file: DevicesFile, chosen: &[usize], config: &Config) -> Result<()> {
        let out = Out::new(self.out.clone(), chosen.len())?;
        let mut made = Made::default();
        for position in chosen {
            let device = &mut file.devices[*position];
            if device.key_epoch == LAST_EPOCH {
                bail!(
                    "{} has reached key epoch {LAST_EPOCH}, the last one; set enabled = false for it, and register \
                     it anew under another id",
                    device.id
                );
            }
            let epoch = device.key_epoch + 1;
            if device.key_file.is_some() {
                device.key_file = Some(made.key_file(config, device, epoch)?);
                device.previous_key_file = None;
            }
            (device.key_epoch, device.lowest_key_epoch) = (epoch, epoch);
        }
        let replaced = || chosen.iter().map(|position| &file.devices[*position]);
        let paths = out.hand(config, replaced(), &mut made)?;
        let one = replaced().next().cloned().context("no device is named")?;
        file.save(&config.files.registry)?;
        made.keep();
        for (row, position) in chosen.iter().enumerate() {
            let device = &file.devices[*position];
            let place = paths
                .get(row)
                .map(|path| format!(", which is in {}", path.display()));
            anstream::eprintln!(
                "{} is refused until it has the key of epoch {}{}",
                device.id,
                device.key_epoch,
                place.unwrap_or_default()
            );
        }
        anstream::eprintln!(
            "{} a stolen device can still connect: revoke its certificate, and issue another for the one that \
             takes its place",
            "note:".yellow().bold()
        );
        out.finish(config, &one)
    }
}

/// Asks, and fails unless the answer is yes.
fn confirm(what: &str) -> Result<()> {
    if !std::io::stdin().is_terminal() {
        bail!("{what}; nothing was changed. Give --yes to go on");
    }
    anstream::eprint!("{what}. Go on? [y/N] ");
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .context("cannot read the answer")?;
    if !matches!(answer.trim(), "y" | "Y" | "yes") {
        bail!("nothing was changed");
    }
    Ok(())
}
