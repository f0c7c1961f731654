//! Sustained rate: signed messages over mTLS at QoS 1, verified, durable and scored by Tidegate,
//! beside Mosquitto delivering the same load to `mosquitto_sub`.

use super::load::Plan;
use super::rig::Rig;
use super::statistics::Runs;
use anyhow::{Result, bail};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tidegate_envelope::reading::Channels;
use tidegate_store::event::Outcome;

/// How much load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) devices: u32,
    pub(crate) messages: u64,
    pub(crate) window: usize,
    pub(crate) rounds: usize,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    devices: u32,
    messages: u64,
    tidegate_per_s: Runs,
    tidegate_processor_us: Runs,
    mosquitto_per_s: Runs,
    mosquitto_processor_us: Runs,
    ratio: f64,
}

/// Runs both in turn.
pub(crate) async fn run(options: Options, mut progress: impl FnMut(usize)) -> Result<Report> {
    let rig = Rig::new(options.devices, 1_000_000)?;
    let (mut ours, mut our_processor, mut theirs, mut their_processor) = (vec![], vec![], vec![], vec![]);
    for round in 0..options.rounds {
        let (rate, processor) = tidegate(&rig, options).await?;
        ours.push(rate);
        our_processor.push(processor);
        let (rate, processor) = mosquitto(&rig, options).await?;
        theirs.push(rate);
        their_processor.push(processor);
        progress(round + 1);
    }
    let (tidegate_per_s, mosquitto_per_s) = (Runs::of(&ours), Runs::of(&theirs));
    Ok(Report {
        devices: options.devices,
        messages: options.messages,
        tidegate_per_s,
        tidegate_processor_us: Runs::of(&our_processor),
        mosquitto_per_s,
        mosquitto_processor_us: Runs::of(&their_processor),
        ratio: tidegate_per_s.median / mosquitto_per_s.median,
    })
}

impl Report {
    /// The report for people.
    pub(crate) fn print(&self) {
        let line = |name: &str, rate: &Runs, processor: &Runs| {
            anstream::println!(
                "  {name:<44} {:>7.0}/s   ({:.0} to {:.0} in {} rounds; {:.1} µs of processor a message)",
                rate.median,
                rate.least,
                rate.most,
                rate.runs,
                processor.median
            );
        };
        anstream::println!(
            "Sustained rate: {} devices, {} messages, mTLS, QoS 1, load generator included",
            self.devices,
            self.messages
        );
        line(
            "tidegate, verified, durable and scored",
            &self.tidegate_per_s,
            &self.tidegate_processor_us,
        );
        line(
            "Mosquitto, delivered to mosquitto_sub",
            &self.mosquitto_per_s,
            &self.mosquitto_processor_us,
        );
        anstream::println!("  ratio {:.2}", self.ratio);
    }
}

/// Messages per second until every one is acknowledged, and processor µs a message.
async fn tidegate(rig: &Rig, options: Options) -> Result<(f64, f64)> {
    let part = rig.start_tidegate(&["up", "--level", "ai"])?;
    let before = part.processor_s()?;
    let start = Instant::now();
    publish(rig, options).await?;
    let elapsed_s = start.elapsed().as_secs_f64();
    let processor = part.processor_s()? - before;
    let totals = rig.totals()?;
    drop(part);
    rig.forget_data()?;
    let stored = totals.of(Outcome::Accepted);
    if stored < options.messages {
        let found: Vec<_> = totals
            .iter()
            .map(|(_, reason, count)| format!("{reason:?} {count}"))
            .collect();
        bail!(
            "{} messages were acknowledged, but {stored} are stored: {}",
            options.messages,
            found.join(", ")
        );
    }
    Ok((
        options.messages as f64 / elapsed_s,
        processor * 1e6 / options.messages as f64,
    ))
}

/// Messages per second until `mosquitto_sub` has them all, and the broker's processor µs a message.
async fn mosquitto(rig: &Rig, options: Options) -> Result<(f64, f64)> {
    let part = rig.start_mosquitto()?;
    let mut subscriber = rig.start_mosquitto_sub(options.messages)?;
    rig.wait_for_subscriber().await?;
    let before = part.processor_s()?;
    let start = Instant::now();
    publish(rig, options).await?;
    let ended = tokio::task::spawn_blocking(move || subscriber.wait()).await??;
    let elapsed_s = start.elapsed().as_secs_f64();
    if !ended.success() {
        bail!("mosquitto_sub did not receive everything");
    }
    let processor = part.processor_s()? - before;
    Ok((
        options.messages as f64 / elapsed_s,
        processor * 1e6 / options.messages as f64,
    ))
}

async fn publish(rig: &Rig, options: Options) -> Result<()> {
    let connections = rig.connect().await?;
    let each = options.messages / u64::from(options.devices);
    let plan = Plan {
        messages: each,
        window: options.window,
        interval: None,
    };
    let numbers = Arc::new(AtomicU64::new(0));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for mut connection in connections {
        let (numbers, acknowledged) = (Arc::clone(&numbers), Arc::clone(&acknowledged));
        tasks.spawn(async move {
            connection
                .publish(plan, values, &numbers, |_| {}, &acknowledged)
                .await
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let acknowledged = acknowledged.load(Ordering::Relaxed);
    if acknowledged != options.messages {
        bail!(
            "{acknowledged} of {} messages were acknowledged",
            options.messages
        );
    }
    Ok(())
}

fn values(number: u64) -> Channels {
    let step = (number % 100) as f64 / 100.0;
    Channels::new(vec![
        ("pressure_upstream".into(), 60.0 + step),
        ("pressure_downstream".into(), 55.0 + step),
        ("flow_rate".into(), 48.0 + step),
        ("gate_a_position".into(), 45.3),
        ("gate_b_position".into(), 44.9),
    ])
    .expect("five finite channels")
}
