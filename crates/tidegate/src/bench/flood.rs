//! Floods: thousands of sockets that say nothing, stop in the middle or have no certificate, while devices
//! work on. How soon the broker is rid of each, and what the devices notice of it.

mod attacker;

use super::clients::{Offer, clients};
use super::latency::{self, Sample};
use super::rig::{Part, Rig};
use super::statistics::{Runs, percentile};
use anyhow::{Context, Result};
use attacker::{Fate, KINDS, Plan};
use indicatif::ProgressBar;
use rustix::process::{Resource, getrlimit};
use serde::Serialize;
use std::time::{Duration, Instant};

/// Each is to be gone after this.
const TARGET_GONE_S: f64 = 5.0;
/// The devices' p99 during the flood is to be within so many times the quiet one.
const TARGET_RATIO: f64 = 2.0;
/// Devices publish for so long before anything counts.
const WARM_UP: Duration = Duration::from_secs(2);
/// They go on for so long after the last socket was opened, until the last one is gone.
const AFTER: Duration = Duration::from_secs(7);

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// In a round, a quarter of each kind.
    pub(crate) sockets: usize,
    /// Length of the quiet time, and time in which the sockets are opened.
    pub(crate) seconds: u32,
    /// Working devices.
    pub(crate) devices: u32,
    /// Messages of all devices.
    pub(crate) per_s: u32,
    pub(crate) rounds: usize,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    sockets: usize,
    seconds: u32,
    devices: u32,
    per_s: u32,
    open_files: Option<u64>,
    kinds: Vec<Kind>,
    quiet: Working,
    flooded: Working,
    /// The devices' p99 in the flood by the quiet one, in each round.
    ratio: Runs,
    lost: usize,
}

/// One kind of socket, in all rounds.
#[derive(Debug, Serialize)]
struct Kind {
    name: &'static str,
    opened: usize,
    p50_s: f64,
    most_s: f64,
    /// Open for longer than is aimed at.
    late: usize,
    not_opened: usize,
    /// Why the first of them was not.
    why: Option<String>,
}

/// What the devices notice, and what it costs.
#[derive(Debug, Serialize)]
struct Working {
    p50_ms: Runs,
    p99_ms: Runs,
    /// Cores that the process is busy on.
    broker_cores: Runs,
    /// Cores that the attacker is busy on.
    attacker_cores: Runs,
}

struct Round {
    fates: Vec<(usize, Fate)>,
    quiet: Phase,
    flooded: Phase,
    lost: usize,
}

#[derive(Clone, Copy)]
struct Phase {
    p50_ms: f64,
    p99_ms: f64,
    broker_cores: f64,
    attacker_cores: f64,
}

/// Runs `rounds` rounds, each with a Tidegate of its own.
pub(crate) async fn run(options: Options, bar: &ProgressBar) -> Result<Report> {
    bar.set_length(options.rounds as u64);
    bar.set_message("certificates");
    let mut rig = Rig::new(1, 100_000)?;
    rig.grow_to(options.devices, |_| {}).await?;
    let mut rounds = Vec::new();
    for _ in 0..options.rounds {
        bar.set_message("quiet, then flooded");
        let part = rig.start_tidegate(&["up", "--level", "ai"])?;
        rounds.push(one_round(&rig, &part, options).await?);
        drop(part);
        rig.forget_data()?;
        bar.inc(1);
    }
    let fates: Vec<_> = rounds.iter().flat_map(|round| &round.fates).collect();
    let ratios: Vec<f64> = rounds
        .iter()
        .map(|round| round.flooded.p99_ms / round.quiet.p99_ms)
        .collect();
    Ok(Report {
        sockets: options.sockets,
        seconds: options.seconds,
        devices: options.devices,
        per_s: options.per_s,
        open_files: getrlimit(Resource::Nofile).current,
        kinds: KINDS
            .iter()
            .enumerate()
            .map(|(kind, name)| {
                Kind::of(
                    name,
                    fates.iter().filter(|fate| fate.0 == kind).map(|fate| &fate.1),
                )
            })
            .collect(),
        quiet: Working::of(rounds.iter().map(|round| round.quiet)),
        flooded: Working::of(rounds.iter().map(|round| round.flooded)),
        ratio: Runs::of(&ratios),
        lost: rounds.iter().map(|round| round.lost).sum(),
    })
}

async fn one_round(rig: &Rig, part: &Part, options: Options) -> Result<Round> {
    let whole = WARM_UP + Duration::from_secs(u64::from(options.seconds)) * 2 + AFTER;
    let load = latency::Options {
        devices: options.devices,
        per_s: options.per_s,
        seconds: u32::try_from(whole.as_secs())?,
        rounds: 1,
    };
    let stranger = Offer {
        certificate: false,
        ..Offer::MUTUAL
    };
    let one = |offer| -> Result<_> { clients(rig, 1, offer)?.pop().context("no device") };
    let plan = Plan {
        port: rig.config.listen.mqtts_port,
        sockets: options.sockets,
        over: Duration::from_secs(u64::from(options.seconds)),
        member: one(Offer::MUTUAL)?.tls,
        stranger: one(stranger)?.tls,
    };
    let attack = async {
        tokio::time::sleep(WARM_UP).await;
        let (quiet, quiet_processor_s) = (Instant::now(), part.processor_s()?);
        tokio::time::sleep(Duration::from_secs(u64::from(options.seconds))).await;
        let (flood, flood_processor_s) = (Instant::now(), part.processor_s()?);
        let attack = attacker::run(plan).await?;
        let (end, end_processor_s) = (Instant::now(), part.processor_s()?);
        let busy_quiet = flood_processor_s - quiet_processor_s;
        let busy_flooded = end_processor_s - flood_processor_s;
        anyhow::Ok((quiet, flood, end, busy_quiet, busy_flooded, attack))
    };
    let (samples, (quiet, flood, end, busy_quiet, busy_flooded, attack)) =
        tokio::try_join!(latency::measure(rig, load), attack)?;
    let length_s = (end - flood).as_secs_f64();
    Ok(Round {
        quiet: Phase {
            broker_cores: busy_quiet / (flood - quiet).as_secs_f64(),
            attacker_cores: 0.0,
            ..Phase::of(&samples, quiet, flood)
        },
        flooded: Phase {
            broker_cores: busy_flooded / length_s,
            attacker_cores: attack.processor_s / length_s,
            ..Phase::of(&samples, flood, end)
        },
        lost: samples
            .iter()
            .filter(|sample| sample.latency_ms.is_none())
            .count(),
        fates: attack.fates,
    })
}

impl Phase {
    /// Of the messages that were sent within these times.
    fn of(samples: &[Sample], from: Instant, to: Instant) -> Self {
        let within = |sample: &&Sample| sample.sent.is_some_and(|sent| (from..to).contains(&sent));
        let mut times: Vec<f64> = samples
            .iter()
            .filter(within)
            .filter_map(|sample| sample.latency_ms)
            .collect();
        times.sort_by(f64::total_cmp);
        Self {
            p50_ms: percentile(&times, 0.5),
            p99_ms: percentile(&times, 0.99),
            broker_cores: 0.0,
            attacker_cores: 0.0,
        }
    }
}

impl Working {
    fn of(phases: impl Iterator<Item = Phase>) -> Self {
        let phases: Vec<Phase> = phases.collect();
        let runs = |value: fn(&Phase) -> f64| Runs::of(&phases.iter().map(value).collect::<Vec<_>>());
        Self {
            p50_ms: runs(|phase| phase.p50_ms),
            p99_ms: runs(|phase| phase.p99_ms),
            broker_cores: runs(|phase| phase.broker_cores),
            attacker_cores: runs(|phase| phase.attacker_cores),
        }
    }

    fn print(&self, name: &str) {
        anstream::println!(
            "  devices, {name:<9} p50 {:.2} ms, p99 {:.2} ms ({:.2} to {:.2} in {} rounds); cores: tidegate {:.2}, attacker {:.2}",
            self.p50_ms.median,
            self.p99_ms.median,
            self.p99_ms.least,
            self.p99_ms.most,
            self.p99_ms.runs,
            self.broker_cores.median,
            self.attacker_cores.median
        );
    }
}

impl Kind {
    fn of<'a>(name: &'static str, fates: impl Iterator<Item = &'a Fate>) -> Self {
        let (mut times, mut why) = (vec![], vec![]);
        for fate in fates {
            match fate {
                Fate::Gone { after_s } => times.push(*after_s),
                Fate::Stays => times.push(f64::INFINITY),
                Fate::NotOpened { why: reason } => why.push(reason.clone()),
            }
        }
        times.sort_by(f64::total_cmp);
        Self {
            name,
            opened: times.len(),
            p50_s: percentile(&times, 0.5),
            most_s: percentile(&times, 1.0),
            late: times.iter().filter(|&&after_s| after_s > TARGET_GONE_S).count(),
            not_opened: why.len(),
            why: why.into_iter().next(),
        }
    }
}

impl Report {
    /// The report for people.
    pub(crate) fn print(&self) {
        anstream::println!(
            "{} sockets in {} s, {} times, against `tidegate up`, with {} devices at {} messages/s all the time",
            self.sockets,
            self.seconds,
            self.ratio.runs,
            self.devices,
            self.per_s
        );
        for kind in &self.kinds {
            anstream::println!(
                "  {:<46} {:>6} opened; gone after p50 {:.2} s, most {:.2} s; {} after more than {TARGET_GONE_S:.0} s",
                kind.name,
                kind.opened,
                kind.p50_s,
                kind.most_s,
                kind.late
            );
            if let Some(why) = &kind.why {
                anstream::println!("  {:<46} {:>6} not opened: {why}", "", kind.not_opened);
            }
        }
        self.quiet.print("quiet:");
        self.flooded.print("flooded:");
        anstream::println!(
            "  ratio of p99 {:.2} ({:.2} to {:.2}); aimed at: {TARGET_RATIO:.0} at most; {} messages lost",
            self.ratio.median,
            self.ratio.least,
            self.ratio.most,
            self.lost
        );
        let files = self
            .open_files
            .map_or("any number of".to_owned(), |most| most.to_string());
        anstream::println!(
            "  left out: floods below TCP and from other machines; the attacker, on one thread from {} addresses, and \
             the devices share these cores with Tidegate; a process may have {files} open files",
            attacker::ADDRESSES
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_that_stays_is_late_and_one_that_never_was_is_not_counted_as_gone() {
        let fates = [
            Fate::Gone { after_s: 4.5 },
            Fate::Gone { after_s: 5.1 },
            Fate::Stays,
            Fate::NotOpened {
                why: "no port".into(),
            },
        ];
        let kind = Kind::of("silent", fates.iter());
        assert_eq!((kind.opened, kind.late, kind.not_opened), (3, 2, 1));
        assert!(kind.most_s.is_infinite());
        assert_eq!(kind.why.as_deref(), Some("no port"));
    }
}
