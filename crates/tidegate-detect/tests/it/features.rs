//! Features look back only, and their memory is bounded.

use crate::plant::{device, model, ordinary, second};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tidegate_detect::channel::MAX_TRACKED;
use tidegate_detect::detector::Detector;
use tidegate_detect::features::{COUNT, aggregate, profile::Profile, stream::State};
use tidegate_detect::train::{TrainOptions, TrainingData, train};
use tidegate_envelope::id::DeviceIndex;
use tidegate_envelope::reading::Channels;
use tidegate_envelope::time::Timestamp;

fn features(profile: &Profile, readings: &[(Timestamp, Channels)]) -> Vec<[f32; COUNT]> {
    let mut state = State::new(profile);
    let mut heads = vec![0.0; profile.head_count()];
    let observe = |(at, channels): &(Timestamp, Channels)| {
        let x: Vec<f64> = channels.iter().map(|(_, value)| value).collect();
        state.observe(profile, *at, &x, &mut heads);
        aggregate(profile, &heads)
    };
    readings.iter().map(observe).collect()
}

#[test]
fn features_do_not_depend_on_later_readings() {
    let model = model();
    let profile = model.profile(&device(0)).unwrap();
    let shown = ordinary(0, 20_000, 300);
    assert_eq!(features(profile, &shown)[..200], features(profile, &shown[..200]));
}

#[test]
fn features_of_ordinary_readings_are_near_zero() {
    let model = model();
    let shown = ordinary(0, 20_000, 2_000);
    let rows = features(model.profile(&device(0)).unwrap(), &shown);
    for feature in 0..COUNT {
        let mean = rows.iter().map(|row| row[feature]).sum::<f32>() / rows.len() as f32;
        assert!(mean.abs() < 4.0, "feature {feature} has the mean {mean}");
    }
}

/// `count` channels that follow a common cause, with noise.
fn generic(count: usize, first: usize, rows: usize) -> Vec<(Timestamp, Channels)> {
    let mut random = StdRng::seed_from_u64(first as u64);
    let mut row = |index: usize| {
        let cause = ((first + index) as f64 / 300.0).sin();
        let value = |channel: usize| 10.0 + cause * (channel as f64 + 1.0);
        let values = (0..count).map(|channel| {
            (
                format!("channel_{channel:02}").into(),
                value(channel) + random.random_range(-0.1..0.1),
            )
        });
        (
            second(5 * (first + index)),
            Channels::new(values.collect()).unwrap(),
        )
    };
    (0..rows).map(&mut row).collect()
}

#[test]
fn a_sensor_of_another_kind_is_judged_by_linear_residuals() {
    let mut data = TrainingData::new("generic");
    data.add(device(0), generic(3, 0, 8_000));
    let options = TrainOptions {
        false_alarm_rate: 1e-3,
        ..TrainOptions::new(1, second(0))
    };
    let model = train(&data, &options, &mut |_| ()).unwrap();
    let mut detector = Detector::new(model.into(), [&device(0)]);
    let mut shown = generic(3, 10_000, 400);
    for (_, channels) in &mut shown[300..] {
        // Within its range of 7 to 13, but not where the other two put it.
        let changed = channels.iter().map(|(name, value)| {
            (
                name.into(),
                if name == "channel_02" { 20.0 - value } else { value },
            )
        });
        *channels = Channels::new(changed.collect()).unwrap();
    }
    let flags: Vec<_> = shown
        .iter()
        .map(|(at, channels)| detector.assess(DeviceIndex(0), *at, channels))
        .collect();
    assert!(flags[..300].iter().filter(|answer| answer.flagged).count() <= 3);
    let sentences: Vec<_> = flags[300..]
        .iter()
        .filter_map(|answer| Some(&answer.reason.as_ref()?.sentence))
        .collect();
    assert!(
        sentences
            .iter()
            .any(|sentence| sentence.contains("what the other channels explain")),
        "{sentences:?}"
    );
}

#[test]
fn the_widest_sensor_stays_within_a_kilobyte() {
    let mut data = TrainingData::new("generic");
    data.add(device(0), generic(MAX_TRACKED, 0, 1_000));
    let model = train(&data, &TrainOptions::new(1, second(0)), &mut |_| ()).unwrap();
    let bytes = Detector::new(model.into(), [&device(0)]).state_bytes(DeviceIndex(0));
    assert!(bytes <= 1_024, "{bytes} bytes");
}
