//! A file system of its own, small enough to be filled in a moment.

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Size of the file system.
const BYTES: u64 = 24 << 20;

/// A mounted file system, unmounted when dropped.
#[derive(Debug)]
pub(super) struct Volume {
    at: PathBuf,
    /// The file that holds it; none for a tmpfs.
    image: Option<PathBuf>,
}

impl Volume {
    /// Mounts ext4 in a file in `folder`, or else a tmpfs, at `folder/data`.
    ///
    /// # Errors
    /// Neither can be mounted here, which mostly means: not root.
    pub(super) fn mount(folder: &Path) -> Result<Self> {
        let at = folder.join("data");
        std::fs::create_dir_all(&at)?;
        let image = folder.join("volume");
        File::create(&image)?.set_len(BYTES)?;
        let ext4 = command("mkfs.ext4", &["-q", "-F", "-m", "0", &text(&image)])
            .and_then(|()| command("mount", &["-o", "loop", &text(&image), &text(&at)]));
        let Err(no_ext4) = ext4 else {
            return Ok(Self {
                at,
                image: Some(image),
            });
        };
        let size = format!("size={BYTES}");
        command("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", &text(&at)])
            .with_context(|| format!("{no_ext4:#}; nor a tmpfs"))?;
        Ok(Self { at, image: None })
    }

    /// Whether it can [`Self::fail`].
    pub(super) fn can_fail(&self) -> bool {
        self.image.is_some()
    }

    /// What ext4 does when its disk fails: read-only from now on, whoever writes.
    pub(super) fn fail(&self) -> Result<()> {
        command("mount", &["-o", "remount,abort", &text(&self.at)])
    }

    /// Takes it up again after it has failed; nobody may use it.
    pub(super) fn repair(&self) -> Result<()> {
        let image = self.image.as_ref().context("only ext4 can fail")?;
        command("umount", &[&text(&self.at)])?;
        command("mount", &["-o", "loop", &text(image), &text(&self.at)])
    }

    /// Takes all space that is left.
    pub(super) fn fill(&self) -> Result<()> {
        let mut filler = File::create(self.filler())?;
        let mut bytes = vec![0_u8; 1 << 16];
        while !bytes.is_empty() {
            match filler.write(&bytes) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                    // The last gaps are smaller.
                    bytes.truncate(bytes.len() / 2);
                }
                Err(error) => return Err(error).context("cannot fill the file system"),
            }
        }
        // What the file system has promised only is not taken yet.
        drop(filler.sync_all());
        Ok(())
    }

    /// Gives it back.
    pub(super) fn empty(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.filler())?)
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let at = text(&self.at);
        // A process that was just killed may still be in the way: then it goes when that has gone.
        if command("umount", &[&at]).is_err() {
            drop(command("umount", &["-l", &at]));
        }
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Runs a command that must succeed.
pub(super) fn command(program: &str, arguments: &[&str]) -> Result<()> {
    let sbin = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new("env")
        .arg(format!("PATH={sbin}"))
        .arg(program)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program}: {}", said.trim());
    }
    Ok(())
}
