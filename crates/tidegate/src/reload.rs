//! Takes a changed `devices.toml` while messages come in: keys, epochs, limits and formats of
//! registered devices, and further ones at the end of the file.
//!
//! The file is looked at several times a second. Notifications of the file system (inotify) were
//! considered: they do not come over network mounts and bind mounts, get lost when editors and
//! configuration tools replace the folder, and need the same look at start anyway. One `stat` costs
//! a microsecond.

use crate::clock;
use crate::config::Config;
use crate::devices::DevicesFile;
use crate::pipeline::{self, AdoptError, Pipeline};
use anyhow::{Context, Result};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// Time between two looks at the file.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A registry that only the database kept out is tried again after so many looks.
const LOOKS_TO_RETRY: u32 = 8;

/// What tells one state of a file from another, as far as that can be told without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    device: u64,
    inode: u64,
    modified_ns: i128,
    bytes: u64,
}

impl Fingerprint {
    /// None where there is no file.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            modified_ns: i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec()),
            bytes: metadata.len(),
        })
    }
}

/// Watches the registry file of one running pipeline.
pub(crate) struct Reload {
    config: Config,
    pipeline: Pipeline,
    /// The file that was last tried.
    tried: Option<Fingerprint>,
    hangup: Signal,
}

/// What became of a changed file.
enum Tried {
    Taken,
    Refused,
    /// Refused for now.
    Passing,
}

impl Reload {
    /// Watches for changes after `read`, which was taken before the file in use was read.
    pub(crate) fn new(config: &Config, pipeline: Pipeline, read: Option<Fingerprint>) -> Result<Self> {
        Ok(Self {
            config: config.clone(),
            pipeline,
            tried: read,
            hangup: signal(SignalKind::hangup()).context("cannot watch for SIGHUP")?,
        })
    }

    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = self.tried;
        let mut retry_in = None;
        loop {
            let asked = tokio::select! {
                _ = looks.tick() => false,
                _ = self.hangup.recv() => true,
                () = stop.cancelled() => return,
            };
            let before = std::mem::replace(&mut seen, Fingerprint::of(&self.config.files.registry));
            // A file that is still being written changes from look to look.
            let changed = seen != self.tried && seen == before;
            retry_in = retry_in.map(|looks: u32| looks.saturating_sub(1));
            if asked || changed || retry_in == Some(0) {
                self.tried = seen;
                let again = retry_in.is_some() && !changed;
                retry_in = match self.take(again).await {
                    Tried::Passing => Some(LOOKS_TO_RETRY),
                    Tried::Taken | Tried::Refused => None,
                };
            }
        }
    }

    /// Reads the file and takes it, or says why not; what has been said before is not said again.
    async fn take(&self, again: bool) -> Tried {
        let shown = self.config.files.registry.display();
        let error = match self.read_and_adopt().await {
            Ok(counts) => {
                anstream::println!("Took the changed registry {shown}: {counts}");
                return Tried::Taken;
            }
            Err(error) => error,
        };
        let passing = error.downcast_ref().is_some_and(AdoptError::is_passing);
        if !again {
            let detail = one_line(&format!("{error:#}"));
            tracing::error!(
                registry = %shown,
                error = detail,
                "the changed registry was refused; the old one stays in use"
            );
            self.pipeline
                .journal()
                .publish(pipeline::registry_rejected(detail, clock::now()));
        }
        if passing { Tried::Passing } else { Tried::Refused }
    }

    async fn read_and_adopt(&self) -> Result<String> {
        let config = self.config.clone();
        let read = move || DevicesFile::load(&config.files.registry)?.registry(&config);
        let registry = Arc::new(tokio::task::spawn_blocking(read).await??);
        let devices = registry.devices().len();
        let known = self.pipeline.registry().devices().len();
        self.pipeline.adopt(registry).await?;
        let further = devices.saturating_sub(known);
        Ok(format!("{devices} devices, {further} of them new"))
    }
}

/// Without the drawing of the wrong line that TOML's errors have, which only a terminal can show.
fn one_line(error: &str) -> String {
    let words = error.lines().map(str::trim).filter(|line| !line.contains('|'));
    words.collect::<Vec<_>>().join(": ")
}
