//! Verification alone: the checks of json-v1 and cose-v1 on one core, stage by stage, beside the
//! MAC alone and beside the same checks of json-v1 in Python.

use super::fleet::{Fleet, GROUP, NoLog, Sent, Wire, channels, nanoseconds_each};
use super::statistics::Runs;
use crate::clock;
use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::hint::black_box;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;
use tidegate_envelope::cose_v1::Mac0;
use tidegate_envelope::id::{DeviceId, DeviceIndex, KeyEpoch};
use tidegate_envelope::json::{Document, Parser};
use tidegate_envelope::json_v1;
use tidegate_envelope::key::RootKey;
use tidegate_envelope::time::Timestamp;
use tidegate_verify::guard::Outcome;

/// The same checks in Python.
const PEER: &str = include_str!("verification_peer.py");
/// Messages of one device that are checked in a round.
const MESSAGES: u64 = 20_000;
const ROOT: [u8; 32] = [7; 32];

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    formats: Vec<Checks>,
    python_ns: Runs,
    /// How many times as long Python takes for json-v1.
    ratio: f64,
}

/// The checks of one format.
#[derive(Debug, Serialize)]
struct Checks {
    format: Wire,
    message_bytes: usize,
    whole_ns: Runs,
    per_s: f64,
    target_per_s: f64,
    stages: Vec<Stage>,
    /// What the MAC is over, in bytes.
    signed_bytes: usize,
    hmac_alone_ns: Runs,
}

/// One stage by itself.
#[derive(Debug, Serialize)]
struct Stage {
    name: &'static str,
    ns: Runs,
}

/// Nanoseconds a message in one round.
struct Round {
    whole: f64,
    stages: Vec<(&'static str, f64)>,
    hmac_alone: f64,
}

/// One format's messages, and their rounds so far.
struct Measured {
    wire: Wire,
    fleet: Fleet,
    messages: Vec<Sent>,
    /// As long as what is signed.
    signed: Vec<u8>,
    rounds: Vec<Round>,
}

/// Runs `rounds` rounds of all, in turn.
pub(crate) fn run(rounds: usize, mut progress: impl FnMut(usize)) -> Result<Report> {
    let now = clock::now();
    let mut formats = [
        Measured::new(Wire::JsonV1, now)?,
        Measured::new(Wire::CoseV1, now)?,
    ];
    let mut python = vec![];
    for round in 0..rounds {
        for format in &mut formats {
            let next = format.round()?;
            format.rounds.push(next);
        }
        python.push(in_python(&formats[0].messages, now)?);
        progress(round + 1);
    }
    let python_ns = Runs::of(&python);
    let formats: Vec<_> = formats.iter().map(Measured::checks).collect();
    let ratio = python_ns.median / formats[0].whole_ns.median;
    Ok(Report {
        formats,
        python_ns,
        ratio,
    })
}

impl Measured {
    fn new(wire: Wire, now: Timestamp) -> Result<Self> {
        let fleet = Fleet::new(wire, 1, ROOT, now)?;
        let messages = fleet.of_one(MESSAGES)?;
        let Sent { topic, payload } = &messages[0];
        let mut signed = Vec::new();
        match wire {
            Wire::JsonV1 => Document::parse(payload)?.canonical(&mut signed),
            // RFC 9052 §6.3: everything but the tag and the heads around it, with topic and context.
            Wire::CoseV1 => signed.resize(payload.len() - 34 - 3 + 9 + topic.len(), 0),
        }
        Ok(Self {
            wire,
            fleet,
            messages,
            signed,
            rounds: Vec::new(),
        })
    }

    fn round(&self) -> Result<Round> {
        let key = self.fleet.key(DeviceIndex(0));
        let (verifier, mut guard) = (self.fleet.verifier(), self.fleet.guard());
        let start = Instant::now();
        let all = (&*self.messages, GROUP);
        self.fleet.pass(&verifier, &mut guard, &mut NoLog, all, true)?;
        let whole = nanoseconds_each(start, self.messages.len());

        let mut stages = match self.wire {
            Wire::JsonV1 => self.json_stages()?,
            Wire::CoseV1 => self.cose_stages()?,
        };
        stages.push(("replay check", self.replay_check()?));
        let hmac_alone = each(&self.messages, |_| {
            black_box(key.mac(black_box(&self.signed)));
            Ok(())
        })?;
        Ok(Round {
            whole,
            stages,
            hmac_alone,
        })
    }

    fn json_stages(&self) -> Result<Vec<(&'static str, f64)>> {
        let key = self.fleet.key(DeviceIndex(0));
        let mut parser = Parser::new();
        let parse = each(&self.messages, |sent| {
            black_box(parser.parse(&sent.payload)?);
            Ok(())
        })?;
        let documents = self.messages.iter().map(|sent| Document::parse(&sent.payload));
        let documents: Vec<_> = documents.collect::<Result<_, _>>()?;
        let mut text = Vec::with_capacity(1_024);
        let canonical = each(&documents, |document| {
            text.clear();
            document.canonical(&mut text);
            black_box(&text);
            Ok(())
        })?;
        let texts: Vec<_> = documents
            .iter()
            .map(|document| {
                let mut text = Vec::new();
                document.canonical(&mut text);
                (text, document.hmac())
            })
            .collect();
        let mac = each(&texts, |(text, hmac)| {
            let tag = key.verified(text, hmac.context("no MAC")?);
            black_box(tag).context("a genuine MAC did not verify")?;
            Ok(())
        })?;
        let schema = each(&documents, |document| {
            black_box(json_v1::reading(document)?);
            Ok(())
        })?;
        Ok(vec![
            ("parse", parse),
            ("canonical form", canonical),
            ("MAC", mac),
            ("schema", schema),
        ])
    }

    fn cose_stages(&self) -> Result<Vec<(&'static str, f64)>> {
        let key = self.fleet.key(DeviceIndex(0));
        let channels = channels();
        let parse = each(&self.messages, |sent| {
            black_box(Mac0::parse(&sent.payload)?);
            Ok(())
        })?;
        let parsed = self
            .messages
            .iter()
            .map(|sent| Ok((Mac0::parse(&sent.payload)?, sent.topic.as_str())));
        let parsed: Vec<_> = parsed.collect::<Result<_>>()?;
        let mac = each(&parsed, |(mac0, topic)| {
            black_box(mac0.verified(&key, topic)).context("a genuine MAC did not verify")?;
            Ok(())
        })?;
        let schema = each(&parsed, |(mac0, _)| {
            black_box(mac0.reading(&channels)?);
            Ok(())
        })?;
        Ok(vec![("parse", parse), ("MAC", mac), ("schema", schema)])
    }

    /// Nanoseconds a message of the replay guard alone, with commits that cost nothing.
    fn replay_check(&self) -> Result<f64> {
        let (verifier, mut guard) = (self.fleet.verifier(), self.fleet.guard());
        let mut spent_ns = 0.0;
        for group in self.messages.chunks(GROUP) {
            let verified = group.iter().map(|sent| self.fleet.verify(&verifier, sent));
            let verified: Vec<_> = verified.collect::<Result<_>>()?;
            let start = Instant::now();
            for message in verified {
                if guard.admit(message, self.fleet.now) != Outcome::Admitted {
                    bail!("a genuine message was not admitted");
                }
            }
            guard.commit(&mut NoLog)?;
            spent_ns += start.elapsed().as_nanos() as f64;
        }
        Ok(spent_ns / self.messages.len() as f64)
    }

    fn checks(&self) -> Checks {
        let over = |value: &dyn Fn(&Round) -> f64| {
            let values: Vec<_> = self.rounds.iter().map(value).collect();
            Runs::of(&values)
        };
        let whole_ns = over(&|round| round.whole);
        let names = self.rounds.iter().take(1).flat_map(|round| &round.stages);
        let stages = names.enumerate().map(|(position, (name, _))| Stage {
            name,
            ns: over(&|round| round.stages[position].1),
        });
        Checks {
            format: self.wire,
            message_bytes: self.messages[0].payload.len(),
            whole_ns,
            per_s: 1e9 / whole_ns.median,
            target_per_s: match self.wire {
                Wire::JsonV1 => 500_000.0,
                Wire::CoseV1 => 1_500_000.0,
            },
            stages: stages.collect(),
            signed_bytes: self.signed.len(),
            hmac_alone_ns: over(&|round| round.hmac_alone),
        }
    }
}

/// Nanoseconds for each of `items`.
fn each<T>(items: &[T], mut work: impl FnMut(&T) -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    for item in items {
        work(item)?;
    }
    Ok(nanoseconds_each(start, items.len()))
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
        for checks in &self.formats {
            anstream::println!(
                "Verification of {}, {} bytes a message, one core",
                checks.format.name(),
                checks.message_bytes
            );
            line("tidegate, all checks", &checks.whole_ns);
            for stage in &checks.stages {
                line(&format!("  of it {}", stage.name), &stage.ns);
            }
            let alone = format!("HMAC-SHA256 alone, {} bytes", checks.signed_bytes);
            line(&alone, &checks.hmac_alone_ns);
            if checks.format == Wire::JsonV1 {
                line("Python, the same checks", &self.python_ns);
            }
            anstream::println!(
                "  {:.0} messages/s, aimed at {:.0}",
                checks.per_s,
                checks.target_per_s
            );
        }
        anstream::println!("  json-v1: {:.1} times Python in the same run", self.ratio);
    }
}

fn in_python(messages: &[Sent], now: Timestamp) -> Result<f64> {
    let key = RootKey::from_bytes(ROOT).device_key(&DeviceId::new("device-001")?, KeyEpoch(0));
    let now_s = now.as_micros() as f64 / 1e6;
    let mut python = Command::new("python3")
        .args(["-c", PEER, &hex::encode(key), &now_s.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start python3, the peer of this benchmark")?;
    let mut input = python.stdin.take().context("no standard input")?;
    for sent in messages {
        input.write_all(&sent.payload)?;
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
    fn one_round_runs_in_both_formats_and_python_accepts_the_same_messages() {
        let report = run(1, |_| {}).unwrap();
        assert!(report.python_ns.median > 0.0);
        let stages = report.formats.iter().map(|checks| checks.stages.len());
        assert_eq!(stages.collect::<Vec<_>>(), [5, 4]);
        for checks in &report.formats {
            assert!(checks.whole_ns.median > 0.0 && checks.hmac_alone_ns.median > 0.0);
        }
    }

    #[test]
    fn lone_mac_is_over_as_many_bytes_as_the_message_s_own() {
        let cose = Measured::new(Wire::CoseV1, clock::now()).unwrap();
        let Sent { topic, payload } = &cose.messages[0];
        // 84 47 <7> A0 58 nn <payload> 58 20 <32>
        let inner = payload.len() - 1 - 8 - 1 - 2 - 34;
        let structure = 6 + 1 + 7 + 2 + topic.len() + 2 + inner;
        assert_eq!(cose.signed.len(), structure);
        let json = Measured::new(Wire::JsonV1, clock::now()).unwrap();
        assert_eq!(
            json.signed.len() + ", \"hmac\": \"\"".len() + 64,
            json.messages[0].payload.len()
        );
    }
}
