//! What a forest costs: fitting, one row, many rows, and a message with its features.

use super::{Options, in_python};
use crate::bench::statistics::Runs;
use crate::demo::{READING_EVERY, SEED};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;
use tidegate_detect::forest::Kind;
use tidegate_detect::scorer::Scorer;
use tidegate_detect::table::{Table, TableForest, TableOptions};
use tidegate_detect::train::{TrainOptions, TrainingData, train};
use tidegate_device::simulator::{Building, Zone};
use tidegate_envelope::id::{DeviceId, ZoneId};
use tidegate_envelope::time::Timestamp;

/// Columns of the table, as in the figures that this is compared with.
const COLUMNS: usize = 10;
/// Rows that are scored in one call.
const BATCH: usize = 100_000;
/// Rows that are scored one by one.
const SINGLE: usize = 20_000;
/// Readings that the streaming model is trained on, and as many that are then scored.
const MESSAGES: u32 = 20_000;

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Speed {
    rows: usize,
    fit_ms: Runs,
    single_row_ns: Runs,
    batch_row_ns: Runs,
    oblique_message_ns: Runs,
    scikit_learn: Option<Peer>,
}

/// The same with scikit-learn.
#[derive(Debug, Serialize)]
struct Peer {
    fit_ms: Runs,
    single_row_ns: Runs,
    batch_row_ns: Runs,
}

/// As the peer prints it, round by round.
#[derive(Deserialize)]
struct PeerRounds {
    fit_ms: Vec<f64>,
    batch_ns: Vec<f64>,
    single_ns: Vec<f64>,
}

pub(crate) fn run(options: &Options, step: &mut dyn FnMut()) -> Result<Speed> {
    let values = normal(options.rows.max(BATCH) * COLUMNS);
    let table = Table::new(&values[..options.rows * COLUMNS], COLUMNS)?;
    let batch = Table::new(&values[..BATCH * COLUMNS], COLUMNS)?;
    drop(values);
    let mut messages = Messages::new()?;
    let (mut fit, mut single, mut many, mut message) = (vec![], vec![], vec![], vec![]);
    for round in 0..options.rounds {
        let start = Instant::now();
        let forest = TableForest::fit(&table, &TableOptions::new(Kind::Plain, round as u64))?;
        fit.push(start.elapsed().as_secs_f64() * 1e3);
        let start = Instant::now();
        black_box(forest.scores(&batch)?);
        many.push(start.elapsed().as_nanos() as f64 / BATCH as f64);
        single.push(one_by_one(&forest, &batch));
        message.push(messages.score()?);
        step();
    }
    let scikit_learn = match &options.python {
        None => None,
        Some(python) => {
            let arguments = [
                "speed".into(),
                options.rows.to_string(),
                options.rounds.to_string(),
            ];
            let rounds: PeerRounds = in_python(python, &arguments)?;
            Some(Peer {
                fit_ms: Runs::of(&rounds.fit_ms),
                single_row_ns: Runs::of(&rounds.single_ns),
                batch_row_ns: Runs::of(&rounds.batch_ns),
            })
        }
    };
    step();
    Ok(Speed {
        rows: options.rows,
        fit_ms: Runs::of(&fit),
        single_row_ns: Runs::of(&single),
        batch_row_ns: Runs::of(&many),
        oblique_message_ns: Runs::of(&message),
        scikit_learn,
    })
}

/// The median of single rows, in nanoseconds; reading the clock is part of it.
fn one_by_one(forest: &TableForest, batch: &Table) -> f64 {
    let rows = batch.rows();
    let mut spent: Vec<u64> = (0..SINGLE)
        .map(|index| {
            let start = Instant::now();
            black_box(forest.forest().score(black_box(rows.row(index))));
            u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
        })
        .collect();
    spent.sort_unstable();
    spent[SINGLE / 2] as f64
}

/// A device of the simulated building, and the model of its first readings.
struct Messages {
    model: Arc<tidegate_detect::model::Model>,
    device: DeviceId,
    readings: Vec<(Timestamp, tidegate_envelope::reading::Channels)>,
}

impl Messages {
    fn new() -> Result<Self> {
        let device = DeviceId::new("device-001")?;
        let mut sensor = Building::new(SEED).sensor(Zone::of(&ZoneId::new("main")?), &device);
        let readings = (0..2 * MESSAGES).map(|number| {
            let at = Timestamp::from_micros(1_767_225_600_000_000).plus(READING_EVERY * number);
            (at, sensor.sample(at))
        });
        let mut readings: Vec<_> = readings.collect();
        let scored = readings.split_off(MESSAGES as usize);
        let mut data = TrainingData::new("the simulated building");
        data.add(device.clone(), readings);
        let options = TrainOptions::new(SEED, Timestamp::from_micros(0));
        Ok(Self {
            model: Arc::new(train(&data, &options, &mut |_| ())?),
            device,
            readings: scored,
        })
    }

    /// Nanoseconds a message with features and oblique forest.
    fn score(&mut self) -> Result<f64> {
        let mut scorer = Scorer::new(Arc::clone(&self.model), &self.device)?;
        let start = Instant::now();
        for (at, channels) in &self.readings {
            black_box(scorer.score(*at, channels)?);
        }
        Ok(start.elapsed().as_nanos() as f64 / self.readings.len() as f64)
    }
}

/// Numbers that are nearly normal: sums of twelve uniform ones (splitmix64).
fn normal(count: usize) -> Vec<f64> {
    let mut state = SEED;
    let mut uniform = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    };
    (0..count)
        .map(|_| (0..12).map(|_| uniform()).sum::<f64>() - 6.0)
        .collect()
}

impl Speed {
    pub(super) fn print(&self) {
        anstream::println!("Forest of 100 trees on 256 rows each, {COLUMNS} columns");
        let peer = |of: fn(&Peer) -> &Runs| self.scikit_learn.as_ref().map(of);
        let line = |name: &str, runs: &Runs, scale: f64, unit: &str, aim: f64, peer: Option<&Runs>| {
            let peer = peer.map_or_else(String::new, |peer| {
                format!("; scikit-learn {:.2} {unit}", peer.median * scale)
            });
            anstream::println!(
                "  {name:<38} {:>8.2} {unit}   ({:.2} to {:.2}), aimed at {aim}{peer}",
                runs.median * scale,
                runs.least * scale,
                runs.most * scale
            );
        };
        line(
            &format!("fit, {} rows", self.rows),
            &self.fit_ms,
            1.0,
            "ms",
            20.0,
            peer(|peer| &peer.fit_ms),
        );
        let single = peer(|peer| &peer.single_row_ns);
        line("plain, one row", &self.single_row_ns, 1e-3, "µs", 1.5, single);
        let batch = peer(|peer| &peer.batch_row_ns);
        line("plain, a row of many", &self.batch_row_ns, 1e-3, "µs", 0.8, batch);
        line(
            "features and oblique, a message",
            &self.oblique_message_ns,
            1e-3,
            "µs",
            6.0,
            None,
        );
    }
}
