//! Training is fixed by its seed, and refuses what it cannot learn from.

use crate::plant::{Readings, Water, data, device, model, options, ordinary, readings, second};
use tidegate_detect::forest::Kind;
use tidegate_detect::train::{MIN_READINGS, TrainError, TrainOptions, TrainingData, train};
use tidegate_envelope::reading::Channels;

fn refused(readings: Readings) -> TrainError {
    let mut data = TrainingData::new("");
    data.add(device(0), readings);
    train(&data, &options(), &mut |_| ()).unwrap_err()
}

#[test]
fn the_same_seed_and_data_give_the_same_model() {
    let again = train(&data(3), &options(), &mut |_| ()).unwrap();
    assert_eq!(again.to_bytes(), model().to_bytes());
    let other = train(
        &data(3),
        &TrainOptions {
            seed: 43,
            ..options()
        },
        &mut |_| (),
    )
    .unwrap();
    assert_ne!(other.to_bytes(), model().to_bytes());
}

#[test]
fn the_model_says_what_it_was_trained_on() {
    let model = model();
    let about = model.about();
    assert_eq!(
        (about.data.as_str(), about.seed, about.trained_at()),
        ("simulated plant", 42, second(0))
    );
    assert_eq!(
        (about.training_readings, model.calibration().readings),
        (15_000, 15_000)
    );
    assert_eq!(about.forest, Kind::Oblique);
    assert_eq!(model.profiles().len(), 3);
}

#[test]
fn too_few_readings_are_refused_and_just_enough_are_not() {
    let short = refused(ordinary(0, 0, MIN_READINGS - 1));
    assert_eq!(
        short.to_string(),
        "device device-000 has 999 readings, at least 1000 are needed"
    );
    let mut data = TrainingData::new("");
    data.add(device(0), ordinary(0, 0, MIN_READINGS));
    assert!(train(&data, &options(), &mut |_| ()).is_ok());
}

#[test]
fn constant_readings_are_refused() {
    let constant = Water {
        upstream: 60.0,
        downstream: 51.0,
        flow: 45.0,
        gate_a: 45.0,
        gate_b: 45.0,
    };
    let refused = refused(readings(0, 0, 2_000, |_, water| *water = constant));
    assert_eq!(refused, TrainError::Constant { device: device(0) });
}

#[test]
fn a_gate_that_never_moves_is_no_reason_to_refuse() {
    let mut data = TrainingData::new("");
    data.add(device(0), readings(0, 0, 2_000, |_, water| water.gate_a = 45.0));
    assert!(train(&data, &options(), &mut |_| ()).is_ok());
}

#[test]
fn nothing_to_train_on_is_refused() {
    assert_eq!(
        train(&TrainingData::new(""), &options(), &mut |_| ()).unwrap_err(),
        TrainError::NoData
    );
    let empty = (0..2_000)
        .map(|index| (second(index), Channels::default()))
        .collect();
    assert_eq!(refused(empty), TrainError::NoChannel { device: device(0) });
}

#[test]
fn too_many_channels_are_refused() {
    let row = |index: usize| {
        let values = (0..13).map(|channel| (format!("c{channel}").into(), (index % 7) as f64));
        (second(index), Channels::new(values.collect()).unwrap())
    };
    let refused = refused((0..2_000).map(row).collect());
    assert_eq!(
        refused,
        TrainError::TooManyChannels {
            device: device(0),
            channels: 13
        }
    );
}

#[test]
fn options_out_of_range_are_refused() {
    let check = |options: TrainOptions| {
        matches!(
            train(&data(1), &options, &mut |_| ()),
            Err(TrainError::Option { .. })
        )
    };
    assert!(check(TrainOptions {
        trees: 0,
        ..options()
    }));
    assert!(check(TrainOptions {
        trees: 1_001,
        ..options()
    }));
    assert!(check(TrainOptions {
        subsample: 1,
        ..options()
    }));
    assert!(check(TrainOptions {
        false_alarm_rate: 0.0,
        ..options()
    }));
    assert!(check(TrainOptions {
        false_alarm_rate: f64::NAN,
        ..options()
    }));
}

#[test]
fn progress_rises_to_one() {
    let mut shares = Vec::new();
    train(&data(2), &options(), &mut |share| shares.push(share)).unwrap();
    assert!(shares.is_sorted() && shares.last() == Some(&1.0), "{shares:?}");
}
