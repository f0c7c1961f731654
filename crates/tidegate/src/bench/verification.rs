//! Verification alone: parse, MAC and replay check of json-v1 messages on one core, beside the
//! same checks in Python.

use super::statistics::Runs;
use crate::clock;
use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;
use tidegate_envelope::id::{DeviceId, KeyEpoch, MessageDeviceId, Sequence, ZoneId};
use tidegate_envelope::json::{Document, Parser};
use tidegate_envelope::json_v1::{self, Draft};
use tidegate_envelope::key::{MacKey, RootKey};
use tidegate_envelope::principal::Principal;
use tidegate_envelope::reading::Channels;
use tidegate_envelope::time::Timestamp;
use tidegate_verify::delivery::{Delivery, SessionId};
use tidegate_verify::guard::{Admission, GuardPolicy, Outcome, ReplayGuard};
use tidegate_verify::log::{Loaded, ReplayLog};
use tidegate_verify::registry::{Device, Registry, TopicShape, Window, Zone};
use tidegate_verify::stage::Unverified;
use tidegate_verify::verifier::{Protection, Verifier};

/// The same checks in Python.
const PEER: &str = include_str!("verification_peer.py");
/// Messages of one device that are checked in a round.
const MESSAGES: u64 = 20_000;

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    message_bytes: usize,
    tidegate_ns: Runs,
    parse_ns: Runs,
    canonical_ns: Runs,
    mac_ns: Runs,
    python_ns: Runs,
    ratio: f64,
}

/// Runs `rounds` rounds of both, in turn.
pub(crate) fn run(rounds: usize, mut progress: impl FnMut(usize)) -> Result<Report> {
    let now = clock::now();
    let secret = [7_u8; 32];
    let device = DeviceId::new("device-001")?;
    let key = MacKey::derive(&RootKey::from_bytes(secret), &device, KeyEpoch(0));
    let payloads = messages(&key, now)?;
    let registry = Arc::new(registry(device, key.clone())?);

    let (mut whole, mut parse, mut canonical, mut mac, mut python) = (vec![], vec![], vec![], vec![], vec![]);
    for round in 0..rounds {
        whole.push(verify_all(&registry, &payloads, now)?);
        let (parse_ns, canonical_ns, mac_ns) = parts(&key, &payloads)?;
        parse.push(parse_ns);
        canonical.push(canonical_ns);
        mac.push(mac_ns);
        python.push(in_python(&payloads, &RootKey::from_bytes(secret), now)?);
        progress(round + 1);
    }
    let (tidegate_ns, python_ns) = (Runs::of(&whole), Runs::of(&python));
    Ok(Report {
        message_bytes: payloads[0].len(),
        tidegate_ns,
        parse_ns: Runs::of(&parse),
        canonical_ns: Runs::of(&canonical),
        mac_ns: Runs::of(&mac),
        python_ns,
        ratio: python_ns.median / tidegate_ns.median,
    })
}

impl Report {
    /// The report for people.
    pub(crate) fn print(&self) {
        let line = |name: &str, runs: &Runs| {
            anstream::println!(
                "  {name:<34} {:>8.0} ns   ({:.0} to {:.0} in {} rounds)",
                runs.median,
                runs.least,
                runs.most,
                runs.runs
            );
        };
        anstream::println!(
            "Verification of json-v1, {} bytes a message, one core",
            self.message_bytes
        );
        line("tidegate, parse + MAC + replay check", &self.tidegate_ns);
        line("  of it parse", &self.parse_ns);
        line("  of it canonical form", &self.canonical_ns);
        line("  of it MAC", &self.mac_ns);
        line("Python, the same checks", &self.python_ns);
        let rate = 1e9 / self.tidegate_ns.median;
        anstream::println!(
            "  {rate:.0} messages/s, {:.1} times Python in the same run",
            self.ratio
        );
    }
}

fn messages(key: &MacKey, now: Timestamp) -> Result<Vec<Vec<u8>>> {
    let device = MessageDeviceId::new("HYDROLOGIC-Device-001")?;
    let mut payloads = Vec::new();
    for sequence in 1..=MESSAGES {
        let step = (sequence % 100) as f64 / 100.0;
        let channels = Channels::new(vec![
            ("pressure_upstream".into(), 60.0 + step),
            ("pressure_downstream".into(), 55.0 + step),
            ("flow_rate".into(), 48.0 + step),
            ("gate_a_position".into(), 45.3),
            ("gate_b_position".into(), 44.9),
        ])
        .context("channels")?;
        let draft = Draft {
            device: &device,
            timestamp: now,
            sequence: Sequence::new(sequence).context("sequence")?,
            boot: None,
            epoch: None,
            status: "operational",
            channels: &channels,
        };
        payloads.push(json_v1::sign(&draft, key));
    }
    Ok(payloads)
}

fn registry(id: DeviceId, key: MacKey) -> Result<Registry> {
    let zone = Zone {
        id: ZoneId::new("kitchen")?,
        name: "Kitchen".into(),
    };
    let device = Device {
        message_id: MessageDeviceId::new("HYDROLOGIC-Device-001")?,
        topic_segment: id.to_string(),
        zone: zone.id.clone(),
        class: "water-inlet".into(),
        enabled: true,
        keys: vec![(KeyEpoch(0), key)],
        strict_sequence: false,
        window: Window::None,
        quota_per_s: u32::MAX,
        id,
    };
    Ok(Registry::new(
        vec![zone],
        vec![device],
        TopicShape::new("site/{device}/sensors")?,
    )?)
}

/// A log that keeps nothing: this measures the checks, not the disk.
struct NoLog;

impl ReplayLog for NoLog {
    type Error = std::convert::Infallible;

    fn load(&mut self) -> Result<Loaded, Self::Error> {
        Ok(Loaded::default())
    }

    fn commit(&mut self, _batch: &[Admission], _floor: Timestamp) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// Nanoseconds a message through verifier and guard, as the pipeline runs them.
fn verify_all(registry: &Arc<Registry>, payloads: &[Vec<u8>], now: Timestamp) -> Result<f64> {
    let verifier = Verifier::new(Arc::clone(registry), Protection::Signed, 65_536);
    let mut guard = ReplayGuard::new(registry, GuardPolicy::default(), Loaded::default(), now);
    let start = Instant::now();
    for group in payloads.chunks(512) {
        for payload in group {
            let delivery = Delivery {
                topic: "site/device-001/sensors",
                payload,
                retained: false,
                principal: &Principal::Broker,
                session: SessionId(1),
            };
            let verified = verifier.verify(Unverified::new(delivery), now);
            let verified = verified.map_err(|refusal| anyhow::anyhow!("refused: {refusal:?}"))?;
            if guard.admit(verified, now) != Outcome::Admitted {
                bail!("a genuine message was not admitted");
            }
        }
        guard.commit(&mut NoLog)?;
    }
    Ok(nanoseconds_each(start, payloads.len()))
}

fn parts(key: &MacKey, payloads: &[Vec<u8>]) -> Result<(f64, f64, f64)> {
    let mut parser = Parser::new();
    let start = Instant::now();
    for payload in payloads {
        std::hint::black_box(parser.parse(payload)?);
    }
    let parse = nanoseconds_each(start, payloads.len());

    let documents: Vec<_> = payloads
        .iter()
        .map(|payload| Document::parse(payload))
        .collect::<Result<_, _>>()?;
    let mut canonical = Vec::with_capacity(1_024);
    let start = Instant::now();
    for document in &documents {
        canonical.clear();
        document.canonical(&mut canonical);
        std::hint::black_box(&canonical);
    }
    let writing = nanoseconds_each(start, payloads.len());

    let start = Instant::now();
    for _ in payloads {
        std::hint::black_box(key.mac(std::hint::black_box(&canonical)));
    }
    Ok((parse, writing, nanoseconds_each(start, payloads.len())))
}

fn nanoseconds_each(start: Instant, count: usize) -> f64 {
    start.elapsed().as_nanos() as f64 / count as f64
}

fn in_python(payloads: &[Vec<u8>], root: &RootKey, now: Timestamp) -> Result<f64> {
    let key = root.device_key(&DeviceId::new("device-001")?, KeyEpoch(0));
    let now_s = now.as_micros() as f64 / 1e6;
    let mut python = Command::new("python3")
        .args(["-c", PEER, &hex::encode(key), &now_s.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start python3, the peer of this benchmark")?;
    let mut input = python.stdin.take().context("no standard input")?;
    for payload in payloads {
        input.write_all(payload)?;
        input.write_all(b"\n")?;
    }
    drop(input);
    let output = python.wait_with_output()?;
    if !output.status.success() {
        bail!("the Python peer failed");
    }
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_round_runs_and_python_accepts_the_same_messages() {
        let report = run(1, |_| {}).unwrap();
        assert!(report.tidegate_ns.median > 0.0 && report.python_ns.median > 0.0);
    }
}
