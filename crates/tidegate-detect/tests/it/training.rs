//! Training is fixed by its seed, and refuses what it cannot learn from.

use crate::plant::{Readings, Water, data, device, model, options, ordinary, readings, second};
use tidegate_detect::detector::WARM_UP_READINGS;
use tidegate_detect::forest::Kind;
use tidegate_detect::train::{
    Alarms, FeatureSet, KnownAlarm, MIN_READINGS, RECOVERY_READINGS, TrainError, TrainOptions, TrainingData,
    check, train,
};
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
        (30_000, 30_000 - 6 * u64::from(WARM_UP_READINGS)),
        "each half calibrates, but for its warm-up"
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
    assert_eq!(
        refused,
        TrainError::Constant {
            device: device(0),
            rows: 0..1_000
        }
    );
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

/// 4,000 readings, of which rows 1,000 to 1,099 are known to be an alarm.
fn with_an_alarm() -> TrainingData {
    let mut data = TrainingData::new("");
    data.add(
        device(0),
        readings(0, 0, 4_000, |index, water| {
            if (1_000..1_100).contains(&index) {
                water.flow += 25.0;
            }
        }),
    );
    data.add_alarm(
        device(0),
        KnownAlarm {
            from: second(5_000),
            until: second(5_495),
            why: "flow 25 L/min too high".to_owned(),
        },
    );
    data
}

#[test]
fn readings_of_a_known_alarm_are_refused_by_their_rows_and_reason() {
    let refused = train(&with_an_alarm(), &options(), &mut |_| ()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "device device-000, rows 1000 to 1100 are not ordinary (flow 25 L/min too high): leave them out"
    );
    assert_eq!(check(&with_an_alarm(), Alarms::Refuse), [refused]);
    assert_eq!(check(&with_an_alarm(), Alarms::LeaveOut), []);
}

#[test]
fn readings_of_a_known_alarm_are_left_out_with_the_recovery_after_it() {
    let options = TrainOptions {
        alarms: Alarms::LeaveOut,
        ..options()
    };
    let model = train(&with_an_alarm(), &options, &mut |_| ()).unwrap();
    let kept = 4_000 - 100 - RECOVERY_READINGS as u64;
    assert_eq!(model.about().training_readings, kept);
    let flow = &model.profiles()[0].channels[0];
    assert!(flow.name == "flow_rate" && flow.high < 66.0, "{flow:?}");
}

#[test]
fn a_value_that_no_sensor_can_mean_is_no_training_data() {
    let gross = || {
        readings(0, 0, 2_000, |index, water| {
            if index == 700 {
                water.upstream = 250.0;
            }
        })
    };
    assert_eq!(
        refused(gross()).to_string(),
        "device device-000, rows 700 to 701 are not ordinary \
         (upstream pressure 250.0 PSI is above the limit of 150 PSI): leave them out"
    );
    let mut data = TrainingData::new("");
    data.add(device(0), gross());
    let options = TrainOptions {
        alarms: Alarms::LeaveOut,
        ..options()
    };
    let model = train(&data, &options, &mut |_| ()).unwrap();
    assert_eq!(model.about().training_readings, 1_999);
}

#[test]
fn readings_out_of_order_are_refused() {
    let mut shuffled = ordinary(0, 0, 2_000);
    shuffled.swap(500, 501);
    assert_eq!(
        refused(shuffled),
        TrainError::Order {
            device: device(0),
            row: 501
        }
    );
}

/// Upstream pressure as if in another unit from reading `from` on.
fn kilopascals(number: u32, from: usize) -> Readings {
    readings(number, 0, 4_000, |index, water| {
        if index >= from {
            water.upstream = 65.0 / 6.894_757;
        }
    })
}

#[test]
fn a_unit_that_changes_within_a_device_is_refused() {
    let refused = refused(kilopascals(0, 2_000));
    assert!(
        matches!(&refused, TrainError::Unit { channel, units: "PSI and kPa", .. } if channel == "pressure_upstream"),
        "{refused}"
    );
}

#[test]
fn one_device_of_a_fleet_in_another_unit_is_refused_and_named() {
    let mut data = data(3);
    data.add(device(3), kilopascals(3, 0));
    let refused = check(&data, Alarms::Refuse);
    assert!(
        matches!(&refused[..], [TrainError::Unit { device: found, .. }] if *found == device(3)),
        "{refused:?}"
    );
}

#[test]
fn raw_values_need_the_same_channels_of_all() {
    let options = TrainOptions {
        features: FeatureSet::Raw,
        ..options()
    };
    let model = train(&data(2), &options, &mut |_| ()).unwrap();
    assert_eq!(model.about().features, []);
    let mut data = data(1);
    let one = |(at, channels): &(_, Channels)| {
        let flow = channels.get("flow_rate").unwrap();
        (*at, Channels::new(vec![("flow_rate".into(), flow)]).unwrap())
    };
    data.add(device(1), ordinary(1, 0, 2_000).iter().map(one).collect());
    assert!(matches!(
        train(&data, &options, &mut |_| ()),
        Err(TrainError::ChannelsDiffer { .. })
    ));
}
