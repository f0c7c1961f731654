//! The registry file `devices.toml`: which devices may speak, and which key each signs with.

mod entry;
mod file;
mod keys;
mod pieces;

use crate::config::Config;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::path::Path;
use tidegate_envelope::id::ZoneId;
use tidegate_verify::registry::{Device, Registry, TopicShape, Zone};

pub(crate) use entry::{DeviceEntry, MessageFormat};
use keys::Keys;
pub(crate) use keys::{LAST_EPOCH, Source, read_secret};

/// A registry larger than this is refused: the state of every device is held in memory.
const MAX_DEVICES: usize = 1_000_000;
/// Devices whose keys one thread derives at least; fewer are not worth a thread.
const DEVICES_PER_THREAD: usize = 8_192;

/// The registry file as TOML says it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DevicesFile {
    #[serde(rename = "zone")]
    pub(crate) zones: Vec<ZoneEntry>,
    #[serde(rename = "device", default)]
    pub(crate) devices: Vec<DeviceEntry>,
    /// The text that this was read from; none for one that is new.
    #[serde(skip)]
    text: Option<String>,
}

/// A part of the building.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ZoneEntry {
    pub(crate) id: String,
    pub(crate) name: String,
}

impl DevicesFile {
    /// Three zones and `count` devices, dealt to them in turn.
    pub(crate) fn for_demo(count: u32) -> Self {
        let zones = [
            ("main_building", "Main Building"),
            ("pool_spa", "Pool & Spa"),
            ("kitchen", "Kitchen & Laundry"),
        ];
        let mut file = Self {
            zones: zones
                .map(|(id, name)| ZoneEntry {
                    id: id.into(),
                    name: name.into(),
                })
                .into(),
            devices: Vec::new(),
            text: None,
        };
        file.extend_to(count);
        file
    }

    /// Adds devices until there are `count`; says how many were added.
    pub(crate) fn extend_to(&mut self, count: u32) -> usize {
        let before = self.devices.len();
        for number in 1.. {
            if self.devices.len() >= count as usize {
                break;
            }
            let id = format!("device-{number:03}");
            if self.devices.iter().any(|device| device.id == id) {
                continue;
            }
            let zone = &self.zones[(number - 1) % self.zones.len()].id;
            self.devices.push(DeviceEntry::new(&id, zone));
        }
        self.devices.len() - before
    }

    /// Reads the registry file.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| {
            format!(
                "cannot read the registry {} (`tidegate devices add` or `tidegate up` writes one)",
                path.display()
            )
        })?;
        let mut file =
            Self::parse(&text).with_context(|| format!("{} is not a valid registry", path.display()))?;
        file.text = Some(text);
        Ok(file)
    }

    /// Reads the text of a registry file.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let file: Self =
            pieces::parse(text).map_err(|error| anyhow::anyhow!("{}", error.to_string().trim_end()))?;
        if file.devices.len() > MAX_DEVICES {
            bail!(
                "it names {} devices; at most {MAX_DEVICES} are supported",
                file.devices.len()
            );
        }
        Ok(file)
    }

    /// The folder that paths in the registry file are relative to.
    pub(crate) fn folder(config: &Config) -> &Path {
        config.files.registry.parent().unwrap_or(Path::new("."))
    }

    /// The entry of a device.
    pub(crate) fn find(&self, id: &str) -> Result<&DeviceEntry> {
        Ok(&self.devices[self.position(id)?])
    }

    /// Where a device stands in the file.
    pub(crate) fn position(&self, id: &str) -> Result<usize> {
        self.devices
            .iter()
            .position(|device| device.id == id)
            .with_context(|| format!("there is no device `{id}`; `tidegate devices list` shows all"))
    }

    /// The checked registry, with every device's keys.
    pub(crate) fn registry(&self, config: &Config) -> Result<Registry> {
        Keys::open(config, &self.devices)
            .and_then(|keys| self.registry_with(&keys, config))
            .with_context(|| format!("in {}", config.files.registry.display()))
    }

    /// The checked registry, with keys that nobody has.
    pub(crate) fn registry_without_secrets(&self, config: &Config) -> Result<Registry> {
        self.registry_with(&Keys::of_zeros(), config)
    }

    fn registry_with(&self, keys: &Keys, config: &Config) -> Result<Registry> {
        let zones = self
            .zones
            .iter()
            .map(|zone| {
                Ok(Zone {
                    id: ZoneId::new(&zone.id)?,
                    name: zone.name.clone(),
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let devices = self.checked_devices(keys, config)?;
        let topics = TopicShape::new(&config.telemetry_topic).context("topics.telemetry")?;
        Ok(Registry::new(zones, devices, topics)?)
    }

    /// Every entry checked, with its keys. Deriving those is most of the work for a large registry,
    /// so it is shared between all processors.
    fn checked_devices(&self, keys: &Keys, config: &Config) -> Result<Vec<Device>> {
        let checked = |entries: &[DeviceEntry]| {
            entries
                .iter()
                .map(|entry| {
                    entry
                        .device(keys, config)
                        .with_context(|| format!("device {}", entry.id))
                })
                .collect::<Result<Vec<_>>>()
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let share = self.devices.len().div_ceil(threads).max(DEVICES_PER_THREAD);
        if self.devices.len() <= share {
            return checked(&self.devices);
        }
        let mut devices = Vec::with_capacity(self.devices.len());
        std::thread::scope(|scope| {
            let shares: Vec<_> = self
                .devices
                .chunks(share)
                .map(|entries| scope.spawn(move || checked(entries)))
                .collect();
            for share in shares {
                match share.join() {
                    Ok(checked) => devices.append(&mut checked?),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            Ok(devices)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registry_that_is_shared_between_threads_keeps_its_order_and_its_first_error() {
        let config = Config::parse("", Path::new(".")).unwrap();
        let mut file = DevicesFile::for_demo(0);
        let count = 3 * DEVICES_PER_THREAD + 1;
        file.devices = (0..count)
            .map(|number| DeviceEntry::new(&format!("device-{number}"), "kitchen"))
            .collect();
        let registry = file.registry_without_secrets(&config).unwrap();
        let named = |(device, entry): (&tidegate_verify::registry::Entry, &DeviceEntry)| {
            device.id.as_str() == entry.id
        };
        assert_eq!(registry.devices().len(), count);
        assert!(registry.devices().iter().zip(&file.devices).all(named));
        for broken in [count - 1, DEVICES_PER_THREAD] {
            file.devices[broken].window = 3;
            let error = file.registry_without_secrets(&config).unwrap_err();
            assert!(format!("{error:#}").starts_with(&format!("device device-{broken}: window 3")));
        }
    }
}
