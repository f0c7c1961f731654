//! The scene: a gateway under load, what is expected of it, and how it ends.

use crate::kill::check;
use crate::kill::ledger::Counts;
use crate::kill::site::{Broker, GLANCE, Process, Site, wait_until};
use crate::kill::traffic::Traffic;
use anyhow::Result;
use rusqlite::{Connection, OpenFlags};
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long anything expected may take before it is a violation.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the cause lasts once it is felt.
pub(super) const HOLD: Duration = Duration::from_secs(1);
/// The same behind Mosquitto: until the gateway's pauses between attempts have become as long as
/// they get.
pub(super) const HOLD_BEHIND_MOSQUITTO: Duration = Duration::from_secs(3);
/// Answers before the cause, and after it.
const ANSWERS: u64 = 50;

/// A gateway with its load.
pub(super) struct Scene {
    pub(super) traffic: Rc<Traffic>,
    pub(super) gateway: Process,
    /// The broker, where it is not the gateway's own.
    _mosquitto: Option<Process>,
}

/// How long it took once the cause was gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Recovery {
    /// Until a message was accepted.
    pub(super) accepted: Duration,
    /// Until `/readyz` said so.
    pub(super) ready: Duration,
}

impl Recovery {
    pub(super) fn max(self, other: Self) -> Self {
        Self {
            accepted: self.accepted.max(other.accepted),
            ready: self.ready.max(other.ready),
        }
    }

    pub(super) fn judge(self, within: Duration, found: &mut Counts) {
        for (what, took) in [("accepted", self.accepted), ("ready", self.ready)] {
            if took > within {
                found.violation(format!("{what} again only after {took:?}"));
            }
        }
    }
}

impl Scene {
    /// Starts the gateway and the load of the first `devices` devices, and waits for answers.
    pub(super) async fn start(site: Site, devices: usize) -> Result<Self> {
        let mosquitto = match site.broker() {
            Broker::Embedded => None,
            Broker::Mosquitto => Some(site.start_mosquitto()?),
        };
        let gateway = site.start_gateway()?;
        // Mosquitto keeps messages for a session only once it exists.
        wait_until("the gateway to be ready", || Ok(gateway.is_ready()))?;
        let traffic = Traffic::start(site, devices)?;
        let mut scene = Self {
            traffic,
            gateway,
            _mosquitto: mosquitto,
        };
        scene.some_answers().await?;
        Ok(scene)
    }

    async fn some_answers(&mut self) -> Result<()> {
        let before = self.traffic.answers();
        self.expect("messages to be answered", |scene| {
            scene.traffic.answers() >= before + ANSWERS
        })
        .await
    }

    /// Waits until it holds; a violation when it does not, or when the gateway is gone.
    pub(super) async fn expect(&mut self, what: &str, condition: impl Fn(&Self) -> bool) -> Result<()> {
        let start = Instant::now();
        while !condition(self) {
            if let Some(status) = self.gateway.ended()? {
                self.violation(format!(
                    "the gateway ended with {status} while waiting for {what}: {}",
                    self.gateway.logged()
                ));
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                self.violation(format!("waited {} s in vain for {what}", PATIENCE.as_secs()));
                return Ok(());
            }
            sleep(GLANCE).await;
        }
        Ok(())
    }

    /// Waits until `accepted` says so, by the time that it gives, and `/readyz` says yes.
    pub(super) async fn recovery(
        &mut self,
        gone: Instant,
        accepted: impl Fn(&Self) -> Option<Instant>,
    ) -> Result<Recovery> {
        let ready = tokio::task::spawn_blocking({
            let question = self.traffic.site.readiness();
            move || {
                while question.status() != Some(200) && gone.elapsed() < PATIENCE {
                    std::thread::sleep(GLANCE);
                }
                gone.elapsed()
            }
        });
        let since = |scene: &Self| accepted(scene).filter(|accepted| *accepted > gone);
        self.expect("messages to be accepted again", |scene| since(scene).is_some())
            .await?;
        Ok(Recovery {
            accepted: since(self).map_or(PATIENCE, |accepted| accepted - gone),
            ready: ready.await?,
        })
    }

    /// Readings in the database; the newest's number, since none is deleted here.
    pub(super) fn stored(&self) -> Result<i64> {
        let connection = self.database()?;
        Ok(connection.query_row("SELECT ifnull(max(id), 0) FROM readings", [], |row| row.get(0))?)
    }

    fn database(&self) -> Result<Connection> {
        let path = self.traffic.site.database();
        Ok(Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_ONLY,
        )?)
    }

    /// Some more load, a clean end, and the comparison of database and ledger. `told` are the
    /// reason and outcome of events that must be there.
    pub(super) async fn end(mut self, told: &[(&str, &str)]) -> Result<Counts> {
        self.some_answers().await?;
        self.traffic.load(false);
        self.expect("every message to be answered", |scene| {
            scene.traffic.all_answered()
        })
        .await?;
        if self.traffic.site.broker() == Broker::Mosquitto {
            self.expect("Mosquitto's queue to be empty", |scene| {
                let ledger = scene.traffic.ledger.borrow();
                check::has_newest(&scene.traffic.site, &ledger).unwrap_or(false)
            })
            .await?;
        }
        self.traffic.stop();
        let logged = self.gateway.logged();
        let status = self.gateway.interrupt()?;
        if !status.success() {
            self.violation(format!("the gateway stopped with {status}: {logged}"));
        }
        self.compare()?;
        if self.traffic.site.broker() == Broker::Mosquitto {
            for (reason, count) in check::refusals(&self.traffic.site)? {
                self.count(&format!("refused: {reason}"), count);
            }
        }
        let connection = self.database()?;
        for (reason, outcome) in told {
            let sql = "SELECT count(*) FROM events WHERE reason = ?1 AND outcome = ?2";
            let events: i64 = connection.query_row(sql, [reason, outcome], |row| row.get(0))?;
            if events == 0 {
                self.violation(format!("no event of outcome {outcome} and reason {reason}"));
            }
        }
        Ok(self.counts())
    }

    /// Ends without a gateway that could go on: it must still run, and after `repair` the database
    /// must hold what it promised.
    pub(super) fn end_unrepaired(mut self, repair: impl FnOnce() -> Result<()>) -> Result<Counts> {
        if let Some(status) = self.gateway.ended()? {
            self.violation(format!(
                "the gateway ended with {status}: {}",
                self.gateway.logged()
            ));
        }
        self.traffic.stop();
        self.gateway.kill()?;
        repair()?;
        self.compare()?;
        Ok(self.counts())
    }

    fn compare(&self) -> Result<()> {
        let mut ledger = self.traffic.ledger.borrow_mut();
        let all = ledger.len();
        check::compare(&self.traffic.site, &mut ledger, all)
    }

    fn counts(&self) -> Counts {
        std::mem::take(&mut self.traffic.ledger.borrow_mut().counts)
    }

    pub(super) fn violation(&self, text: String) {
        self.traffic.ledger.borrow_mut().counts.violation(text);
    }

    pub(super) fn count(&self, what: &str, number: u64) {
        self.traffic.ledger.borrow_mut().counts.add(what, number);
    }
}

/// Runs a scene to its end on a runtime of its own.
pub(super) fn play<T>(scene: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    tokio::task::LocalSet::new().block_on(&runtime, scene)
}
