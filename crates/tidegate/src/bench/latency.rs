//! Latency: from a device's publish to the event on ws://localhost:8765, with mTLS, signature,
//! durable commit and scoring in between.

use super::load::Plan;
use super::rig::Rig;
use super::statistics::{Runs, percentile};
use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tidegate_envelope::reading::Channels;
use tokio_tungstenite::tungstenite::Message;

/// How long the last events may take.
const LAST_WITHIN: Duration = Duration::from_secs(5);
/// The running number is carried in the millionths of this pressure, PSI.
const BASE_PRESSURE_PSI: f64 = 60.0;

/// How much load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) devices: u32,
    pub(crate) per_s: u32,
    pub(crate) seconds: u32,
    pub(crate) rounds: usize,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    per_s: u32,
    messages: u64,
    p50_ms: Runs,
    p99_ms: Runs,
    most_ms: Runs,
    lost: u64,
}

/// Runs `rounds` rounds, each with a Tidegate of its own.
pub(crate) async fn run(options: Options, mut progress: impl FnMut(usize)) -> Result<Report> {
    let rig = Rig::new(options.devices, 100_000)?;
    let (mut p50, mut p99, mut most, mut lost, mut messages) = (vec![], vec![], vec![], 0, 0);
    for round in 0..options.rounds {
        let part = rig.start_tidegate(&["up", "--level", "ai"])?;
        let samples = measure(&rig, options).await?;
        drop(part);
        rig.forget_data()?;
        lost += samples
            .iter()
            .filter(|sample| sample.latency_ms.is_none())
            .count() as u64;
        messages += samples.len() as u64;
        let mut seen: Vec<f64> = samples.iter().filter_map(|sample| sample.latency_ms).collect();
        seen.sort_by(f64::total_cmp);
        p50.push(percentile(&seen, 0.5));
        p99.push(percentile(&seen, 0.99));
        most.push(percentile(&seen, 1.0));
        progress(round + 1);
    }
    Ok(Report {
        per_s: options.per_s,
        messages,
        p50_ms: Runs::of(&p50),
        p99_ms: Runs::of(&p99),
        most_ms: Runs::of(&most),
        lost,
    })
}

impl Report {
    /// The report for people.
    pub(crate) fn print(&self) {
        let line = |name: &str, runs: &Runs| {
            anstream::println!(
                "  {name:<4} {:>7.2} ms   ({:.2} to {:.2} in {} rounds)",
                runs.median,
                runs.least,
                runs.most,
                runs.runs
            );
        };
        anstream::println!(
            "Publish to event at {} messages/s: mTLS, signed, durable, scored",
            self.per_s
        );
        line("p50", &self.p50_ms);
        line("p99", &self.p99_ms);
        line("most", &self.most_ms);
        anstream::println!("  {} of {} messages lost", self.lost, self.messages);
    }
}

/// One message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// None for one that was never sent.
    pub(super) sent: Option<Instant>,
    /// None for one that never came.
    pub(super) latency_ms: Option<f64>,
}

/// One round with the Tidegate that runs: each message in the order of sending.
pub(super) async fn measure(rig: &Rig, options: Options) -> Result<Vec<Sample>> {
    let port = rig.config.listen.events_port.context("no event stream")?;
    let (mut events, _) = tokio_tungstenite::connect_async(format!("ws://localhost:{port}")).await?;
    let each = u64::from(options.per_s * options.seconds / options.devices);
    let total = each * u64::from(options.devices);
    let sent: Arc<Mutex<Vec<Option<Instant>>>> = Arc::new(Mutex::new(vec![None; usize::try_from(total)?]));

    let times = Arc::clone(&sent);
    let receive = tokio::spawn(async move {
        let mut latencies = vec![None; usize::try_from(total).unwrap_or_default()];
        let mut missing = total;
        while missing > 0 {
            let Ok(Some(Ok(message))) = tokio::time::timeout(LAST_WITHIN, events.next()).await else {
                break;
            };
            let now = Instant::now();
            let Some(number) = number_in(&message).and_then(|number| usize::try_from(number).ok()) else {
                continue;
            };
            let sent_at = times
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get(number)
                .copied()
                .flatten();
            if let (Some(sent_at), Some(place @ None)) = (sent_at, latencies.get_mut(number)) {
                *place = Some((now - sent_at).as_secs_f64() * 1e3);
                missing -= 1;
            }
        }
        latencies
    });

    let interval = Duration::from_secs(1) * options.devices / options.per_s;
    let plan = Plan {
        messages: each,
        window: 64,
        interval: Some(interval),
    };
    let (numbers, acknowledged) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut tasks = tokio::task::JoinSet::new();
    for (position, mut connection) in rig.connect().await?.into_iter().enumerate() {
        let (numbers, acknowledged, sent) =
            (Arc::clone(&numbers), Arc::clone(&acknowledged), Arc::clone(&sent));
        // Devices publish one after the other, not all at once.
        let offset = interval * u32::try_from(position)? / options.devices;
        tasks.spawn(async move {
            tokio::time::sleep(offset).await;
            let mark = |number: u64| {
                let place = usize::try_from(number).unwrap_or(usize::MAX);
                if let Some(time) = sent.lock().unwrap_or_else(PoisonError::into_inner).get_mut(place) {
                    *time = Some(Instant::now());
                }
            };
            connection
                .publish(plan, values, &numbers, mark, &acknowledged)
                .await
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    if acknowledged.load(Ordering::Relaxed) != total {
        bail!("not every message was acknowledged");
    }
    let latencies = receive.await?;
    let sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
    let samples = sent.iter().zip(latencies);
    Ok(samples
        .map(|(&sent, latency_ms)| Sample { sent, latency_ms })
        .collect())
}

/// Carries the running number in a value that the compatible event shows.
fn values(number: u64) -> Channels {
    Channels::new(vec![
        (
            "pressure_upstream".into(),
            BASE_PRESSURE_PSI + number as f64 / 1e6,
        ),
        ("pressure_downstream".into(), 55.0),
        ("flow_rate".into(), 48.0),
        ("gate_a_position".into(), 45.3),
        ("gate_b_position".into(), 44.9),
    ])
    .expect("five finite channels")
}

fn number_in(message: &Message) -> Option<u64> {
    let Message::Text(text) = message else { return None };
    let event: serde_json::Value = serde_json::from_str(text).ok()?;
    let pressure = event.get("data")?.get("pressure_psi")?.as_f64()?;
    Some(((pressure - BASE_PRESSURE_PSI) * 1e6).round() as u64)
}
