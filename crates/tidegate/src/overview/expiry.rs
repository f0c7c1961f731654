//! What ends soon: an event at each threshold, once, and an alarm for as long as it lasts.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::reason::Reason;
use tidegate_envelope::time::Timestamp;
use tidegate_serve::protocol::{Alarm, AlarmSeverity};
use tidegate_store::event::Event;

const DAY: Duration = Duration::from_secs(86_400);
/// Time before the end of a certificate at which somebody is told.
const CERTIFICATE_THRESHOLDS: [Duration; 3] = [DAY, days(7), days(30)];
/// The same for a revocation list. One is signed anew every day, so even the first means that
/// something does not work.
const LIST_THRESHOLDS: [Duration; 2] = [DAY, days(3)];
/// A threshold counts only in this part of a life: a certificate of 7 days is renewed in its last
/// third, and is not in danger before.
const LAST_PART: u32 = 3;
/// A revocation list's, of which all but the last half is a margin.
const LAST_PART_OF_LIST: u32 = 2;
/// Names in one sentence; more are counted.
const MAX_NAMED: usize = 6;

/// What ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    Authority,
    Server,
    Gateway,
    Operator,
    List,
    Device,
}

/// From when to when something is good.
#[derive(Debug, Clone)]
pub(super) struct Term<'a> {
    pub(super) kind: Kind,
    pub(super) name: &'a str,
    /// Tells it from others of its kind.
    pub(super) key: String,
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
}

/// How close an end is: the threshold that was crossed last, zero when it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Stage(Duration);

/// Whether somebody should see to a certificate.
pub(crate) fn is_soon(from: Timestamp, until: Timestamp, now: Timestamp) -> bool {
    stage(Kind::Device, from, until, now).is_some()
}

/// What was told already.
#[derive(Debug, Default)]
pub(super) struct Expiry {
    told: HashMap<(Kind, String), Stage>,
}

impl Expiry {
    /// The alarms of this moment, and an event for what has crossed a threshold since the last call.
    pub(super) fn look(&mut self, terms: &[Term<'_>], now: Timestamp) -> (Vec<Alarm>, Vec<Event>) {
        let mut standing: BTreeMap<(Kind, Stage), Vec<&Term<'_>>> = BTreeMap::new();
        let mut new: BTreeMap<(Kind, Stage), Vec<&Term<'_>>> = BTreeMap::new();
        let mut told = HashMap::new();
        for term in terms {
            let Some(stage) = stage(term.kind, term.from, term.until, now) else {
                continue;
            };
            let key = (term.kind, term.key.clone());
            let before = self.told.get(&key).copied();
            // A clock that is set back tells nothing twice.
            if before.is_none_or(|before| stage < before) {
                new.entry((term.kind, stage)).or_default().push(term);
            }
            told.insert(key, before.map_or(stage, |before| before.min(stage)));
            standing.entry((term.kind, stage)).or_default().push(term);
        }
        self.told = told;
        let alarms = standing
            .iter()
            .map(|((kind, stage), terms)| alarm(*kind, *stage, terms));
        let events = new
            .iter()
            .map(|((kind, stage), terms)| event(*kind, *stage, terms, now));
        (alarms.collect(), events.collect())
    }
}

fn stage(kind: Kind, from: Timestamp, until: Timestamp, now: Timestamp) -> Option<Stage> {
    if now > until {
        return Some(Stage(Duration::ZERO));
    }
    let (thresholds, part) = match kind {
        Kind::List => (&LIST_THRESHOLDS[..], LAST_PART_OF_LIST),
        _ => (&CERTIFICATE_THRESHOLDS[..], LAST_PART),
    };
    let longest = until.since(from) / part;
    // Of a life that is too short for all of them, half of its last part is the threshold.
    let shortest = [longest / 2];
    let thresholds = if longest < thresholds[0] {
        &shortest[..]
    } else {
        thresholds
    };
    let left = until.since(now);
    let crossed = thresholds
        .iter()
        .find(|threshold| left <= **threshold && **threshold <= longest);
    crossed.map(|threshold| Stage(*threshold))
}

fn alarm(kind: Kind, stage: Stage, terms: &[&Term<'_>]) -> Alarm {
    let severity = match stage.0 {
        left if left <= DAY => AlarmSeverity::Critical,
        left if left <= days(7) => AlarmSeverity::Warning,
        _ => AlarmSeverity::Info,
    };
    let since = terms.iter().map(|term| term.until.minus(stage.0)).min();
    Alarm {
        severity,
        text: format!("{}.", sentence(kind, stage, terms)),
        remedy: remedy(kind, terms),
        since_ms: since.map_or(0, Timestamp::as_millis),
    }
}

fn event(kind: Kind, stage: Stage, terms: &[&Term<'_>], now: Timestamp) -> Event {
    let reason = if stage.0.is_zero() {
        Reason::CertificateExpired
    } else {
        Reason::CertificateExpiring
    };
    let detail = format!("{}. {}", sentence(kind, stage, terms), remedy(kind, terms));
    let mut event = crate::pipeline::notice(reason, detail, now);
    if let (Kind::Device, [device]) = (kind, terms) {
        event.device = DeviceId::new(device.name).ok();
    }
    event
}

/// `The certificate of device-001 ends on 2026-03-01`.
fn sentence(kind: Kind, stage: Stage, terms: &[&Term<'_>]) -> String {
    let what = match (kind, terms) {
        (Kind::Authority, [one]) => format!("The CA {}", one.name),
        (Kind::Authority, more) => format!("{} CAs, {},", more.len(), names(more)),
        (Kind::Server, [_]) => "The server's certificate".to_owned(),
        (Kind::List, [one]) => format!("The revocation list of {}", one.name),
        (Kind::List, more) => format!("The revocation lists of {}", names(more)),
        (_, [one]) => format!("The certificate of {}", one.name),
        (Kind::Device, more) => format!("The certificates of {} devices, {},", more.len(), names(more)),
        (_, more) => format!("The certificates of {}", names(more)),
    };
    let ends = match (terms.len(), stage.0.is_zero()) {
        (1, false) => "ends",
        (_, false) => "end",
        (1, true) => "has ended",
        (_, true) => "have ended",
    };
    let first = terms.iter().map(|term| term.until).min();
    let when = first.map(day).unwrap_or_default();
    match (terms.len(), kind, stage.0.is_zero()) {
        (_, Kind::List, false) => format!("{what} {ends} on {when}; after that nobody is let in"),
        (_, Kind::List, true) => format!("{what} {ends} on {when}, and nobody is let in"),
        (1, ..) => format!("{what} {ends} on {when}"),
        _ => format!("{what} {ends}, the first on {when}"),
    }
}

fn remedy(kind: Kind, terms: &[&Term<'_>]) -> String {
    let name = match terms {
        [one] => one.name,
        _ => "NAME",
    };
    match kind {
        Kind::Authority => "`tidegate certs rotate-ca --begin` starts the change to a new CA.".to_owned(),
        Kind::Server => "`tidegate certs renew server` replaces it.".to_owned(),
        Kind::Gateway | Kind::Operator => format!("`tidegate certs renew {name}` replaces it."),
        Kind::List => {
            "`tidegate certs refresh-crl` signs a new one where the CA's key is; bring it here as certs/crl.pem.".to_owned()
        }
        Kind::Device => format!(
            "A device that is on renews by itself; `tidegate certs enroll-token {name}` lets it enrol anew."
        ),
    }
}

fn names(terms: &[&Term<'_>]) -> String {
    let mut names: Vec<_> = terms.iter().map(|term| term.name).take(MAX_NAMED).collect();
    names.sort_unstable();
    let shown = names.join(", ");
    match terms.len().saturating_sub(MAX_NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn day(time: Timestamp) -> String {
    time.to_string().chars().take(10).collect()
}

const fn days(count: u64) -> Duration {
    Duration::from_secs(count * DAY.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

    fn term(kind: Kind, name: &str, life: Duration) -> Term<'_> {
        Term {
            kind,
            name,
            key: name.to_owned(),
            from: START,
            until: START.plus(life),
        }
    }

    /// Days before the end at which something of `life` days is told about.
    fn told_at(kind: Kind, life: u64) -> Vec<u64> {
        let mut expiry = Expiry::default();
        let term = [term(kind, "name", days(life))];
        let mut told = Vec::new();
        for day in 0..=life + 40 {
            // A little after, so that it is over at its end.
            let now = START.plus(days(day)).plus(Duration::from_secs(1));
            let (_, events) = expiry.look(&term, now);
            told.extend(events.iter().map(|_| life.saturating_sub(day)));
        }
        told
    }

    #[test]
    fn each_threshold_is_told_once_and_the_end_too() {
        assert_eq!(told_at(Kind::Server, 90), [30, 7, 1, 0]);
        assert_eq!(told_at(Kind::Device, 365), [30, 7, 1, 0]);
    }

    #[test]
    fn short_life_is_told_about_in_its_last_third_only() {
        assert_eq!(told_at(Kind::Device, 30), [7, 1, 0]);
        assert_eq!(told_at(Kind::Device, 7), [1, 0]);
        let hours = |count: u64| Duration::from_secs(count * 3_600);
        let soon = |after| is_soon(START, START.plus(hours(24)), START.plus(after));
        assert!(!soon(hours(19)) && soon(hours(20)));
    }

    #[test]
    fn revocation_list_that_is_signed_daily_is_told_about_when_it_was_not() {
        assert_eq!(told_at(Kind::List, 7), [3, 1, 0]);
    }

    #[test]
    fn first_look_tells_only_how_close_it_is_now() {
        let mut expiry = Expiry::default();
        let term = [term(Kind::Server, "server", days(90))];
        let at = |day| START.plus(days(day));
        let (alarms, events) = expiry.look(&term, at(85));
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].reason, Some(Reason::CertificateExpiring));
        assert_eq!(
            events[0].detail,
            "The server's certificate ends on 2026-04-01. `tidegate certs renew server` replaces it."
        );
        assert_eq!(alarms[0].severity, AlarmSeverity::Warning);
        assert_eq!(alarms[0].since_ms, at(83).as_millis());
        // Set back, and on again: nothing twice.
        assert!(expiry.look(&term, at(70)).1.is_empty());
        assert!(expiry.look(&term, at(85)).1.is_empty());
        let (alarms, events) = expiry.look(&term, at(91));
        assert_eq!(events[0].reason, Some(Reason::CertificateExpired));
        assert_eq!(alarms[0].severity, AlarmSeverity::Critical);
        assert_eq!(
            alarms[0].text,
            "The server's certificate has ended on 2026-04-01."
        );
    }

    #[test]
    fn many_devices_share_one_event_and_one_alarm() {
        let names: Vec<_> = (1..=8).map(|number| format!("device-{number}")).collect();
        let mut terms: Vec<_> = names
            .iter()
            .map(|name| term(Kind::Device, name, days(90)))
            .collect();
        terms.push(term(Kind::Gateway, "gateway", days(90)));
        let mut expiry = Expiry::default();
        let (alarms, events) = expiry.look(&terms, START.plus(days(89)));
        assert_eq!((alarms.len(), events.len()), (2, 2));
        let text = &alarms[1].text;
        assert!(
            text.starts_with("The certificates of 8 devices, device-1,")
                && text.contains("device-6 and 2 more"),
            "{text}"
        );
        assert_eq!(events[1].device, None);
        // One more alone is named.
        terms.push(term(Kind::Device, "late", days(90)));
        let (_, events) = expiry.look(&terms, START.plus(days(89)));
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].device, Some(DeviceId::new("late").unwrap()));
    }

    #[test]
    fn renewed_certificate_ends_its_alarm() {
        let mut expiry = Expiry::default();
        let old = [term(Kind::Server, "server", days(90))];
        assert_eq!(expiry.look(&old, START.plus(days(80))).0.len(), 1);
        let mut new = term(Kind::Server, "server", days(170));
        new.key = "another".into();
        assert!(expiry.look(&[new], START.plus(days(80))).0.is_empty());
        assert!(expiry.told.is_empty());
    }
}
