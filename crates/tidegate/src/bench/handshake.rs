//! Handshakes: from the TCP connection to CONNACK, with and without certificates, full and resumed,
//! beside Mosquitto with the same certificates.

use super::clients::{Client, Offer, clients};
use super::link::{Agreed, Link};
use super::rig::{Part, Rig};
use super::statistics::{Runs, percentile};
use crate::level::Level;
use anyhow::{Context, Result};
use indicatif::ProgressBar;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Devices that connect in turn. A broker may bound how often one of them does.
const CLIENTS: usize = 100;
/// Of the handshakes of a round, one in so many is made alone, for its time.
const ALONE: usize = 4;
/// These clients do not stay long enough for a keep-alive.
const KEEP_ALIVE_S: u16 = 60;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// Of each kind and broker, in a round.
    pub(crate) handshakes: usize,
    /// Clients at one time.
    pub(crate) concurrent: usize,
    pub(crate) rounds: usize,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    handshakes: usize,
    concurrent: usize,
    kinds: Vec<Pair>,
}

/// One kind of handshake with both brokers.
#[derive(Debug, Serialize)]
struct Pair {
    name: &'static str,
    tidegate: Outcome,
    mosquitto: Outcome,
    /// Handshakes per second: Tidegate's by Mosquitto's, where both do the same thing.
    ratio: Option<f64>,
}

/// One kind of handshake with one broker.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Measured(Figures),
    /// Why the broker would not do it.
    Refused(String),
}

#[derive(Debug, Serialize)]
struct Figures {
    version: &'static str,
    key_exchange: String,
    /// The share that took up an earlier session.
    resumed: f64,
    per_s: Runs,
    /// One client at a time.
    p50_ms: Runs,
    p99_ms: Runs,
    /// The broker's, for each handshake.
    processor_us: Runs,
}

/// A kind of handshake.
struct Kind {
    name: &'static str,
    offer: Offer,
}

const KINDS: [Kind; 6] = [
    Kind {
        name: "TLS 1.3, server's certificate only",
        offer: Offer {
            certificate: false,
            ..Offer::MUTUAL
        },
    },
    Kind {
        name: "mutual TLS 1.3",
        offer: Offer::MUTUAL,
    },
    Kind {
        name: "mutual TLS 1.3, classical key exchange",
        offer: Offer {
            post_quantum: false,
            ..Offer::MUTUAL
        },
    },
    Kind {
        name: "mutual TLS 1.3, resumed",
        offer: Offer {
            resumption: true,
            ..Offer::MUTUAL
        },
    },
    Kind {
        name: "mutual TLS 1.2",
        offer: Offer {
            tls13: false,
            ..Offer::MUTUAL
        },
    },
    Kind {
        name: "mutual TLS 1.2, resumed",
        offer: Offer {
            tls13: false,
            resumption: true,
            ..Offer::MUTUAL
        },
    },
];

/// Which broker.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Peer {
    Tidegate,
    Mosquitto,
}

/// Of one kind and broker, in one round.
struct Round {
    agreed: Agreed,
    resumed: f64,
    per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    processor_us: f64,
}

/// Runs every kind with both brokers in turn; the one that begins changes from round to round.
pub(crate) async fn run(options: Options, bar: &ProgressBar) -> Result<Report> {
    bar.set_length((options.rounds * KINDS.len() * 2) as u64);
    bar.set_message("certificates");
    let mut rig = Rig::new(1, 1_000)?;
    rig.grow_to(u32::try_from(CLIENTS)?, |_| {}).await?;
    let mut seen: Vec<[Result<Vec<Round>, String>; 2]> =
        KINDS.iter().map(|_| [Ok(vec![]), Ok(vec![])]).collect();
    for round in 0..options.rounds {
        let order = [Peer::Tidegate, Peer::Mosquitto];
        for turn in 0..order.len() {
            let peer = order[(round + turn) % order.len()];
            for level in [Level::Tls, Level::Mtls] {
                let part = peer.start(&rig, level)?;
                for (kind, seen) in KINDS.iter().zip(&mut seen) {
                    if kind.offer.certificate != (level == Level::Mtls) {
                        continue;
                    }
                    bar.set_message(format!("{}: {}", peer.name(), kind.name));
                    let place = &mut seen[peer as usize];
                    if let Ok(rounds) = place {
                        match measure(&rig, &part, kind.offer, options).await {
                            Ok(measured) => rounds.push(measured),
                            Err(error) if peer == Peer::Mosquitto => *place = Err(format!("{error:#}")),
                            Err(error) => return Err(error.context(kind.name)),
                        }
                    }
                    bar.inc(1);
                }
            }
        }
    }
    let kinds = KINDS.iter().zip(seen);
    Ok(Report {
        handshakes: options.handshakes,
        concurrent: options.concurrent,
        kinds: kinds.map(|(kind, seen)| Pair::of(kind, seen)).collect(),
    })
}

/// One round of one kind.
async fn measure(rig: &Rig, part: &Part, offer: Offer, options: Options) -> Result<Round> {
    let port = rig.config.listen.mqtts_port;
    let clients = clients(rig, CLIENTS, offer)?;
    // The first of each is a full one in any case.
    for client in &clients {
        visit(port, client).await?;
    }
    let agreed = visit(port, &clients[0]).await?;

    let mut times_ms = Vec::new();
    for client in clients.iter().cycle().take((options.handshakes / ALONE).max(1)) {
        let start = Instant::now();
        let link = Link::open(port, &client.tls, &client.id, KEEP_ALIVE_S).await?;
        times_ms.push(start.elapsed().as_secs_f64() * 1e3);
        link.leave().await;
    }
    times_ms.sort_by(f64::total_cmp);

    let clients = Arc::new(clients);
    let (next, resumed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let processor = part.processor_s()?;
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    let concurrent = options.concurrent.min(CLIENTS);
    for first in 0..concurrent {
        let (clients, next, resumed) = (Arc::clone(&clients), Arc::clone(&next), Arc::clone(&resumed));
        tasks.spawn(async move {
            // Each has its own devices: two connections with one client id push each other out.
            let mut own = clients.iter().skip(first).step_by(concurrent).cycle();
            while next.fetch_add(1, Ordering::Relaxed) < options.handshakes {
                let client = own.next().context("no client")?;
                let agreed = visit(port, client).await?;
                resumed.fetch_add(usize::from(agreed.resumed), Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let elapsed_s = start.elapsed().as_secs_f64();
    let processor_s = part.processor_s()? - processor;
    let handshakes = options.handshakes as f64;
    Ok(Round {
        agreed,
        resumed: resumed.load(Ordering::Relaxed) as f64 / handshakes,
        per_s: handshakes / elapsed_s,
        p50_ms: percentile(&times_ms, 0.5),
        p99_ms: percentile(&times_ms, 0.99),
        processor_us: processor_s * 1e6 / handshakes,
    })
}

/// Comes and goes.
async fn visit(port: u16, client: &Client) -> Result<Agreed> {
    let link = Link::open(port, &client.tls, &client.id, KEEP_ALIVE_S).await?;
    let agreed = link.agreed()?;
    link.leave().await;
    Ok(agreed)
}

impl Peer {
    fn start(self, rig: &Rig, level: Level) -> Result<Part> {
        match self {
            Self::Tidegate => rig.start_tidegate(&["broker", "--level", level.name()]),
            Self::Mosquitto => rig.start_mosquitto_at(level),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Tidegate => "tidegate",
            Self::Mosquitto => "Mosquitto",
        }
    }
}

impl Pair {
    fn of(kind: &Kind, seen: [Result<Vec<Round>, String>; 2]) -> Self {
        let [tidegate, mosquitto] = seen.map(Outcome::of);
        let ratio = match (&tidegate, &mosquitto) {
            (Outcome::Measured(ours), Outcome::Measured(theirs))
                if (ours.resumed > 0.5) == (theirs.resumed > 0.5) =>
            {
                Some(ours.per_s.median / theirs.per_s.median)
            }
            _ => None,
        };
        Self {
            name: kind.name,
            tidegate,
            mosquitto,
            ratio,
        }
    }
}

impl Outcome {
    fn of(seen: Result<Vec<Round>, String>) -> Self {
        let rounds = match seen {
            Ok(rounds) => rounds,
            Err(why) => return Self::Refused(why),
        };
        let Some(first) = rounds.first() else {
            return Self::Refused("there was no round".into());
        };
        let runs = |value: fn(&Round) -> f64| Runs::of(&rounds.iter().map(value).collect::<Vec<_>>());
        Self::Measured(Figures {
            version: first.agreed.version,
            key_exchange: first.agreed.key_exchange.clone(),
            resumed: runs(|round| round.resumed).median,
            per_s: runs(|round| round.per_s),
            p50_ms: runs(|round| round.p50_ms),
            p99_ms: runs(|round| round.p99_ms),
            processor_us: runs(|round| round.processor_us),
        })
    }

    fn print(&self, peer: Peer) {
        match self {
            Self::Refused(why) => anstream::println!("    {:<10} not measured: {why}", peer.name()),
            Self::Measured(figures) => {
                let Figures {
                    per_s,
                    p50_ms,
                    p99_ms,
                    processor_us,
                    ..
                } = figures;
                anstream::println!(
                    "    {:<10} {:>6.0}/s ({:.0} to {:.0})   p50 {:.2} ms, p99 {:.2} ms   {:>4.0} µs of processor   {}, {}{}",
                    peer.name(),
                    per_s.median,
                    per_s.least,
                    per_s.most,
                    p50_ms.median,
                    p99_ms.median,
                    processor_us.median,
                    figures.version,
                    figures.key_exchange,
                    resumed(figures.resumed),
                );
            }
        }
    }
}

fn resumed(share: f64) -> String {
    if share == 0.0 {
        String::new()
    } else {
        format!(", {:.0} % resumed", share * 100.0)
    }
}

impl Report {
    /// The report for people.
    pub(crate) fn print(&self) {
        let rounds = self.kinds.iter().find_map(|pair| match &pair.tidegate {
            Outcome::Measured(figures) => Some(figures.per_s.runs),
            Outcome::Refused(_) => None,
        });
        anstream::println!(
            "From TCP connection to CONNACK: {} handshakes by {} clients at a time, medians of {} rounds; \
             times with one client at a time; the clients run on the same cores",
            self.handshakes,
            self.concurrent,
            rounds.unwrap_or_default()
        );
        for pair in &self.kinds {
            anstream::println!("  {}", pair.name);
            pair.tidegate.print(Peer::Tidegate);
            pair.mosquitto.print(Peer::Mosquitto);
            if let Some(ratio) = pair.ratio {
                anstream::println!("    ratio      {ratio:.2}");
            }
        }
    }
}
