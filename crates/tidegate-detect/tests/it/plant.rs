//! A small water plant for tests: pressures follow flow and gates, with a sensor's noise.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rand_distr::StandardNormal;
use std::sync::{Arc, OnceLock};
use tidegate_detect::model::Model;
use tidegate_detect::train::{TrainOptions, TrainingData, train};
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::reading::Channels;
use tidegate_envelope::time::Timestamp;

pub(crate) type Readings = Vec<(Timestamp, Channels)>;

/// One reading's values, before noise and a sensor's resolution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Water {
    pub(crate) upstream: f64,
    pub(crate) downstream: f64,
    pub(crate) flow: f64,
    pub(crate) gate_a: f64,
    pub(crate) gate_b: f64,
}

impl Water {
    pub(crate) fn channels(self) -> Channels {
        let named = [
            ("pressure_upstream", self.upstream),
            ("pressure_downstream", self.downstream),
            ("flow_rate", self.flow),
            ("gate_a_position", self.gate_a),
            ("gate_b_position", self.gate_b),
        ];
        Channels::new(named.map(|(name, value)| (name.into(), value)).to_vec()).unwrap()
    }
}

pub(crate) fn device(number: u32) -> DeviceId {
    DeviceId::new(&format!("device-{number:03}")).unwrap()
}

pub(crate) fn second(number: usize) -> Timestamp {
    Timestamp::from_micros(1_767_225_600_000_000 + number as i64 * 1_000_000)
}

/// `count` readings of device `number`, 5 s apart from reading `first` on, as `change` leaves them;
/// it is told how many readings came before.
pub(crate) fn readings(
    number: u32,
    first: usize,
    count: usize,
    mut change: impl FnMut(usize, &mut Water),
) -> Readings {
    let mut random = StdRng::seed_from_u64(u64::from(number) << 32 | first as u64);
    let mut noise = |size: f64| random.sample::<f64, _>(StandardNormal) * size;
    let loss = 0.001 + 0.000_1 * f64::from(number);
    let mut demand = 0.0;
    (0..count)
        .map(|index| {
            let phase = (first + index) as f64 / 150.0;
            demand = (0.95 * demand + noise(0.8)).clamp(-4.0, 4.0);
            let flow = 35.0 + 12.0 * phase.sin() + demand;
            let gate_a = 45.0 + 2.0 * (phase * 1.7).sin();
            let gate_b = 45.0 + 2.0 * (phase * 2.3).cos();
            let upstream = 65.0 - 0.000_3 * flow * flow + noise(0.08);
            let opening = 1.0 - 0.03 * (gate_a - 45.0) - 0.02 * (gate_b - 45.0);
            let downstream = upstream - loss * flow * flow * opening + noise(0.08);
            let mut water = Water {
                upstream,
                downstream,
                flow: flow + noise(0.3),
                gate_a,
                gate_b,
            };
            change(index, &mut water);
            let round = |value: f64, steps: f64| (value * steps).round() / steps;
            let rounded = Water {
                upstream: round(water.upstream, 100.0),
                downstream: round(water.downstream, 100.0),
                flow: round(water.flow, 100.0),
                gate_a: round(water.gate_a, 10.0),
                gate_b: round(water.gate_b, 10.0),
            };
            (second(5 * (first + index)), rounded.channels())
        })
        .collect()
}

pub(crate) fn ordinary(number: u32, first: usize, count: usize) -> Readings {
    readings(number, first, count, |_, _| ())
}

pub(crate) const TRAINING: usize = 10_000;

pub(crate) fn data(devices: u32) -> TrainingData {
    let mut data = TrainingData::new("simulated plant");
    for number in 0..devices {
        data.add(device(number), ordinary(number, 0, TRAINING));
    }
    data
}

/// At a false-alarm rate of 1 in 1,000.
pub(crate) fn options() -> TrainOptions {
    TrainOptions {
        false_alarm_rate: 1e-3,
        ..TrainOptions::new(42, second(0))
    }
}

/// A model of three devices, trained once for all tests.
pub(crate) fn model() -> Arc<Model> {
    static MODEL: OnceLock<Arc<Model>> = OnceLock::new();
    Arc::clone(MODEL.get_or_init(|| Arc::new(train(&data(3), &options(), &mut |_| ()).unwrap())))
}
