//! What was refused while the program runs: told once for each cause, and shown as an alarm until it
//! is settled.

use crate::clock;
use crate::pipeline::{self, Journal};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tidegate_envelope::reason::Reason;
use tidegate_envelope::time::Timestamp;
use tidegate_serve::protocol::{Alarm, AlarmSeverity};

/// Causes of one subject that are remembered as told; beyond it, all are forgotten and told again.
const MAX_CAUSES: usize = 64;

/// What can be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// The lists of what is revoked.
    RevocationLists,
    /// The CAs whose clients are let in.
    Authorities,
    /// The server's certificate and key.
    ServerCertificate,
    /// The CA's key, with which new lists are signed.
    Signing,
    /// The CA that the enrolment service signs with.
    Enrollment,
    /// What this gateway shows another broker.
    ClientCertificate,
    /// The devices.
    Registry,
}

impl Subject {
    const fn reason(self) -> Reason {
        match self {
            Self::RevocationLists | Self::Signing => Reason::CrlRejected,
            Self::Registry => Reason::RegistryRejected,
            Self::Authorities | Self::ServerCertificate | Self::Enrollment | Self::ClientCertificate => {
                Reason::CertificateRejected
            }
        }
    }

    const fn severity(self) -> AlarmSeverity {
        match self {
            Self::RevocationLists | Self::Authorities => AlarmSeverity::Critical,
            _ => AlarmSeverity::Warning,
        }
    }

    /// What happened, as the beginning of a sentence.
    const fn sentence(self) -> &'static str {
        match self {
            Self::RevocationLists => "The new revocation list was refused, and the old one stays in use",
            Self::Authorities => "The changed CA bundle was refused, and the old one stays in use",
            Self::ServerCertificate => {
                "The changed server certificate was refused, and the old one stays in use"
            }
            Self::Signing => "No new revocation list could be signed",
            Self::Enrollment => "The enrolment service goes on with the CA that it has",
            Self::ClientCertificate => {
                "The changed client certificate was refused, and the old one stays in use"
            }
            Self::Registry => "The changed registry was refused, and the old one stays in use",
        }
    }

    const fn remedy(self) -> &'static str {
        match self {
            Self::RevocationLists => "`tidegate certs refresh-crl` signs a new list where the CA's key is.",
            Self::Authorities | Self::Enrollment => "`tidegate check` says what is wrong with the files.",
            Self::ServerCertificate => "`tidegate certs issue server --force` makes a new one.",
            Self::Signing => {
                "Clients are refused once the present list ends; `tidegate certs refresh-crl` tries again."
            }
            Self::ClientCertificate => "`tidegate certs issue gateway --force` makes a new one.",
            Self::Registry => "`tidegate check` names the line.",
        }
    }
}

/// A handle to the complaints of one program; clones share them.
#[derive(Clone)]
pub(crate) struct Complaints {
    /// None where there is only the log.
    journal: Option<Journal>,
    standing: Arc<Mutex<BTreeMap<Subject, Standing>>>,
}

/// A subject that is not settled.
struct Standing {
    since: Timestamp,
    /// The cause that it has now.
    cause: String,
    told: BTreeSet<String>,
}

impl Complaints {
    /// Nothing to complain about yet. Events go to `journal`, where there is one.
    pub(crate) fn new(journal: Option<Journal>) -> Self {
        Self {
            journal,
            standing: Arc::default(),
        }
    }

    /// Says why something was refused; only the first time since it was settled, if it was for the
    /// same cause.
    pub(crate) fn complain(&self, subject: Subject, cause: &str) {
        let now = clock::now();
        if self.is_new(subject, cause, now) {
            tracing::error!(error = cause, "{}", subject.sentence());
            if let Some(journal) = &self.journal {
                journal.publish(pipeline::notice(subject.reason(), cause.to_owned(), now));
            }
        }
    }

    /// Says that it is in order.
    pub(crate) fn settle(&self, subject: Subject) {
        self.standing().remove(&subject);
    }

    /// What is not settled.
    pub(crate) fn alarms(&self) -> Vec<Alarm> {
        let standing = self.standing();
        let alarm = |(subject, standing): (&Subject, &Standing)| Alarm {
            severity: subject.severity(),
            text: format!("{}: {}.", subject.sentence(), standing.cause),
            remedy: subject.remedy().to_owned(),
            since_ms: standing.since.as_millis(),
        };
        standing.iter().map(alarm).collect()
    }

    /// The journal, for events that are no complaints.
    pub(crate) fn journal(&self) -> Option<&Journal> {
        self.journal.as_ref()
    }

    fn is_new(&self, subject: Subject, cause: &str, now: Timestamp) -> bool {
        let mut all = self.standing();
        let standing = all.entry(subject).or_insert_with(|| Standing {
            since: now,
            cause: String::new(),
            told: BTreeSet::new(),
        });
        if standing.told.len() >= MAX_CAUSES {
            standing.told.clear();
        }
        cause.clone_into(&mut standing.cause);
        standing.told.insert(cause.to_owned())
    }

    fn standing(&self) -> MutexGuard<'_, BTreeMap<Subject, Standing>> {
        // Every change is one step, so a panic cannot leave half of one behind.
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(5_000_000);
    const LISTS: Subject = Subject::RevocationLists;

    #[test]
    fn each_cause_is_told_once_until_it_is_settled() {
        let complaints = Complaints::new(None);
        assert!(complaints.is_new(LISTS, "empty", NOW));
        assert!(!complaints.is_new(LISTS, "empty", NOW));
        assert!(complaints.is_new(LISTS, "foreign", NOW));
        assert!(!complaints.is_new(LISTS, "empty", NOW));
        assert!(complaints.is_new(Subject::Registry, "empty", NOW));
        complaints.settle(LISTS);
        assert!(complaints.is_new(LISTS, "empty", NOW));
    }

    #[test]
    fn alarm_names_the_present_cause_and_stands_until_it_is_settled() {
        let complaints = Complaints::new(None);
        complaints.is_new(LISTS, "empty", NOW);
        complaints.is_new(LISTS, "foreign", NOW);
        let [alarm] = &complaints.alarms()[..] else {
            panic!("one alarm")
        };
        assert_eq!(alarm.severity, AlarmSeverity::Critical);
        assert_eq!(alarm.since_ms, NOW.as_millis());
        assert!(alarm.text.ends_with("stays in use: foreign."), "{}", alarm.text);
        assert!(alarm.remedy.contains("refresh-crl"));
        complaints.settle(LISTS);
        assert!(complaints.alarms().is_empty());
    }

    #[test]
    fn causes_that_never_end_take_bounded_memory() {
        let complaints = Complaints::new(None);
        for number in 0..10 * MAX_CAUSES {
            assert!(complaints.is_new(LISTS, &number.to_string(), NOW));
        }
        assert!(complaints.standing()[&LISTS].told.len() <= MAX_CAUSES);
    }
}
