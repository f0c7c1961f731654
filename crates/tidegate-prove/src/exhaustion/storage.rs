//! The database cannot be written: no space, or no permission.

use super::Ran;
use super::scene::{HOLD, HOLD_BEHIND_MOSQUITTO, Recovery, Scene, play};
use super::volume::{Volume, command};
use crate::kill::site::{Broker, Site, temporary_folder};
use anyhow::Result;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use tokio::time::{Instant, sleep};

/// Devices under load.
const DEVICES: u32 = 3;

/// Why nothing can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// No space.
    Full,
    /// No permission.
    ReadOnly,
    /// The disk has failed, and stays so until somebody repairs it.
    Failed,
}

pub(super) fn run(binary: &Path, broker: Broker, cause: Cause) -> Result<Ran> {
    let folder = temporary_folder()?;
    let volume = match Volume::mount(folder.path()) {
        Ok(volume) => volume,
        Err(error) => {
            return Ok(Ran::NotRun(format!("no file system can be mounted: {error:#}")));
        }
    };
    if cause == Cause::Failed && !volume.can_fail() {
        return Ok(Ran::NotRun("no ext4 can be mounted".into()));
    }
    let site = Site::at(folder.path(), binary, broker, DEVICES)?;
    if cause == Cause::ReadOnly
        && let Err(error) = immutable_is_read_only(&site)
    {
        return Ok(Ran::NotRun(format!(
            "open files cannot be made read-only: {error:#}"
        )));
    }
    play(async {
        let devices = 0..DEVICES as usize;
        let mut scene = Scene::start(site, devices.len()).await?;
        cause.begin(&volume, &scene.traffic.site)?;
        scene
            .expect("a message to be refused as not durable", |scene| match broker {
                Broker::Embedded => scene.traffic.unavailable().is_some(),
                Broker::Mosquitto => scene.says_so_in_its_log(),
            })
            .await?;
        sleep(match broker {
            Broker::Embedded => HOLD,
            Broker::Mosquitto => HOLD_BEHIND_MOSQUITTO,
        })
        .await;
        if broker == Broker::Embedded
            && let Some(accepted) = scene.traffic.accepted(devices.clone())
            && accepted.elapsed() < HOLD / 2
        {
            // Durable all the same, or the comparison says otherwise.
            scene.count("times that something was still accepted", 1);
        }
        scene.says_so().await?;
        if cause == Cause::Failed {
            let counts = scene.end_unrepaired(|| volume.repair())?;
            return Ok(Ran::Done(counts, Recovery::default()));
        }
        cause.end(&volume, &scene.traffic.site)?;
        let (gone, stored) = (Instant::now(), scene.stored()?);
        let recovery = scene
            .recovery(gone, |scene| match broker {
                Broker::Embedded => scene.traffic.accepted(devices.clone()),
                // Seen in the database, since Mosquitto's answers say nothing about it.
                Broker::Mosquitto => scene.stored().is_ok_and(|now| now > stored).then(Instant::now),
            })
            .await?;
        let told = [
            ("storage_unavailable", "blocked"),
            ("storage_unavailable", "notice"),
        ];
        Ok(Ran::Done(scene.end(&told).await?, recovery))
    })
}

impl Cause {
    fn begin(self, volume: &Volume, site: &Site) -> Result<()> {
        match self {
            Self::Full => volume.fill(),
            Self::ReadOnly => chattr("+i", site),
            Self::Failed => volume.fail(),
        }
    }

    fn end(self, volume: &Volume, site: &Site) -> Result<()> {
        match self {
            Self::Full => volume.empty(),
            Self::ReadOnly => chattr("-i", site),
            Self::Failed => volume.repair(),
        }
    }
}

impl Scene {
    /// In the log, and to whoever asks for readiness.
    async fn says_so(&mut self) -> Result<()> {
        let question = self.traffic.site.readiness();
        let status = tokio::task::spawn_blocking(move || question.status()).await?;
        if status != Some(503) {
            self.violation(format!("/readyz says {status:?} while nothing can be stored"));
        }
        self.expect("a line in the log", Self::says_so_in_its_log).await
    }

    fn says_so_in_its_log(&self) -> bool {
        self.gateway.logged().contains("the database cannot be written")
    }
}

fn chattr(flag: &str, site: &Site) -> Result<()> {
    let database = site.database().to_string_lossy().into_owned();
    command("chattr", &[flag, &database, &format!("{database}-wal")])
}

/// Tries it on a file beside the database: not every file system refuses writes to a file that was
/// opened before.
fn immutable_is_read_only(site: &Site) -> Result<()> {
    let path = site.path("data/probe");
    let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
    let name = path.to_string_lossy().into_owned();
    command("chattr", &["+i", &name])?;
    let written = file.write(b"x");
    command("chattr", &["-i", &name])?;
    drop(file);
    std::fs::remove_file(&path)?;
    anyhow::ensure!(written.is_err(), "this file system still takes writes to them");
    Ok(())
}
