//! Exchanges the server's certificate, CAs and revocation lists while it runs, shuts out who is
//! revoked, and has new lists signed before the old ones end.

use super::complaints::{Complaints, Subject};
use super::one_line;
use super::tls::{InUse, Outcome};
use super::watch::{Cause, Files, Watch};
use crate::config::Config;
use crate::enrollment::Materials;
use crate::setup::ca::{Refreshed, refresh_crl};
use anyhow::Result;
use std::time::Duration;
use tidegate_broker::Handle;
use tidegate_pki::tls::ClientTrust;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

/// What was refused is tried again after so many looks, ten seconds: it may become good by the clock.
const LOOKS_TO_RETRY: u32 = 40;
/// How often it is asked whether new lists are due. They are, a day after they were signed.
const REFRESH_EVERY: Duration = Duration::from_secs(60 * 60);

/// CAs and lists in use, for whoever shows them.
pub(crate) type TrustInUse = watch::Receiver<Option<ClientTrust>>;

/// Watches the files of one running program.
pub(crate) struct IdentityReload {
    config: Config,
    /// None where this program is no TLS server.
    in_use: Option<InUse>,
    watch: Watch,
    refresh: Interval,
    complaints: Complaints,
    broker: Option<Handle>,
    enrollment: Option<Materials>,
    shown: watch::Sender<Option<ClientTrust>>,
}

impl IdentityReload {
    /// Watches for changes after `read`, which was taken before `in_use` was read, on behalf of a
    /// broker and an enrolment service, where there are any.
    pub(crate) fn new(
        config: &Config,
        in_use: Option<InUse>,
        read: Files,
        broker: Option<Handle>,
        enrollment: Option<Materials>,
        complaints: Complaints,
    ) -> Result<Self> {
        // At the start it has just been asked.
        let mut refresh = interval_at(Instant::now() + REFRESH_EVERY, REFRESH_EVERY);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let trust = in_use.as_ref().and_then(InUse::trust).cloned();
        if let (Some(broker), Some(in_use)) = (&broker, &in_use) {
            // A resumed session and a will are asked about too.
            broker.disconnect_revoked(in_use.is_revoked());
        }
        Ok(Self {
            config: config.clone(),
            in_use,
            watch: Watch::new(read)?,
            refresh,
            complaints,
            broker,
            enrollment,
            shown: watch::Sender::new(trust),
        })
    }

    /// CAs and lists in use, now and later.
    pub(crate) fn trust(&self) -> TrustInUse {
        self.shown.subscribe()
    }

    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            let cause = tokio::select! {
                cause = self.watch.next() => Some(cause),
                _ = self.refresh.tick() => None,
                () = stop.cancelled() => return,
            };
            // Whoever asks also wants lists that are there and complete.
            if matches!(cause, None | Some(Cause::Asked)) {
                self.sign_lists_that_are_due().await;
            }
            if let Some(cause) = cause
                && self.read_again(cause).await
            {
                self.watch.retry_after(LOOKS_TO_RETRY);
            }
        }
    }

    /// Says whether anything was refused.
    async fn read_again(&mut self, cause: Cause) -> bool {
        let Some(in_use) = &self.in_use else {
            return false;
        };
        let mut next = in_use.clone();
        let reading = move || {
            let outcomes = next.read_again();
            (next, outcomes)
        };
        let (next, outcomes) = match tokio::task::spawn_blocking(reading).await {
            Ok(read) => read,
            Err(error) => {
                self.complaints
                    .complain(Subject::RevocationLists, &error.to_string());
                return true;
            }
        };
        let taken = outcomes
            .iter()
            .any(|(_, outcome)| matches!(outcome, Outcome::Taken(_)));
        if taken {
            self.apply_to_broker(&next);
        }
        let mut refused = self.apply_to_enrollment(&next, taken).await;
        // `accepted` and what was taken; what was refused is as it was.
        self.in_use = Some(next);
        for (subject, outcome) in outcomes {
            match outcome {
                Outcome::Same => self.complaints.settle(subject),
                Outcome::Taken(what) => {
                    self.complaints.settle(subject);
                    anstream::println!("Took {what}");
                }
                Outcome::Refused(why) => {
                    refused = true;
                    self.complaints.complain(subject, &one_line(&why));
                }
            }
        }
        if cause == Cause::Asked && !taken && !refused {
            anstream::println!("Certificates, CAs and revocation lists are as they were");
        }
        refused
    }

    fn apply_to_broker(&self, next: &InUse) {
        self.shown.send_replace(next.trust().cloned());
        let Some(broker) = &self.broker else {
            return;
        };
        // First new handshakes, then those who are there: whoever comes between the two is found by
        // one of them.
        match next.broker_tls() {
            Ok(tls) => broker.reload_tls(tls),
            Err(error) => {
                // Of parts that were good this cannot be; the revoked go in any case.
                let why = format!("{:#}", anyhow::Error::from(error));
                self.complaints.complain(Subject::ServerCertificate, &why);
            }
        }
        broker.disconnect_revoked(next.is_revoked());
    }

    /// Says whether the enrolment service goes on with a CA that it should not have any more.
    async fn apply_to_enrollment(&mut self, next: &InUse, taken: bool) -> bool {
        let Some(enrollment) = self.enrollment.as_mut() else {
            return false;
        };
        if !taken && !enrollment.is_behind() {
            return false;
        }
        match enrollment.exchange(&self.config, next).await {
            Ok(()) => self.complaints.settle(Subject::Enrollment),
            Err(error) => {
                let why = one_line(&format!("{error:#}"));
                self.complaints.complain(Subject::Enrollment, &why);
            }
        }
        enrollment.is_behind()
    }

    async fn sign_lists_that_are_due(&self) {
        let config = self.config.clone();
        let signed = tokio::task::spawn_blocking(move || refresh_crl(&config)).await;
        let signed = signed.map_err(anyhow::Error::from).flatten();
        match signed {
            Ok(Refreshed::Written(written)) => {
                for list in written {
                    anstream::println!(
                        "Signed revocation list {}, {} revoked, in force until {}",
                        list.number,
                        list.revoked,
                        list.next_update
                    );
                }
                self.complaints.settle(Subject::Signing);
            }
            Ok(Refreshed::NotDue | Refreshed::NoKey) => self.complaints.settle(Subject::Signing),
            Err(error) => {
                let why = one_line(&format!("{error:#}"));
                self.complaints.complain(Subject::Signing, &why);
            }
        }
    }
}
