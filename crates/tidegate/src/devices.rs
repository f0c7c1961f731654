//! The registry file `devices.toml`: which devices may speak, and which key each signs with.

use crate::config::Config;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use tidegate_envelope::id::{DeviceId, KeyEpoch, MessageDeviceId, ZoneId};
use tidegate_envelope::key::{MacKey, RootKey};
use tidegate_verify::registry::{Device, Registry, TopicShape, Window, Zone};
use zeroize::Zeroizing;

const HEADER: &str = "\
# The devices that may speak. Everything else is refused.
#
# An entry ties a device's three names together; nothing else may equate them:
#   id          the identity in its certificate
#   topic       its segment of the telemetry topic
#   message_id  the device_id that its messages carry
# `tidegate devices add` writes entries; editing by hand is fine too.

";
/// A registry larger than this is refused: the state of every device is held in memory.
const MAX_DEVICES: usize = 100_000;

/// The registry file as TOML says it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DevicesFile {
    #[serde(rename = "zone")]
    pub(crate) zones: Vec<ZoneEntry>,
    #[serde(rename = "device", default)]
    pub(crate) devices: Vec<DeviceEntry>,
}

/// A part of the building.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ZoneEntry {
    pub(crate) id: String,
    pub(crate) name: String,
}

/// One device.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeviceEntry {
    pub(crate) id: String,
    pub(crate) topic: String,
    pub(crate) message_id: String,
    pub(crate) zone: String,
    #[serde(default = "default_class")]
    pub(crate) class: String,
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub(crate) enabled: bool,
    /// The newest key epoch, which the device signs with.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) key_epoch: u16,
    /// The oldest key epoch that is still accepted.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) lowest_key_epoch: u16,
    /// A file whose bytes are the key, for a device provisioned elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key_file: Option<PathBuf>,
    /// Refuse a sequence that starts again, even from a publisher without a boot counter.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) strict_sequence: bool,
    /// How far behind the newest sequence an unseen one may be: 0 or 64.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) window: u8,
    /// Messages per second, where it differs from the configuration's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) quota_per_s: Option<u32>,
}

fn default_class() -> String {
    "water-inlet".into()
}

fn yes() -> bool {
    true
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's signature for skip_serializing_if"
)]
fn is_true(value: &bool) -> bool {
    *value
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
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
        let file: Self = toml::from_str(&text)
            .map_err(|error| anyhow::anyhow!("{}", error.to_string().trim_end()))
            .with_context(|| format!("{} is not a valid registry", path.display()))?;
        if file.devices.len() > MAX_DEVICES {
            bail!(
                "{} names {} devices; at most {MAX_DEVICES} are supported",
                path.display(),
                file.devices.len()
            );
        }
        Ok(file)
    }

    /// Writes the registry file whole, so that a reader sees the old or the new one.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let text = toml::to_string(self).context("cannot write the registry as TOML")?;
        let temporary = path.with_extension("toml.new");
        std::fs::write(&temporary, format!("{HEADER}{text}"))
            .and_then(|()| std::fs::rename(&temporary, path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// The entry of a device.
    pub(crate) fn find(&self, id: &str) -> Result<&DeviceEntry> {
        self.devices
            .iter()
            .find(|device| device.id == id)
            .with_context(|| format!("there is no device `{id}`; `tidegate devices list` shows all"))
    }

    /// The checked registry, with every device's keys.
    pub(crate) fn registry(&self, config: &Config) -> Result<Registry> {
        let keys = Keys::open(self, config)?;
        let in_file = || format!("in {}", config.files.registry.display());
        let zones = self
            .zones
            .iter()
            .map(|zone| {
                Ok(Zone {
                    id: ZoneId::new(&zone.id)?,
                    name: zone.name.clone(),
                })
            })
            .collect::<Result<Vec<_>>>()
            .with_context(in_file)?;
        let devices = self
            .devices
            .iter()
            .map(|entry| {
                entry
                    .device(&keys, config)
                    .with_context(|| format!("device {}", entry.id))
            })
            .collect::<Result<Vec<_>>>()
            .with_context(in_file)?;
        let topics = TopicShape::new(&config.telemetry_topic).context("topics.telemetry")?;
        Registry::new(zones, devices, topics).with_context(in_file)
    }
}

impl DeviceEntry {
    /// A device by the default naming: `device-001` carries `HYDROLOGIC-Device-001` in its messages.
    pub(crate) fn new(id: &str, zone: &str) -> Self {
        let message_id = id
            .strip_prefix("device-")
            .map_or_else(|| id.to_owned(), |number| format!("HYDROLOGIC-Device-{number}"));
        Self {
            id: id.into(),
            topic: id.into(),
            message_id,
            zone: zone.into(),
            class: default_class(),
            enabled: true,
            key_epoch: 0,
            lowest_key_epoch: 0,
            key_file: None,
            strict_sequence: false,
            window: 0,
            quota_per_s: None,
        }
    }

    /// The key that the device signs with now.
    pub(crate) fn signing_key(&self, config: &Config) -> Result<MacKey> {
        let keys = Keys::open(
            &DevicesFile {
                zones: Vec::new(),
                devices: vec![self.clone()],
            },
            config,
        )?;
        let epoch = KeyEpoch(self.key_epoch);
        let found = keys.of(self, config)?.into_iter().find(|(at, _)| *at == epoch);
        found
            .map(|(_, key)| key)
            .context("the device has no key of its newest epoch")
    }

    fn device(&self, keys: &Keys, config: &Config) -> Result<Device> {
        if self.lowest_key_epoch > self.key_epoch {
            bail!(
                "lowest_key_epoch {} is above key_epoch {}",
                self.lowest_key_epoch,
                self.key_epoch
            );
        }
        Ok(Device {
            id: DeviceId::new(&self.id)?,
            message_id: MessageDeviceId::new(&self.message_id)?,
            topic_segment: DeviceId::new(&self.topic)?.to_string(),
            zone: ZoneId::new(&self.zone)?,
            class: self.class.clone(),
            enabled: self.enabled,
            keys: keys.of(self, config)?,
            strict_sequence: self.strict_sequence,
            window: match self.window {
                0 => Window::None,
                64 => Window::SixtyFour,
                other => bail!("window {other} is neither 0 nor 64"),
            },
            quota_per_s: self.quota_per_s.unwrap_or(config.verify.quota_per_s),
        })
    }
}

/// Where keys come from.
struct Keys {
    root: Option<RootKey>,
    shared: Option<MacKey>,
}

impl Keys {
    fn open(file: &DevicesFile, config: &Config) -> Result<Self> {
        let shared = match &config.legacy_shared_secret {
            Some(path) => Some(MacKey::from_bytes(&read_secret(path)?)),
            None => None,
        };
        let derived = shared.is_none() && file.devices.iter().any(|device| device.key_file.is_none());
        let root = if derived {
            Some(read_root_key(&config.files.root_key())?)
        } else {
            None
        };
        Ok(Self { root, shared })
    }

    /// All keys that `device` may sign with.
    fn of(&self, device: &DeviceEntry, config: &Config) -> Result<Vec<(KeyEpoch, MacKey)>> {
        if let Some(path) = &device.key_file {
            let folder = config.files.registry.parent().unwrap_or(Path::new("."));
            let key = MacKey::from_bytes(&read_secret(&folder.join(path))?);
            return Ok(vec![(KeyEpoch(device.key_epoch), key)]);
        }
        if let Some(key) = &self.shared {
            return Ok(vec![(KeyEpoch(device.key_epoch), key.clone())]);
        }
        let root = self.root.as_ref().context("no root key")?;
        let id = DeviceId::new(&device.id)?;
        // Two epochs at most: the one being rotated out, and the newest.
        let oldest = device.lowest_key_epoch.max(device.key_epoch.saturating_sub(1));
        Ok((oldest..=device.key_epoch)
            .map(|epoch| (KeyEpoch(epoch), MacKey::derive(root, &id, KeyEpoch(epoch))))
            .collect())
    }
}

/// Reads the root key: exactly 32 bytes, readable by its owner only.
fn read_root_key(path: &Path) -> Result<RootKey> {
    let bytes = read_secret(path)?;
    let bytes: &[u8; 32] = bytes.as_slice().try_into().map_err(|_| {
        anyhow::anyhow!(
            "the root key {} has {} bytes instead of 32",
            path.display(),
            bytes.len()
        )
    })?;
    Ok(RootKey::from_bytes(*bytes))
}

/// Reads a secret file, and refuses one that others can read.
pub(crate) fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    use std::os::unix::fs::PermissionsExt;
    let shown = path.display();
    let metadata = std::fs::metadata(path).with_context(|| format!("cannot read the key file {shown}"))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        bail!("the key file {shown} is readable by others (mode {mode:o}); run `chmod 600 {shown}`");
    }
    let bytes =
        Zeroizing::new(std::fs::read(path).with_context(|| format!("cannot read the key file {shown}"))?);
    if bytes.is_empty() {
        bail!("the key file {shown} is empty");
    }
    Ok(bytes)
}
