//! Revocation: from `tidegate certs revoke` to the closed session, with many sessions open; nobody else
//! may be disconnected, and who was may not come back.

use super::clients::{Client, Offer};
use super::link::Link;
use super::rig::Rig;
use super::sessions::{self, KEEP_ALIVE_S};
use super::statistics::{Runs, percentile};
use anyhow::{Result, bail};
use indicatif::ProgressBar;
use serde::Serialize;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// From the start of the command to the closed session, 99 of 100.
const TARGET_P99_MS: f64 = 1_000.0;
/// A session that is open for longer than this after its revocation stays open.
const PATIENCE: Duration = Duration::from_secs(15);
/// The server looks at its files at fixed times. A pause of changing length up to this lets revocations
/// fall on every moment in between.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Multiples of the golden section spread evenly between 0 and 1.
const GOLDEN_SECTION: f64 = 0.618_034;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// Open at every moment, at least.
    pub(crate) sessions: u32,
    /// In a round, one after the other.
    pub(crate) revocations: u32,
    pub(crate) rounds: usize,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    sessions: u32,
    revocations: usize,
    /// From the start of the command, which writes the ledger and the list.
    from_command: Times,
    /// From the end of the command, when the list is on disk for certain.
    from_list: Times,
    /// Sessions of others that ended.
    others_ended: usize,
    /// Revoked clients that could connect again.
    came_back: usize,
}

#[derive(Debug, Serialize)]
struct Times {
    /// Of each round.
    median_ms: Runs,
    /// Of all rounds together.
    p99_ms: f64,
    most_ms: f64,
}

/// A session that has ended.
struct Ended {
    client: usize,
    at: Instant,
}

/// Runs all rounds with the same sessions, less those that were revoked.
pub(crate) async fn run(options: Options, bar: &ProgressBar) -> Result<Report> {
    let rounds = u32::try_from(options.rounds)?;
    let all = options.sessions + options.revocations * rounds;
    let steps = (options.revocations * rounds) as usize;
    let offer = Offer {
        resumption: true,
        ..Offer::MUTUAL
    };
    let (rig, clients) = sessions::fleet(all, offer, steps, bar).await?;
    let port = rig.config.listen.mqtts_port;
    let part = rig.start_tidegate(&["up", "--level", "ai"])?;
    bar.set_message(format!("opening {all} sessions"));
    let links = sessions::open(port, &clients).await?;

    let (stop, (report, mut ended)) = (CancellationToken::new(), mpsc::unbounded_channel());
    let mut tasks = JoinSet::new();
    for (client, link) in links.into_iter().enumerate() {
        tasks.spawn(hold(client, link, report.clone(), stop.clone()));
    }
    let (mut from_command, mut from_list, mut came_back) = (vec![], vec![], 0);
    bar.set_message("revocations");
    for round in 0..options.rounds {
        let (mut commands_ms, mut lists_ms) = (vec![], vec![]);
        for position in 0..options.revocations as usize {
            let number = round * options.revocations as usize + position;
            let pause = LONGEST_PAUSE.mul_f64((number as f64 * GOLDEN_SECTION).fract());
            tokio::time::sleep(pause).await;
            // Revoked ones lie evenly among those who connected first and last.
            let victim = number * all as usize / steps;
            let (command_ms, list_ms) = revoke(&rig, victim, &clients[victim], &mut ended).await?;
            commands_ms.push(command_ms);
            lists_ms.push(list_ms);
            came_back += usize::from(comes_back(port, &clients[victim]).await);
            bar.inc(1);
        }
        from_command.push(commands_ms);
        from_list.push(lists_ms);
    }
    stop.cancel();
    let mut held = 0;
    while let Some(answers) = tasks.join_next().await {
        held += usize::from(answers?);
    }
    drop(part);
    Ok(Report {
        sessions: options.sessions,
        revocations: steps,
        from_command: Times::of(&from_command),
        from_list: Times::of(&from_list),
        others_ended: clients.len() - steps - held,
        came_back,
    })
}

/// Keeps a session until it ends, which is told, or until it is to stop; says whether the broker still
/// answers then.
async fn hold(
    client: usize,
    mut link: Link,
    report: mpsc::UnboundedSender<Ended>,
    stop: CancellationToken,
) -> bool {
    tokio::select! {
        () = link.closed() => {
            let at = Instant::now();
            // At the end nobody listens any more.
            drop(report.send(Ended { client, at }));
            false
        }
        () = stop.cancelled() => link.ping().await.is_ok(),
    }
}

/// Milliseconds from the command's start, and from its end, to the end of the session.
async fn revoke(
    rig: &Rig,
    victim: usize,
    client: &Client,
    ended: &mut mpsc::UnboundedReceiver<Ended>,
) -> Result<(f64, f64)> {
    let start = Instant::now();
    rig.run_tidegate(&["certs", "revoke", &client.id, "--reason", "key-compromise"])
        .await?;
    let written = Instant::now();
    let of_victim = async {
        while let Some(Ended { client, at }) = ended.recv().await {
            if client == victim {
                return Some(at);
            }
        }
        None
    };
    let Ok(Some(at)) = tokio::time::timeout(PATIENCE, of_victim).await else {
        bail!(
            "{} was revoked, and its session is still open after {} s",
            client.id,
            PATIENCE.as_secs()
        );
    };
    let since = |earlier: Instant| at.saturating_duration_since(earlier).as_secs_f64() * 1e3;
    Ok((since(start), since(written)))
}

/// Whether a client can connect, with the sessions that TLS remembers.
async fn comes_back(port: u16, client: &Client) -> bool {
    Link::open(port, &client.tls, &client.id, KEEP_ALIVE_S)
        .await
        .is_ok()
}

impl Times {
    fn of(rounds: &[Vec<f64>]) -> Self {
        let sorted = |mut times: Vec<f64>| {
            times.sort_by(f64::total_cmp);
            times
        };
        let medians: Vec<f64> = rounds
            .iter()
            .map(|times| percentile(&sorted(times.clone()), 0.5))
            .collect();
        let all = sorted(rounds.concat());
        Self {
            median_ms: Runs::of(&medians),
            p99_ms: percentile(&all, 0.99),
            most_ms: percentile(&all, 1.0),
        }
    }

    fn print(&self, name: &str) {
        anstream::println!(
            "  {name:<40} p50 {:>4.0} ms ({:.0} to {:.0} in {} rounds), p99 {:.0} ms, most {:.0} ms",
            self.median_ms.median,
            self.median_ms.least,
            self.median_ms.most,
            self.median_ms.runs,
            self.p99_ms,
            self.most_ms
        );
    }
}

impl Report {
    /// The report for people.
    pub(crate) fn print(&self) {
        anstream::println!(
            "{} revocations by `tidegate certs revoke`, with {} sessions or more open at `tidegate up`",
            self.revocations,
            self.sessions
        );
        self.from_command.print("start of the command to closed session");
        self.from_list.print("end of the command to closed session");
        anstream::println!("  aimed at: p99 {TARGET_P99_MS:.0} ms from the start of the command");
        anstream::println!(
            "  {} sessions of others ended; {} of the revoked could connect again",
            self.others_ended,
            self.came_back
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_of_rounds_and_tails_of_all_together() {
        let times = Times::of(&[vec![3.0, 1.0, 2.0], vec![9.0, 7.0, 8.0]]);
        assert_eq!((times.median_ms.least, times.median_ms.most), (2.0, 8.0));
        assert_eq!((times.p99_ms, times.most_ms), (9.0, 9.0));
    }
}
