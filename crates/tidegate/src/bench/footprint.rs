//! Footprint: resident memory with the demo running, and time from start to the first message on the page.

use super::rig::Rig;
use super::statistics::Runs;
use anyhow::{Context, Result};
use futures_util::StreamExt;
use serde::Serialize;
use std::time::{Duration, Instant};

/// How long the demo runs before its memory is read.
const SETTLE: Duration = Duration::from_secs(10);

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    devices: u32,
    first_message_ms: Runs,
    /// Of the very first run, which made everything.
    first_run_resident_mb: f64,
    resident_mb: Runs,
}

/// Runs `rounds` rounds with everything made already.
pub(crate) async fn run(rounds: usize, mut progress: impl FnMut(usize)) -> Result<Report> {
    let devices = 12;
    let rig = Rig::new(devices, 1_000)?;
    let part = rig.start_tidegate(&["up", "--demo"])?;
    tokio::time::sleep(SETTLE).await;
    let first_run_resident_mb = part.resident_bytes()? as f64 / 1e6;
    drop(part);
    let (mut first, mut resident) = (vec![], vec![]);
    for round in 0..rounds {
        let start = Instant::now();
        let part = rig.start_tidegate(&["up", "--demo"])?;
        first.push(first_event(&rig, start).await?);
        tokio::time::sleep(SETTLE).await;
        resident.push(part.resident_bytes()? as f64 / 1e6);
        progress(round + 1);
    }
    Ok(Report {
        devices,
        first_message_ms: Runs::of(&first),
        first_run_resident_mb,
        resident_mb: Runs::of(&resident),
    })
}

impl Report {
    /// The report for people.
    pub(crate) fn print(&self) {
        let line = |name: &str, unit: &str, runs: &Runs| {
            anstream::println!(
                "  {name:<40} {:>7.1} {unit}   ({:.1} to {:.1} in {} rounds)",
                runs.median,
                runs.least,
                runs.most,
                runs.runs
            );
        };
        anstream::println!("Footprint of `tidegate up --demo` with {} devices", self.devices);
        line("start to first message on the page", "ms", &self.first_message_ms);
        line("resident memory", "MB", &self.resident_mb);
        anstream::println!(
            "  {:<40} {:>7.1} MB",
            "resident memory of the first run",
            self.first_run_resident_mb
        );
    }
}

/// Milliseconds from `start` until a frame with a message reaches a page.
async fn first_event(rig: &Rig, start: Instant) -> Result<f64> {
    let url = format!("ws://localhost:{}/api/v1/stream", rig.config.listen.page_port);
    let (mut stream, _) = tokio_tungstenite::connect_async(url).await?;
    loop {
        let frame = stream.next().await.context("the stream ended")??;
        let Ok(frame) = serde_json::from_slice::<serde_json::Value>(&frame.into_data()) else {
            continue;
        };
        let accepted = frame["events"].as_array().is_some_and(|events| {
            events
                .iter()
                .any(|event| event["t_ms"].as_f64().is_some() && event["outcome"] == "accepted")
        });
        if accepted {
            return Ok(start.elapsed().as_secs_f64() * 1e3);
        }
    }
}
