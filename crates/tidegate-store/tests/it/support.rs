//! Devices, messages and states for the tests.

use std::ops::ControlFlow;
use std::path::Path;
use tidegate_envelope::id::{Boot, DeviceId, DeviceIndex, KeyEpoch, Sequence};
use tidegate_envelope::key::Tag;
use tidegate_envelope::reading::{Channels, Reading};
use tidegate_envelope::time::Timestamp;
use tidegate_store::event::Event;
use tidegate_store::reader::{EventQuery, Reader, ReadingQuery, ReadingRow};
use tidegate_store::writer::{Options, Store};
use tidegate_verify::delivery::SessionId;
use tidegate_verify::guard::Admission;
use tidegate_verify::state::DeviceState;
use tidegate_verify::verifier::{Message, Protection};

/// 2026-02-19T03:35:05Z, microseconds since 1970.
pub(crate) const NOW_US: i64 = 1_771_472_105_000_000;

pub(crate) fn at_ms(ms: i64) -> Timestamp {
    Timestamp::from_micros(NOW_US + ms * 1_000)
}

pub(crate) fn devices(count: u32) -> Vec<DeviceId> {
    (1..=count).map(device).collect()
}

pub(crate) fn device(number: u32) -> DeviceId {
    DeviceId::new(&format!("device-{number:03}")).unwrap()
}

pub(crate) fn open(path: &Path, count: u32) -> Store {
    Store::open(path, &devices(count), &Options::default()).unwrap()
}

pub(crate) fn channels(values: &[(&str, f64)]) -> Channels {
    Channels::new(
        values
            .iter()
            .map(|(name, value)| ((*name).into(), *value))
            .collect(),
    )
    .unwrap()
}

/// A state as the guard makes it, through its documented bytes: mark, newest timestamp, nothing else.
pub(crate) fn state(sequence: u64) -> DeviceState {
    let mut bytes = vec![1];
    bytes.extend(sequence.to_le_bytes());
    bytes.extend((NOW_US + sequence as i64).to_le_bytes());
    bytes.resize(STATE_BYTES, 0);
    DeviceState::from_bytes(&bytes).unwrap()
}

const STATE_BYTES: usize = 49 + 10 * 13;

/// A signed message of the device at `index`, received at `received_ms` after the tests' now.
pub(crate) fn admission(index: u32, sequence: u64, received_ms: i64) -> Admission {
    let noise = (sequence % 97) as f64 / 100.0;
    Admission {
        message: Message {
            device: Some(DeviceIndex(index)),
            zone: None,
            reading: Reading {
                device: None,
                timestamp: Some(at_ms(received_ms - 20)),
                sequence: Sequence::new(sequence),
                boot: Some(Boot(3)),
                epoch: None,
                status: "operational".into(),
                channels: channels(&[
                    ("pressure_upstream", 60.0 + noise),
                    ("pressure_downstream", 55.1 + noise),
                    ("flow_rate", 40.2 + noise),
                    ("gate_a_position", 45.0),
                    ("gate_b_position", 45.0),
                ]),
            },
            tag: Tag([7; 32]),
            epoch: KeyEpoch(0),
            session: SessionId(1),
            resumed: false,
            received_at: at_ms(received_ms),
            protection: Protection::Signed,
        },
        state: Some(state(sequence)),
        notices: Vec::new(),
    }
}

pub(crate) fn all_readings(path: &Path, query: &ReadingQuery) -> Vec<ReadingRow> {
    let mut rows = Vec::new();
    Reader::open(path)
        .unwrap()
        .readings(query, |row| {
            rows.push(row);
            ControlFlow::Continue(())
        })
        .unwrap();
    rows
}

pub(crate) fn all_events(path: &Path, query: &EventQuery) -> Vec<Event> {
    let mut rows = Vec::new();
    Reader::open(path)
        .unwrap()
        .events(query, |row| {
            rows.push(row);
            ControlFlow::Continue(())
        })
        .unwrap();
    rows
}

pub(crate) fn sequences(rows: &[ReadingRow]) -> Vec<u64> {
    rows.iter().filter_map(|row| row.sequence).collect()
}
