//! Idle sessions: memory that each one takes, over mutual TLS, beside Mosquitto.

use super::clients::{Client, Offer, clients};
use super::link::Link;
use super::rig::{Part, Rig};
use super::statistics::Runs;
use crate::level::Level;
use anyhow::{Context, Result};
use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::ProgressBar;
use serde::Serialize;
use std::time::Duration;

/// Handshakes under way at one time while sessions are opened.
const AT_ONCE: usize = 16;
/// Sessions that come and go before memory is read for the first time, so that what a process sets up
/// only once is not counted as the sessions'.
const FIRST: usize = 64;
/// How long a process rests before its memory is read.
const SETTLE: Duration = Duration::from_secs(1);
/// Longer than any round: idle sessions send nothing.
pub(super) const KEEP_ALIVE_S: u16 = 3_600;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) sessions: u32,
    /// How long they are idle.
    pub(crate) idle: Duration,
    pub(crate) rounds: usize,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    sessions: u32,
    idle_s: f64,
    brokers: Vec<Broker>,
    /// Memory of a session: the embedded broker's by Mosquitto's.
    ratio: f64,
}

#[derive(Debug, Serialize)]
struct Broker {
    name: &'static str,
    session_kb: Runs,
    before_mb: Runs,
    with_all_mb: Runs,
    /// Sessions that answered after the idle time, the fewest of all rounds.
    held: usize,
}

/// What is started. The first two are compared.
const NAMES: [&str; 3] = ["tidegate broker", "Mosquitto", "tidegate up"];

/// Bytes of one process in one round.
struct Memory {
    before: u64,
    with_all: u64,
    held: usize,
}

/// Runs each in turn, in processes of their own.
pub(crate) async fn run(options: Options, bar: &ProgressBar) -> Result<Report> {
    let (rig, clients) = fleet(options.sessions, Offer::MUTUAL, options.rounds * NAMES.len(), bar).await?;
    let mut seen: [Vec<Memory>; 3] = Default::default();
    for _ in 0..options.rounds {
        for (name, seen) in NAMES.iter().zip(&mut seen) {
            bar.set_message(format!("{} sessions at {name}", options.sessions));
            let part = match *name {
                "Mosquitto" => rig.start_mosquitto_at(Level::Mtls)?,
                "tidegate up" => rig.start_tidegate(&["up", "--level", "ai"])?,
                _ => rig.start_tidegate(&["broker", "--level", "mtls"])?,
            };
            seen.push(measure(&rig, &part, &clients, options.idle).await?);
            bar.inc(1);
        }
    }
    let sessions = f64::from(options.sessions);
    let brokers: Vec<Broker> = NAMES
        .iter()
        .zip(&seen)
        .map(|(name, seen)| {
            let runs = |value: &dyn Fn(&Memory) -> f64| Runs::of(&seen.iter().map(value).collect::<Vec<_>>());
            Broker {
                name,
                session_kb: runs(&|memory| {
                    memory.with_all.saturating_sub(memory.before) as f64 / 1e3 / sessions
                }),
                before_mb: runs(&|memory| memory.before as f64 / 1e6),
                with_all_mb: runs(&|memory| memory.with_all as f64 / 1e6),
                held: seen.iter().map(|memory| memory.held).min().unwrap_or_default(),
            }
        })
        .collect();
    Ok(Report {
        sessions: options.sessions,
        idle_s: options.idle.as_secs_f64(),
        ratio: brokers[0].session_kb.median / brokers[1].session_kb.median,
        brokers,
    })
}

/// A rig with so many devices, each as a client; the bar goes over the set-up and then `steps`.
pub(super) async fn fleet(
    devices: u32,
    offer: Offer,
    steps: usize,
    bar: &ProgressBar,
) -> Result<(Rig, Vec<Client>)> {
    bar.set_length(u64::from(devices));
    bar.set_message("certificates");
    let mut rig = Rig::new(1, 1_000)?;
    rig.grow_to(devices, |there| bar.set_position(u64::from(there)))
        .await?;
    bar.reset();
    bar.set_length(steps as u64);
    let clients = clients(&rig, devices as usize, offer)?;
    Ok((rig, clients))
}

/// Opens a session for every client, some at a time.
pub(super) async fn open(port: u16, clients: &[Client]) -> Result<Vec<Link>> {
    stream::iter(clients)
        .map(|client| async move {
            Link::open(port, &client.tls, &client.id, KEEP_ALIVE_S)
                .await
                .with_context(|| client.id.clone())
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await
}

async fn measure(rig: &Rig, part: &Part, clients: &[Client], idle: Duration) -> Result<Memory> {
    let port = rig.config.listen.mqtts_port;
    for link in open(port, &clients[..FIRST.min(clients.len())]).await? {
        link.leave().await;
    }
    tokio::time::sleep(SETTLE).await;
    let before = part.resident_bytes()?;
    let mut links = open(port, clients).await?;
    tokio::time::sleep(idle).await;
    let with_all = part.resident_bytes()?;
    let mut held = 0;
    for link in &mut links {
        held += usize::from(link.ping().await.is_ok());
    }
    Ok(Memory {
        before,
        with_all,
        held,
    })
}

impl Report {
    /// The report for people.
    pub(crate) fn print(&self) {
        anstream::println!(
            "{} idle sessions over mutual TLS, a device each, {} s; resident memory of the process, without what the \
             kernel holds for sockets",
            self.sessions,
            self.idle_s
        );
        for broker in &self.brokers {
            let Broker {
                name,
                session_kb,
                before_mb,
                with_all_mb,
                held,
            } = broker;
            anstream::println!(
                "  {name:<16} {:>6.1} kB a session   ({:.1} to {:.1} in {} rounds; {:.1} MB before, {:.1} MB with all); {held} held",
                session_kb.median,
                session_kb.least,
                session_kb.most,
                session_kb.runs,
                before_mb.median,
                with_all_mb.median,
            );
        }
        anstream::println!("  ratio {:.2}", self.ratio);
    }
}
