//! Key files that a command makes: private from the first byte, and gone again if the command fails.

use crate::config::Config;
use crate::devices::{DeviceEntry, DevicesFile};
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Bytes of a key that is made here.
const KEY_BYTES: usize = 32;

/// The files of one command. Removed when dropped, unless [`Made::keep`] has been called.
#[derive(Debug, Default)]
pub(super) struct Made(Vec<PathBuf>);

impl Made {
    /// The command has succeeded.
    pub(super) fn keep(mut self) {
        self.0.clear();
    }

    /// Writes a secret to a new file of mode 0600.
    fn write(&mut self, path: PathBuf, bytes: &[u8]) -> Result<()> {
        let shown = path.display().to_string();
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot create the key file {shown}"))?;
        self.0.push(path);
        file.write_all(bytes)
            .and_then(|()| file.sync_all())
            .with_context(|| format!("cannot write the key file {shown}"))
    }

    /// A random key in a new file beside the device's present one. Returns the path as the
    /// registry says it.
    pub(super) fn key_file(&mut self, config: &Config, device: &DeviceEntry, epoch: u16) -> Result<PathBuf> {
        let present = device.key_file.as_deref().unwrap_or(Path::new(""));
        let path = present.with_file_name(format!("{}-{epoch}.key", device.id));
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(key.as_mut()).context("the operating system gave no random bytes")?;
        self.write(DevicesFile::folder(config).join(&path), key.as_ref())?;
        Ok(path)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for path in &self.0 {
            if let Err(error) = fs::remove_file(path) {
                tracing::warn!(path = %path.display(), %error, "a key file of a failed command is left over");
            }
        }
    }
}

/// Where new keys go, to be carried to their devices.
#[derive(Debug)]
pub(super) enum Out {
    /// Nowhere yet: `tidegate devices key` writes them.
    Later,
    /// A folder, one file a device.
    Folder(PathBuf),
    /// Standard output: the bytes of one key and nothing else.
    Stdout,
}

impl Out {
    /// What `--out` says; `-` is standard output.
    pub(super) fn new(option: Option<PathBuf>, devices: usize) -> Result<Self> {
        let Some(path) = option else {
            return Ok(Self::Later);
        };
        if path.as_os_str() != "-" {
            return Ok(Self::Folder(path));
        }
        if devices != 1 {
            bail!("--out - writes the bytes of one key, and {devices} devices are named; name a folder");
        }
        if std::io::stdout().is_terminal() {
            bail!(
                "--out - writes a secret to standard output, which is a terminal; redirect it, or name a folder"
            );
        }
        Ok(Self::Stdout)
    }

    /// Hands out the newest keys of `devices`. Returns where they lie, in their order.
    pub(super) fn hand<'d>(
        &self,
        config: &Config,
        devices: impl IntoIterator<Item = &'d DeviceEntry>,
        made: &mut Made,
    ) -> Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        if let Self::Folder(folder) = self {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
            for device in devices {
                let path = folder.join(format!("{}-{}.key", device.id, device.key_epoch));
                made.write(path.clone(), &device.key_bytes(config)?)?;
                paths.push(path);
            }
        }
        Ok(paths)
    }

    /// Writes to standard output what goes there, once the change is on disk.
    pub(super) fn finish(&self, config: &Config, device: &DeviceEntry) -> Result<()> {
        if let Self::Stdout = self {
            let mut out = std::io::stdout().lock();
            out.write_all(&device.key_bytes(config)?)
                .and_then(|()| out.flush())
                .context("cannot write the key to standard output; `tidegate devices key` writes it again")?;
        }
        Ok(())
    }
}
