//! `tidegate devices`: the registry.

use crate::cli::Place;
use crate::devices::{DeviceEntry, DevicesFile, MessageFormat};
use crate::setup;
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tidegate_envelope::id::DeviceId;
use tidegate_pki::ledger::How;
use tidegate_pki::profile::Profile;

use super::{Format, table};

/// List and add devices, and hand out their keys
#[derive(Debug, Args)]
pub(crate) struct Devices {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the registered devices
    List {
        /// How to print them
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Register a device, and issue its certificate
    Add(Add),
    /// Write a device's signing key to a file of mode 0600
    #[command(after_help = "Example:
  tidegate devices key device-001 --out device-001.key

The file's bytes are the key. Give it to that device only.")]
    Key {
        /// The device
        id: String,
        /// Where to write it
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

/// Register a device, and issue its certificate
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidegate devices add device-013 --zone kitchen --message-id HYDROLOGIC-Device-013
  tidegate devices add device-014 --zone kitchen --format cose-v1 --channels pressure_upstream,flow_rate")]
struct Add {
    /// The identity in its certificate, and its segment of the topic
    id: String,
    /// Its zone's id, as in devices.toml
    #[arg(long)]
    zone: String,
    /// The device_id that its messages carry [default: by the id]
    #[arg(long)]
    message_id: Option<String>,
    /// How it writes its messages
    #[arg(long, value_enum, default_value_t = MessageFormat::JsonV1)]
    format: MessageFormat,
    /// What the numbers of its messages are, in their order
    #[arg(
        long,
        value_name = "NAME,…",
        value_delimiter = ',',
        required_if_eq("format", "cose-v1")
    )]
    channels: Vec<String>,
}

impl Devices {
    pub(crate) fn run(self, place: &Place) -> Result<ExitCode> {
        match self.action {
            Action::List { format } => list(place, format)?,
            Action::Add(add) => add.run(place)?,
            Action::Key { id, out } => key(place, &id, &out)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn list(place: &Place, format: Format) -> Result<()> {
    let file = DevicesFile::load(&place.load()?.files.registry)?;
    match format {
        Format::Json => {
            for device in &file.devices {
                anstream::println!("{}", serde_json::to_string(device)?);
            }
        }
        Format::Csv | Format::Table => {
            let header = [
                "id",
                "topic",
                "message id",
                "zone",
                "class",
                "format",
                "enabled",
                "key epoch",
            ];
            let rows = file.devices.iter().map(|device| {
                [
                    device.id.clone(),
                    device.topic.clone(),
                    device.message_id.clone(),
                    device.zone.clone(),
                    device.class.clone(),
                    device.format.name().to_owned(),
                    device.enabled.to_string(),
                    device.key_epoch.to_string(),
                ]
            });
            table::print(header, rows, format)?;
        }
    }
    Ok(())
}

impl Add {
    fn run(self, place: &Place) -> Result<()> {
        let (config, _) = setup::prepare(place, None)?;
        let mut file = DevicesFile::load(&config.files.registry)?;
        let (id, zone) = (self.id, self.zone);
        if file.zones.iter().all(|known| known.id != zone) {
            let known: Vec<_> = file.zones.iter().map(|zone| zone.id.as_str()).collect();
            bail!("there is no zone `{zone}`; zones are {}", known.join(", "));
        }
        let mut device = DeviceEntry::new(&id, &zone);
        if let Some(message_id) = self.message_id {
            device.message_id = message_id;
        }
        device.format = self.format;
        device.channels = self.channels;
        file.devices.push(device);
        // Checks names and duplicates before anything is written.
        file.registry(&config)?;
        // First, because a running Tidegate lets it in as soon as the registry says so.
        if !config.files.certs.join(format!("{id}.pem")).exists() {
            let profile = Profile::device(DeviceId::new(&id)?);
            let path = setup::Ca::open(&config)?.issue(&id, &profile, How::Issued, false)?;
            anstream::println!("issued {}", path.display());
        }
        file.save(&config.files.registry)?;
        anstream::println!("added {id} to {}", config.files.registry.display());
        anstream::println!(
            "a running `tidegate up` lets it in within a second; its page shows it after a restart"
        );
        Ok(())
    }
}

fn key(place: &Place, id: &str, out: &Path) -> Result<()> {
    let config = place.load()?;
    let file = DevicesFile::load(&config.files.registry)?;
    let device = file.find(id)?;
    let bytes = device.key_bytes(&config)?;
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(out)
        .and_then(|mut file| file.write_all(&bytes))
        .with_context(|| format!("cannot write {}", out.display()))?;
    anstream::println!("wrote the key of {id} to {}", out.display());
    Ok(())
}
