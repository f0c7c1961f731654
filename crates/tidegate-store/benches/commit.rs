//! What a commit costs per reading, and what a reading takes on disk.
//!
//! `cargo bench -p tidegate-store`. Each size of batch runs on the disk of the temporary folder and,
//! where there is one, on a memory disk, where syncing is free: the difference is the disk's. Give
//! a folder as argument to measure another disk.
#![expect(clippy::print_stdout, reason = "a bench reports on standard output")]
#![expect(clippy::unwrap_used, reason = "a bench stops at the first failure")]

use std::path::Path;
use std::time::Instant;
use tidegate_envelope::id::{Boot, DeviceId, DeviceIndex, KeyEpoch, Sequence};
use tidegate_envelope::key::Tag;
use tidegate_envelope::reading::{Channels, Reading};
use tidegate_envelope::time::Timestamp;
use tidegate_store::writer::{Options, Store};
use tidegate_verify::delivery::SessionId;
use tidegate_verify::guard::Admission;
use tidegate_verify::log::ReplayLog;
use tidegate_verify::state::DeviceState;
use tidegate_verify::verifier::{Message, Protection};

const READINGS: u64 = 200_000;
const NOW_US: i64 = 1_771_472_105_000_000;

fn main() {
    println!("disk | devices | batch | readings | µs per reading | worst commit ms | bytes per reading");
    let given = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let temporary = given.map_or_else(std::env::temp_dir, Into::into);
    for disk in [temporary.as_path(), Path::new("/dev/shm")] {
        if !disk.is_dir() {
            continue;
        }
        for (device_count, batch) in [(20, 1), (20, 64), (20, 512), (1_000, 64), (1_000, 512)] {
            measure(disk, device_count, batch);
        }
    }
}

fn measure(disk: &Path, device_count: u32, batch: u64) {
    let folder = tempfile::tempdir_in(disk).unwrap();
    let path = folder.path().join("tidegate.db");
    let devices: Vec<_> = (0..device_count)
        .map(|number| DeviceId::new(&format!("device-{number:04}")).unwrap())
        .collect();
    let mut store = Store::open(&path, &devices, &Options::default()).unwrap();
    let readings = READINGS.min(batch * 2_000);
    let (mut spent, mut worst) = (0.0, 0.0_f64);
    let mut next = 0;
    while next < readings {
        let messages: Vec<_> = (next..next + batch).map(|n| admission(n, device_count)).collect();
        next += batch;
        let start = Instant::now();
        store
            .commit(&messages, messages[messages.len() - 1].message.received_at)
            .unwrap();
        let elapsed_s = start.elapsed().as_secs_f64();
        spent += elapsed_s;
        worst = worst.max(elapsed_s);
    }
    store.close().unwrap();
    println!(
        "{} | {device_count} | {batch} | {next} | {:.2} | {:.1} | {:.1}",
        disk.display(),
        spent * 1e6 / next as f64,
        worst * 1e3,
        std::fs::metadata(&path).unwrap().len() as f64 / next as f64,
    );
}

/// Five channels with two decimals, as the sensors send them, 1 ms apart.
fn admission(n: u64, device_count: u32) -> Admission {
    let sequence = n / u64::from(device_count) + 1;
    let value = |base: f64, step: u64| base + (n * step % 1_000) as f64 / 100.0;
    let rounded = |value: f64| (value * 100.0).round() / 100.0;
    let received_at = Timestamp::from_micros(NOW_US + n as i64 * 1_000);
    let mut state = vec![1];
    state.extend(sequence.to_le_bytes());
    state.resize(49 + 10 * 13, 0);
    Admission {
        message: Message {
            device: Some(DeviceIndex((n % u64::from(device_count)) as u32)),
            zone: None,
            reading: Reading {
                device: None,
                timestamp: Some(Timestamp::from_micros(received_at.as_micros() - 20_123)),
                sequence: Sequence::new(sequence),
                boot: Some(Boot(3)),
                epoch: None,
                status: "operational".into(),
                channels: Channels::new(vec![
                    ("pressure_upstream".into(), rounded(value(60.0, 7))),
                    ("pressure_downstream".into(), rounded(value(55.0, 11))),
                    ("flow_rate".into(), rounded(value(40.0, 13))),
                    ("gate_a_position".into(), rounded(value(45.0, 17))),
                    ("gate_b_position".into(), 45.0),
                ])
                .unwrap(),
            },
            tag: Tag([7; 32]),
            epoch: KeyEpoch(0),
            session: SessionId(1),
            resumed: false,
            received_at,
            protection: Protection::Signed,
        },
        state: DeviceState::from_bytes(&state),
        notices: Vec::new(),
    }
}
