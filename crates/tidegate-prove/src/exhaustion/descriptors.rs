//! No file descriptor is left: newcomers wait, and everybody else goes on.

use super::Ran;
use super::scene::{HOLD, Scene, play};
use super::volume::command;
use crate::kill::site::{Broker, Site};
use anyhow::Result;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use tokio::time::{Instant, sleep};

/// Devices that are connected when descriptors run out, and one that comes then.
const CONNECTED: usize = 3;
const NEWCOMER: usize = CONNECTED;
/// Descriptors beyond those in use at that time.
const SPARE: u64 = 8;
/// Sockets that hold them; those beyond stand in the kernel's queue.
const HOLDERS: usize = 64;

pub(super) fn run(binary: &Path) -> Result<Ran> {
    let site = Site::new(binary, Broker::Embedded, CONNECTED as u32 + 1)?;
    play(async move {
        let mut scene = Scene::start(site, CONNECTED).await?;
        let used = std::fs::read_dir(format!("/proc/{}/fd", scene.gateway.id()))?.count() as u64;
        let limit = used + SPARE;
        let limited = command(
            "prlimit",
            &[
                "--pid",
                &scene.gateway.id().to_string(),
                &format!("--nofile={limit}:{limit}"),
            ],
        );
        if let Err(error) = limited {
            return Ok(Ran::NotRun(format!("the limit cannot be lowered: {error:#}")));
        }
        let port = scene.traffic.site.mqtts_port();
        let holders: Vec<TcpStream> = (0..HOLDERS)
            .map(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, port)))
            .collect::<Result<_, _>>()?;
        scene
            .expect("a line in the log", |scene| {
                scene.gateway.logged().contains("cannot accept connections")
            })
            .await?;
        scene.traffic.connect(NEWCOMER);
        let felt = Instant::now();
        sleep(HOLD).await;
        let still = scene.traffic.accepted(0..CONNECTED);
        if still.is_none_or(|accepted| accepted < felt + HOLD / 2) {
            scene.violation("connected devices are not served while descriptors lack".into());
        }
        if scene.traffic.accepted(NEWCOMER..NEWCOMER + 1).is_some() {
            scene.count("newcomers that got in while the cause lasted", 1);
        }
        drop(holders);
        let recovery = scene
            .recovery(Instant::now(), |scene| {
                scene.traffic.accepted(NEWCOMER..NEWCOMER + 1)
            })
            .await?;
        let counts = scene.end(&[("connection_limit", "blocked")]).await?;
        Ok(Ran::Done(counts, recovery))
    })
}
