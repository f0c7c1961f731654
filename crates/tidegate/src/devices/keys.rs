//! Where a device's keys come from: derived from the root key, a file of its own, or the one
//! secret that all devices of an older deployment share.

use super::{DeviceEntry, DevicesFile};
use crate::config::Config;
use anyhow::{Context, Result, bail};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tidegate_envelope::id::{DeviceId, KeyEpoch};
use tidegate_envelope::key::{MacKey, RootKey};
use zeroize::Zeroizing;

/// A larger file is no key.
const MOST_SECRET_BYTES: u64 = 4_096;
/// The last key epoch; a device that has come so far goes on under a new id.
pub(crate) const LAST_EPOCH: u16 = u16::MAX;

/// Where the key of one device comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Derived from the root key, for its id and epoch.
    Derived,
    /// A file of its own, provisioned elsewhere or by a rotation.
    File,
    /// The secret that all devices share.
    Shared,
}

impl Source {
    /// The source for people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Derived => "derived",
            Self::File => "key file",
            Self::Shared => "shared secret",
        }
    }
}

/// The secrets that keys are made of. Wiped when dropped.
pub(crate) struct Keys {
    root: Option<RootKey>,
    shared: Option<MacKey>,
    /// Key files are relative to it; none where no file may be touched.
    folder: Option<PathBuf>,
}

impl Keys {
    /// Reads the secrets that `devices` need.
    pub(crate) fn open<'d>(
        config: &Config,
        devices: impl IntoIterator<Item = &'d DeviceEntry>,
    ) -> Result<Self> {
        let shared = match &config.legacy_shared_secret {
            Some(path) => Some(MacKey::from_bytes(&read_secret(path)?)),
            None => None,
        };
        let derived = |device: &DeviceEntry| device.key_source(config) == Source::Derived;
        let root = if devices.into_iter().any(derived) {
            Some(read_root_key(&config.files.root_key())?)
        } else {
            None
        };
        let folder = Some(DevicesFile::folder(config).to_owned());
        Ok(Self { root, shared, folder })
    }

    /// Keys that nobody signs with, for looking at a registry without its secrets.
    pub(super) fn of_zeros() -> Self {
        Self {
            root: Some(RootKey::from_bytes([0; 32])),
            shared: None,
            folder: None,
        }
    }

    /// All keys that `device` may sign with, oldest first: the newest, and the one before it while
    /// that is being rotated out.
    pub(super) fn of(&self, device: &DeviceEntry) -> Result<Vec<(KeyEpoch, MacKey)>> {
        let newest = KeyEpoch(device.key_epoch);
        let oldest = KeyEpoch(device.oldest_accepted());
        if let Some(path) = &device.key_file {
            let mut keys = Vec::with_capacity(2);
            if let Some(previous) = &device.previous_key_file
                && oldest < newest
            {
                keys.push((oldest, self.file(previous)?));
            }
            keys.push((newest, self.file(path)?));
            return Ok(keys);
        }
        if let Some(key) = &self.shared {
            return Ok(vec![(newest, key.clone())]);
        }
        let root = self.root.as_ref().context("no root key")?;
        let id = DeviceId::new(&device.id)?;
        Ok((oldest.0..=newest.0)
            .map(|epoch| (KeyEpoch(epoch), MacKey::derive(root, &id, KeyEpoch(epoch))))
            .collect())
    }

    fn file(&self, path: &Path) -> Result<MacKey> {
        match &self.folder {
            Some(folder) => Ok(MacKey::from_bytes(&read_secret(&folder.join(path))?)),
            None => Ok(MacKey::from_bytes(&[0; 32])),
        }
    }
}

impl DeviceEntry {
    /// Where the device's key comes from.
    pub(crate) fn key_source(&self, config: &Config) -> Source {
        if self.key_file.is_some() {
            Source::File
        } else if config.legacy_shared_secret.is_some() {
            Source::Shared
        } else {
            Source::Derived
        }
    }

    /// The oldest epoch whose key the registry accepts; the replay guard may have retired it since.
    pub(crate) fn oldest_accepted(&self) -> u16 {
        let before = match (&self.key_file, &self.previous_key_file) {
            (Some(_), None) => self.key_epoch,
            _ => self.key_epoch.saturating_sub(1),
        };
        self.lowest_key_epoch.max(before)
    }

    /// The bytes of the device's newest key, to hand them to the device.
    pub(crate) fn key_bytes(&self, config: &Config) -> Result<Zeroizing<Vec<u8>>> {
        if let Some(path) = &self.key_file {
            return read_secret(&DevicesFile::folder(config).join(path));
        }
        if let Some(path) = &config.legacy_shared_secret {
            return read_secret(path);
        }
        let root = read_root_key(&config.files.root_key())?;
        let key = root.device_key(&DeviceId::new(&self.id)?, KeyEpoch(self.key_epoch));
        // Wiped here as well: the array is a copy of its own.
        let key = Zeroizing::new(key);
        Ok(Zeroizing::new(key.to_vec()))
    }

    /// The key that the device signs with now.
    pub(crate) fn signing_key(&self, config: &Config) -> Result<MacKey> {
        Ok(MacKey::from_bytes(&self.key_bytes(config)?))
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
    let shown = path.display();
    let cannot = || format!("cannot read the key file {shown}");
    // Mode and bytes of one open file: a name could be given to another file in between.
    let mut file = std::fs::File::open(path).with_context(cannot)?;
    let metadata = file.metadata().with_context(cannot)?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        bail!("the key file {shown} is readable by others (mode {mode:o}); run `chmod 600 {shown}`");
    }
    if metadata.len() > MOST_SECRET_BYTES {
        bail!(
            "the key file {shown} has {} bytes; at most {MOST_SECRET_BYTES} are read",
            metadata.len()
        );
    }
    // With all its room from the start: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MOST_SECRET_BYTES as usize + 1));
    file.by_ref()
        .take(MOST_SECRET_BYTES)
        .read_to_end(&mut bytes)
        .with_context(cannot)?;
    if bytes.is_empty() {
        bail!("the key file {shown} is empty");
    }
    Ok(bytes)
}
