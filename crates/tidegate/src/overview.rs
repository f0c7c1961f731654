//! Who is known, who is connected, and what about that needs somebody: gathered while the program
//! runs, for the page, the journal and the log.
//!
//! - `held`: every certificate, by ledger and files
//! - `expiry`: what ends soon
//! - `sessions`: who is connected

mod expiry;
mod held;
mod sessions;

use crate::clock;
use crate::config::Config;
use crate::reload::complaints::Complaints;
use crate::reload::decimal;
use crate::reload::identity::TrustInUse;
use crate::reload::watch::Files;
use crate::setup::{self, CaPaths};
pub(crate) use expiry::is_soon;
use expiry::{Expiry, Kind, Term};
use held::Held;
use std::time::Duration;
use tidegate_broker::Handle;
use tidegate_envelope::time::Timestamp;
use tidegate_pki::tls::ClientTrust;
use tidegate_serve::hub::Hub;
use tidegate_serve::protocol::{Alarm, RevocationList, RevocationView};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Time between two looks at sessions, alarms, and whether certificates have changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Certificates are also read after so many looks without a change: some change by the clock.
const LOOKS_TO_READ: u32 = 60;

/// Looks after what people see of identities.
pub(crate) struct Overview {
    config: Config,
    /// None where there is no page.
    hub: Option<Hub>,
    /// None where another broker has the sessions.
    broker: Option<Handle>,
    trust: TrustInUse,
    complaints: Complaints,
    expiry: Expiry,
    held: Vec<Held>,
    /// As the files have it, where no server here uses them: another broker does.
    elsewhere: Option<ClientTrust>,
    /// Of certificates and lists that end soon.
    ending: Vec<Alarm>,
}

impl Overview {
    /// Nothing is read yet.
    pub(crate) fn new(
        config: &Config,
        hub: Option<Hub>,
        broker: Option<Handle>,
        trust: TrustInUse,
        complaints: Complaints,
    ) -> Self {
        Self {
            config: config.clone(),
            hub,
            broker,
            trust,
            complaints,
            expiry: Expiry::default(),
            held: Vec::new(),
            elsewhere: None,
            ending: Vec::new(),
        }
    }

    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut files = Files::now(self.files());
        let mut unread = LOOKS_TO_READ;
        while stop.run_until_cancelled(looks.tick()).await.is_some() {
            unread += 1;
            // Both are asked: each takes down what it has seen.
            let (certificates, lists) = (files.changed(), self.trust.has_changed().unwrap_or(false));
            if certificates || lists || unread > LOOKS_TO_READ {
                unread = 0;
                self.read().await;
                self.judge(clock::now());
            }
            self.show();
        }
    }

    /// Whatever certificates are read from. A folder changes with the names in it.
    fn files(&self) -> Vec<std::path::PathBuf> {
        let (paths, certs) = (CaPaths::of(&self.config), &self.config.files.certs);
        let own = [setup::SERVER, setup::GATEWAY].map(|name| certs.join(format!("{name}.pem")));
        [
            vec![paths.ledger, paths.bundle, paths.lists, certs.clone()],
            own.into(),
        ]
        .concat()
    }

    async fn read(&mut self) {
        let (config, uses_lists) = (self.config.clone(), self.trust.borrow().is_some());
        let reading = move || {
            let elsewhere = if uses_lists { None } else { held::trust(&config) };
            held::read(&config, clock::now()).map(|held| (held, elsewhere))
        };
        match tokio::task::spawn_blocking(reading).await {
            Ok(Ok((held, elsewhere))) => (self.held, self.elsewhere) = (held, elsewhere),
            Ok(Err(error)) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "the list of certificates is not up to date"
                );
            }
            Err(error) => tracing::error!(%error, "the list of certificates is not up to date"),
        }
    }

    /// Looks for what ends soon, and shows what does not change from second to second.
    fn judge(&mut self, now: Timestamp) {
        let trust = self.trust.borrow_and_update().clone();
        let mut terms: Vec<_> = self.held.iter().filter_map(Held::term).collect();
        terms.extend(trust.iter().chain(&self.elsewhere).flat_map(list_terms));
        let (ending, notices) = self.expiry.look(&terms, now);
        self.ending = ending;
        for notice in notices {
            tracing::warn!("{}", notice.detail);
            if let Some(journal) = self.complaints.journal() {
                journal.publish(notice);
            }
        }
        if let Some(hub) = self.hub.as_ref().filter(|_| self.config.level.has_tls()) {
            let rows = self.held.iter().filter_map(|held| held.row(now));
            hub.set_certificates(rows.collect());
            if let Some(trust) = &trust {
                hub.set_revocation(revocation(trust));
            }
        }
    }

    fn show(&self) {
        let Some(hub) = &self.hub else {
            return;
        };
        let mut alarms = self.complaints.alarms();
        alarms.extend(self.ending.iter().cloned());
        hub.set_alarms(alarms);
        if let Some(broker) = &self.broker {
            hub.set_sessions(sessions::rows(&broker.sessions()));
        }
    }
}

fn list_terms(trust: &ClientTrust) -> impl Iterator<Item = Term<'_>> {
    let lists = trust.lists().iter().zip(trust.authorities());
    lists.map(|(list, authority)| Term {
        kind: Kind::List,
        name: &authority.subject,
        key: format!("{} {}", list.authority, hex::encode(&list.number)),
        from: list.this_update,
        until: list.next_update,
    })
}

fn revocation(trust: &ClientTrust) -> RevocationView {
    let lists = trust.lists().iter().zip(trust.authorities());
    let lists = lists.map(|(list, authority)| RevocationList {
        authority: authority.subject.clone(),
        number: decimal(&list.number),
        this_update_ms: list.this_update.as_millis(),
        next_update_ms: list.next_update.as_millis(),
        revoked: u32::try_from(list.serials.len()).unwrap_or(u32::MAX),
    });
    RevocationView {
        lists: lists.collect(),
    }
}
