//! Durable acceptance: messages from memory through verifier, replay guard and the database, on one
//! thread.

use super::fleet::{Fleet, GROUP, Sent, Wire};
use super::statistics::Runs;
use crate::clock;
use anyhow::{Context, Result};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tidegate_envelope::id::{DeviceId, DeviceIndex};
use tidegate_store::writer::{Options as StoreOptions, Store};

/// Accepted messages per second that are aimed at, with commit.
const TARGET_PER_S: f64 = 100_000.0;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) devices: u32,
    /// In a round, committed in groups.
    pub(crate) messages: u32,
    /// In a round, committed one by one.
    pub(crate) singly: u32,
    pub(crate) rounds: usize,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    devices: u32,
    group: usize,
    json_v1_per_s: Runs,
    cose_v1_per_s: Runs,
    /// Commits of one message.
    single_commits_per_s: Runs,
    folder: PathBuf,
}

/// Runs `rounds` rounds of all three, in turn, each in a new database.
pub(crate) fn run(options: Options, mut progress: impl FnMut(usize)) -> Result<Report> {
    let now = clock::now();
    let json = Fleet::new(Wire::JsonV1, options.devices, [7; 32], now)?;
    let cose = Fleet::new(Wire::CoseV1, options.devices, [7; 32], now)?;
    let (json_messages, cose_messages) = (turns(&json, options)?, turns(&cose, options)?);
    let singly = &json_messages[..options.singly.min(options.messages) as usize];
    let (mut json_rates, mut cose_rates, mut single_rates) = (vec![], vec![], vec![]);
    for round in 0..options.rounds {
        json_rates.push(rate(&json, &json_messages, GROUP)?);
        cose_rates.push(rate(&cose, &cose_messages, GROUP)?);
        single_rates.push(rate(&json, singly, 1)?);
        progress(round + 1);
    }
    Ok(Report {
        devices: options.devices,
        group: GROUP,
        json_v1_per_s: Runs::of(&json_rates),
        cose_v1_per_s: Runs::of(&cose_rates),
        single_commits_per_s: Runs::of(&single_rates),
        folder: std::env::temp_dir(),
    })
}

/// Messages of all devices in turn.
fn turns(fleet: &Fleet, options: Options) -> Result<Vec<Sent>> {
    (0..options.messages)
        .map(|number| {
            let device = DeviceIndex(number % options.devices);
            fleet.send(device, u64::from(number / options.devices) + 1)
        })
        .collect()
}

/// Messages per second that are durable when they count.
fn rate(fleet: &Fleet, messages: &[Sent], group: usize) -> Result<f64> {
    let folder = Folder::new()?;
    let devices = fleet.registry.devices().iter();
    let devices: Vec<DeviceId> = devices.map(|device| device.id.clone()).collect();
    let path = folder.0.join("tidegate.db");
    let mut store = Store::open(&path, &devices, &StoreOptions::default())?;
    let (verifier, mut guard) = (fleet.verifier(), fleet.guard());
    let start = Instant::now();
    fleet.pass(&verifier, &mut guard, &mut store, (messages, group), true)?;
    let rate = messages.len() as f64 / start.elapsed().as_secs_f64();
    store.close()?;
    Ok(rate)
}

impl Report {
    /// The report for people.
    pub(crate) fn print(&self) {
        let line = |name: &str, runs: &Runs| {
            anstream::println!(
                "  {name:<40} {:>9.0} /s   ({:.0} to {:.0} in {} rounds)",
                runs.median,
                runs.least,
                runs.most,
                runs.runs
            );
        };
        anstream::println!(
            "Messages accepted and durable, {} devices, one thread, database in {}",
            self.devices,
            self.folder.display()
        );
        line(
            &format!("json-v1, commits of {} messages", self.group),
            &self.json_v1_per_s,
        );
        line(
            &format!("cose-v1, commits of {} messages", self.group),
            &self.cose_v1_per_s,
        );
        line("json-v1, commits of one message", &self.single_commits_per_s);
        anstream::println!("  aimed at: {TARGET_PER_S:.0} /s");
    }
}

/// A folder that is gone when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("tidegate-durable-{}", std::process::id()));
        Self::clear(&folder)?;
        std::fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self(folder))
    }

    fn clear(folder: &Path) -> Result<()> {
        match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot clear {}", folder.display()))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed now is cleared by the next run that has this number.
        drop(Self::clear(&self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_round_is_durable_in_both_formats_and_singly() {
        let options = Options {
            devices: 7,
            messages: 1_100,
            singly: 3,
            rounds: 1,
        };
        let report = run(options, |_| {}).unwrap();
        for rate in [
            report.json_v1_per_s,
            report.cose_v1_per_s,
            report.single_commits_per_s,
        ] {
            assert!(rate.median > 0.0);
        }
    }
}
