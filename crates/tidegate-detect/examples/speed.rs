//! Times the forest and the detector on this machine: `cargo run --release -p tidegate-detect
//! --example speed`. Median, and 5th to 95th percentile, of repeated runs that are short beside a
//! scheduler's time slice; on one core but for the fit, which uses all.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for the terminal"
)]

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rand_distr::StandardNormal;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;
use tidegate_detect::detector::Detector;
use tidegate_detect::forest::{Forest, Kind, Rows};
use tidegate_detect::train::{TrainOptions, TrainingData, train};
use tidegate_envelope::id::{DeviceId, DeviceIndex};
use tidegate_envelope::reading::Channels;
use tidegate_envelope::time::Timestamp;

fn main() {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    println!("100 trees of 256 rows; {cores} cores");
    for width in [10, 30] {
        let table = normal(100_000 * width, 1);
        let rows = Rows::new(&table, width);
        for kind in [Kind::Plain, Kind::Oblique] {
            let forest = Forest::grow(kind, rows, 100, 256, 1);
            let mut scores = vec![0.0; 20_000];
            let batch = Rows::new(&table[..20_000 * width], width);
            report(
                &format!("{kind:?}, d = {width}, batch, per row"),
                30,
                20_000,
                || {
                    forest.score_batch(batch, black_box(&mut scores));
                },
            );
            report(&format!("{kind:?}, d = {width}, single row"), 30, 20_000, || {
                for row in 0..20_000 {
                    black_box(forest.score(black_box(rows.row(row))));
                }
            });
        }
    }
    for count in [100_000, 1_000_000] {
        let table = normal(count * 10, 2);
        let rows = Rows::new(&table, 10);
        for kind in [Kind::Plain, Kind::Oblique] {
            report(&format!("{kind:?}, d = 10, fit of {count} rows"), 30, 1, || {
                black_box(Forest::grow(kind, rows, 100, 256, 1));
            });
        }
    }
    message();
}

/// Rules, features, forest and debounce of one message.
fn message() {
    let device = DeviceId::new("sensor-1").unwrap();
    let readings = water(40_000);
    let mut data = TrainingData::new("noise");
    data.add(device.clone(), readings[..20_000].to_vec());
    let options = TrainOptions::new(1, Timestamp::from_micros(0));
    let model = Arc::new(train(&data, &options, &mut |_| ()).unwrap());
    let mut detector = Detector::new(model, [&device]);
    let mut unseen = readings[20_000..].chunks_exact(200).cycle();
    report("oblique, five water channels, per message", 400, 200, || {
        for (at, channels) in unseen.next().unwrap_or_default() {
            black_box(detector.assess(DeviceIndex(0), *at, channels));
        }
    });
}

fn water(count: i64) -> Vec<(Timestamp, Channels)> {
    let mut random = StdRng::seed_from_u64(3);
    let mut noise = |size: f64| size * random.sample::<f64, _>(StandardNormal);
    (0..count)
        .map(|index| {
            let flow = 50.0 + 20.0 * (index as f64 / 400.0).sin();
            let values = [
                ("flow_rate", flow + noise(0.5)),
                ("gate_a_position", 45.0 + noise(1.0)),
                ("gate_b_position", 45.0 + noise(1.0)),
                ("pressure_downstream", 60.0 - 0.002 * flow * flow + noise(0.1)),
                ("pressure_upstream", 62.0 + noise(0.1)),
            ];
            let values = values.map(|(name, value)| (name.into(), value)).to_vec();
            (
                Timestamp::from_micros(index * 5_000_000),
                Channels::new(values).unwrap(),
            )
        })
        .collect()
}

fn normal(count: usize, seed: u64) -> Vec<f32> {
    let mut random = StdRng::seed_from_u64(seed);
    (0..count).map(|_| random.sample(StandardNormal)).collect()
}

/// Runs `work`, which does `units` things, `times` times.
fn report(what: &str, times: usize, units: u32, mut work: impl FnMut()) {
    work();
    let mut micros: Vec<f64> = (0..times)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64() * 1e6 / f64::from(units)
        })
        .collect();
    micros.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| micros[((times - 1) as f64 * share) as usize];
    println!(
        "{what:48} {:>10.2} µs ({:.2} to {:.2})",
        at(0.5),
        at(0.05),
        at(0.95)
    );
}
