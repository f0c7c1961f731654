//! The attacker: a thread of its own that opens sockets at a steady pace and waits until they are closed.

use crate::bench::link::{connect, shake_hands};
use crate::bench::rig::processor_s;
use anyhow::{Context, Result};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// What a socket does, in the order in which they are opened in turn.
pub(super) const KINDS: [&str; 4] = [
    "says nothing",
    "stops in the middle of a ClientHello",
    "shows a good certificate, then says nothing",
    "has no certificate",
];

/// Loopback addresses that the sockets come from.
pub(super) const ADDRESSES: u8 = 8;

/// A socket that is open for longer than this is not waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest pause between two batches of sockets.
const PACE: Duration = Duration::from_millis(5);

/// What is to be done.
pub(super) struct Plan {
    pub(super) port: u16,
    pub(super) sockets: usize,
    /// Time in which they are opened, evenly.
    pub(super) over: Duration,
    /// Of somebody who has a certificate.
    pub(super) member: Arc<ClientConfig>,
    /// Of somebody who has none.
    pub(super) stranger: Arc<ClientConfig>,
}

/// What was done.
pub(super) struct Attack {
    /// Of each socket, with its kind as a position in [`KINDS`].
    pub(super) fates: Vec<(usize, Fate)>,
    /// Processor time that the attacker's thread took.
    pub(super) processor_s: f64,
}

/// What became of one socket.
#[derive(Debug)]
pub(super) enum Fate {
    /// The broker closed it so many seconds after it was opened.
    Gone { after_s: f64 },
    /// It is still open.
    Stays,
    /// There was no connection.
    NotOpened { why: String },
}

/// Attacks until every socket is closed. Given up when this is dropped.
pub(super) async fn run(plan: Plan) -> Result<Attack> {
    let stop = CancellationToken::new();
    let _guard = stop.clone().drop_guard();
    let (done, result) = oneshot::channel();
    // Not on the threads by which the devices work: their times would be the attacker's.
    std::thread::Builder::new()
        .name("attacker".into())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let attacked = match runtime {
                Ok(runtime) => runtime.block_on(stop.run_until_cancelled(attack(plan))),
                Err(error) => Some(Err(error.into())),
            };
            if let Some(attacked) = attacked {
                // Nobody waits for it when the benchmark was stopped.
                drop(done.send(attacked));
            }
        })?;
    result.await.context("the attacker's thread ended")?
}

async fn attack(plan: Plan) -> Result<Attack> {
    let hello = half_a_hello(&plan.member)?;
    let plan = Arc::new((plan, hello));
    let mut tasks = JoinSet::new();
    let (start, mut opened) = (Instant::now(), 0);
    let sockets = plan.0.sockets;
    while opened < sockets {
        let share = start.elapsed().as_secs_f64() / plan.0.over.as_secs_f64();
        let due = ((sockets as f64 * share).ceil() as usize).min(sockets);
        for number in opened..due {
            let plan = Arc::clone(&plan);
            tasks.spawn(async move {
                let kind = number % KINDS.len();
                (kind, one(&plan.0, &plan.1, kind, number).await)
            });
        }
        opened = due.max(opened);
        sleep_until(Instant::now() + PACE).await;
    }
    let mut fates = Vec::with_capacity(sockets);
    while let Some(fate) = tasks.join_next().await {
        fates.push(fate?);
    }
    Ok(Attack {
        fates,
        processor_s: processor_s("/proc/thread-self/stat")?,
    })
}

async fn one(plan: &Plan, hello: &[u8], kind: usize, number: usize) -> Fate {
    let last = 2 + (number % usize::from(ADDRESSES)) as u8;
    let socket = match connect(Ipv4Addr::new(127, 0, 0, last), plan.port).await {
        Ok(socket) => socket,
        Err(error) => {
            let why = format!("{error:#}");
            return Fate::NotOpened { why };
        }
    };
    let start = Instant::now();
    match timeout(PATIENCE, until_closed(plan, hello, kind, socket)).await {
        Ok(()) => Fate::Gone {
            after_s: start.elapsed().as_secs_f64(),
        },
        Err(_) => Fate::Stays,
    }
}

async fn until_closed(plan: &Plan, hello: &[u8], kind: usize, mut socket: TcpStream) {
    let tls = match kind {
        0 => return read_to_end(socket).await,
        1 => {
            if socket.write_all(hello).await.is_ok() {
                read_to_end(socket).await;
            }
            return;
        }
        2 => &plan.member,
        _ => &plan.stranger,
    };
    if let Ok(stream) = shake_hands(tls, socket).await {
        read_to_end(stream).await;
    }
}

/// Reads until the other end closes, with or without manners.
async fn read_to_end(mut stream: impl AsyncRead + Unpin) {
    let mut buffer = [0; 256];
    while let Ok(1..) = stream.read(&mut buffer).await {}
}

fn half_a_hello(tls: &Arc<ClientConfig>) -> Result<Vec<u8>> {
    let mut connection = ClientConnection::new(Arc::clone(tls), ServerName::try_from("localhost")?)?;
    let mut hello = Vec::new();
    connection.write_tls(&mut hello)?;
    hello.truncate(hello.len() / 2);
    Ok(hello)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::RootCertStore;
    use rustls::crypto::aws_lc_rs;
    use tokio::net::TcpListener;

    fn plan(port: u16) -> Plan {
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let tls = Arc::new(tls);
        Plan {
            port,
            sockets: 8,
            over: Duration::from_millis(1),
            member: Arc::clone(&tls),
            stranger: tls,
        }
    }

    #[tokio::test]
    async fn sockets_that_are_closed_are_gone_and_each_kind_has_its_share() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let closing = tokio::spawn(async move { while listener.accept().await.is_ok() {} });
        let attack = run(plan(port)).await.unwrap();
        closing.abort();
        for (kind, name) in KINDS.iter().enumerate() {
            let gone = |fate: &&(usize, Fate)| fate.0 == kind && matches!(fate.1, Fate::Gone { .. });
            assert_eq!(attack.fates.iter().filter(gone).count(), 2, "{name}");
        }
    }

    #[tokio::test]
    async fn closed_port_is_told_and_not_taken_for_gone() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let attack = run(plan(port)).await.unwrap();
        assert_eq!(attack.fates.len(), 8);
        assert!(
            attack
                .fates
                .iter()
                .all(|(_, fate)| matches!(fate, Fate::NotOpened { .. }))
        );
    }
}
