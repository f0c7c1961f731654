//! The simulated hotel inlet: every labelled event is found, and ordinary hours are quiet.

use crate::plant::{Readings, second};
use tidegate_detect::detector::Detector;
use tidegate_detect::train::{TrainOptions, TrainingData, train};
use tidegate_envelope::id::{DeviceId, DeviceIndex};
use tidegate_envelope::reading::Channels;

/// Readings of each of the three days in the excerpt.
const DAY: usize = 2_500;
/// Readings after an event in which a flag is not called false: means need to recover.
const RECOVERY: usize = 240;

fn excerpt() -> (Readings, Vec<String>) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/hotel_106_excerpt.csv");
    let mut reader = csv::Reader::from_path(path).unwrap();
    let names = reader.headers().unwrap().clone();
    let rows = reader.records().map(|record| {
        let record = record.unwrap();
        let values = (1..6).map(|column| (names[column].into(), record[column].parse().unwrap()));
        let at = second(record[0].parse().unwrap());
        (
            (at, Channels::new(values.collect()).unwrap()),
            record[6].to_owned(),
        )
    });
    rows.unzip()
}

#[test]
fn each_event_is_flagged_and_ordinary_hours_are_not() {
    let (readings, events) = excerpt();
    let device = DeviceId::new("hotel-106").unwrap();
    let mut data = TrainingData::new("two ordinary mornings");
    data.add(device.clone(), readings[..2 * DAY].to_vec());
    let options = TrainOptions {
        false_alarm_rate: 1e-3,
        ..TrainOptions::new(7, second(0))
    };
    let model = train(&data, &options, &mut |_| ()).unwrap();

    let mut detector = Detector::new(model.into(), [&device]);
    let mut flags: Vec<bool> = Vec::new();
    for (at, channels) in &readings[2 * DAY..] {
        flags.push(detector.assess(DeviceIndex(0), *at, channels).flagged);
    }
    let events = &events[2 * DAY..];
    for wanted in ["noise_up", "leak_between_gates", "bias_step", "spoof_uniform"] {
        let flagged = flags
            .iter()
            .zip(events)
            .any(|(flag, event)| *flag && event == wanted);
        assert!(flagged, "{wanted} was not flagged");
    }
    let quiet = |index: usize| {
        events[index.saturating_sub(RECOVERY)..=index]
            .iter()
            .all(String::is_empty)
    };
    let ordinary: Vec<usize> = (0..DAY).filter(|&index| quiet(index)).collect();
    let false_alarms = ordinary.iter().filter(|&&index| flags[index]).count();
    assert!(
        false_alarms <= 5,
        "{false_alarms} of {} ordinary readings were flagged",
        ordinary.len()
    );
}
