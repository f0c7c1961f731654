//! Scale: what a message costs and a device takes, from ten registered devices to a million.

use super::fleet::{Fleet, GROUP, NoLog, Wire, nanoseconds_each};
use super::statistics::Runs;
use crate::clock;
use anyhow::{Context, Result};
use serde::Serialize;
use std::time::Instant;
use tidegate_envelope::id::DeviceIndex;
use tidegate_verify::guard::ReplayGuard;
use tidegate_verify::quota::Quotas;

/// Registered devices that are measured, as far as the caller wants so many.
const SIZES: [u32; 4] = [10, 1_000, 100_000, 1_000_000];
/// Messages in a round, each of a random device.
const MESSAGES: u32 = 100_000;
/// Seed of the choice of devices.
const SEED: u64 = 20_260_219;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// Most registered devices.
    pub(crate) most: u32,
    pub(crate) rounds: usize,
}

impl Options {
    fn sizes(self) -> impl Iterator<Item = u32> {
        SIZES.into_iter().filter(move |size| *size <= self.most)
    }

    /// Rounds of all sizes and formats together.
    pub(crate) fn steps(self) -> usize {
        self.sizes().count() * 2 * self.rounds
    }
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Of the replay guard, for each registered device.
    guard_bytes: usize,
    /// Of the quotas, for each registered device.
    quota_bytes: usize,
    rows: Vec<Row>,
}

/// One format and number of devices.
#[derive(Debug, Serialize)]
struct Row {
    format: Wire,
    devices: u32,
    /// Messages of a burst, whose devices are fetched together.
    fetched_ns: Runs,
    /// Messages of which each comes as a surprise.
    surprised_ns: Runs,
    /// Both beside those of the fewest devices.
    fetched_ratio: f64,
    surprised_ratio: f64,
    /// Of the registry, for each device: names, keys and the tables that find them.
    registry_bytes: usize,
    /// Of the whole process, with registry, quotas and a state of every device.
    resident_mb: f64,
}

/// Runs all rounds; every device has a state before the first.
pub(crate) fn run(options: Options, mut progress: impl FnMut(usize)) -> Result<Report> {
    let mut rows: Vec<Row> = Vec::new();
    let mut done = 0;
    for wire in [Wire::JsonV1, Wire::CoseV1] {
        for devices in options.sizes() {
            let mut row = measure(wire, devices, options.rounds, || {
                done += 1;
                progress(done);
            })?;
            if let Some(fewest) = rows.iter().find(|row| row.format == wire) {
                row.fetched_ratio = row.fetched_ns.median / fewest.fetched_ns.median;
                row.surprised_ratio = row.surprised_ns.median / fewest.surprised_ns.median;
            }
            rows.push(row);
        }
    }
    Ok(Report {
        guard_bytes: ReplayGuard::BYTES_PER_DEVICE,
        quota_bytes: Quotas::BYTES_PER_DEVICE,
        rows,
    })
}

fn measure(wire: Wire, devices: u32, rounds: usize, mut round_done: impl FnMut()) -> Result<Row> {
    let fleet = Fleet::new(wire, devices, [7; 32], clock::now())?;
    let verifier = fleet.verifier();
    let mut guard = fleet.guard();
    let mut first = Vec::with_capacity(GROUP);
    for device in 0..devices {
        first.push(fleet.send(DeviceIndex(device), 1)?);
        if first.len() == GROUP || device + 1 == devices {
            fleet.pass(&verifier, &mut guard, &mut NoLog, (&first, GROUP), false)?;
            first.clear();
        }
    }
    let resident_mb = resident_bytes()? as f64 / 1e6;

    let mut sequences = vec![1_u64; devices as usize];
    let mut random = SEED;
    let messages = (0..MESSAGES)
        .map(|_| {
            let device = (splitmix(&mut random) % u64::from(devices)) as u32;
            let sequence = &mut sequences[device as usize];
            *sequence += 1;
            fleet.send(DeviceIndex(device), *sequence)
        })
        .collect::<Result<Vec<_>>>()?;
    let (mut together, mut alone) = (vec![], vec![]);
    for _ in 0..rounds {
        for (fetched, runs) in [(true, &mut together), (false, &mut alone)] {
            let mut guard = guard.clone();
            let start = Instant::now();
            fleet.pass(&verifier, &mut guard, &mut NoLog, (&messages, GROUP), fetched)?;
            runs.push(nanoseconds_each(start, messages.len()));
        }
        round_done();
    }
    Ok(Row {
        format: wire,
        devices,
        fetched_ns: Runs::of(&together),
        surprised_ns: Runs::of(&alone),
        fetched_ratio: 1.0,
        surprised_ratio: 1.0,
        registry_bytes: fleet.registry.bytes() / devices as usize,
        resident_mb,
    })
}

impl Report {
    /// The report for people.
    pub(crate) fn print(&self) {
        anstream::println!(
            "Verification of messages from random devices, one core: parse, MAC, schema, replay check\n\
             \x20 format   devices      in bursts of 64        one by one         registry   resident"
        );
        for row in &self.rows {
            let cell = |runs: &Runs, ratio| format!("{:>6.0} ns ({:.2})", runs.median, ratio);
            anstream::println!(
                "  {} {:>9}   {:>17}   {:>17}   {:>5} B each   {:>5.0} MB   ({:.0} to {:.0}, {:.0} to {:.0} ns in {} rounds)",
                row.format.name(),
                row.devices,
                cell(&row.fetched_ns, row.fetched_ratio),
                cell(&row.surprised_ns, row.surprised_ratio),
                row.registry_bytes,
                row.resident_mb,
                row.fetched_ns.least,
                row.fetched_ns.most,
                row.surprised_ns.least,
                row.surprised_ns.most,
                row.fetched_ns.runs
            );
        }
        anstream::println!(
            "  in brackets: beside the fewest devices\n  replay state {} B, quota {} B for each registered device",
            self.guard_bytes,
            self.quota_bytes
        );
    }
}

fn resident_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kilobytes.context("no VmRSS")?.parse::<u64>()? * 1_024)
}

/// SplitMix64 (Steele, Lea and Flood 2014): reproducible, and random enough to miss every cache.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_fleets_of_both_formats_are_measured_and_compared() {
        let options = Options {
            most: 1_000,
            rounds: 1,
        };
        let mut steps = 0;
        let report = run(options, |done| steps = done).unwrap();
        assert_eq!((steps, options.steps()), (4, 4));
        assert_eq!(report.rows.len(), 4);
        assert!(report.guard_bytes + report.quota_bytes <= 220);
        for row in &report.rows {
            assert!(row.fetched_ns.median > 0.0 && row.surprised_ns.median > 0.0);
            assert!(row.registry_bytes >= 320 && row.resident_mb > 1.0);
        }
    }
}
