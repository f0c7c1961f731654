//! What really happened: kept by somebody who sees every host, and held against the claims.

use super::clock::true_time;
use super::plan::{ALL_ACCEPTED_FROM, Host, Mode, Plan};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::hash::Hasher;
use std::time::Duration;
use tidegate_device::publisher::{Dropped, Event};
use tidegate_envelope::id::{DeviceIndex, Sequence};
use tidegate_envelope::reason::Reason;
use tidegate_envelope::time::Timestamp;
use tidegate_verify::verifier::Message;

/// Oldest accepted timestamp before the gateway's time, as the claim says.
const OLDEST: Duration = Duration::from_secs(30);
/// Newest accepted timestamp after it.
const NEWEST: Duration = Duration::from_secs(5);
/// Payloads that the attacker has in hand.
const MAX_CAPTURED: usize = 4_096;

/// Which message: device, boot counter, sequence.
pub(super) type Key = (u32, u32, u64);

/// A message as its device made it.
#[derive(Debug, Clone)]
struct Sent {
    timestamp: Timestamp,
    value: f64,
    at: Duration,
}

/// What became of a message, as its device was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Acknowledged,
    Refused(u8),
    Dropped,
    /// Its host crashed before it heard of it.
    Forgotten,
}

/// A publish as it came to the broker.
#[derive(Debug, Clone)]
pub(super) struct Captured {
    pub(super) topic: String,
    pub(super) payload: Bytes,
    pub(super) properties: Vec<(String, String)>,
}

/// Everything that was seen.
#[derive(Debug)]
pub(super) struct Ledger {
    plan: Plan,
    sent: BTreeMap<Key, Sent>,
    fates: BTreeMap<Key, Fate>,
    /// On the gateway's disk, whatever happens.
    durable: BTreeSet<Key>,
    /// What the guard said about each message that was not accepted.
    refusals: BTreeMap<Key, BTreeSet<Reason>>,
    pub(super) captured: Vec<Captured>,
    pub(super) counts: BTreeMap<String, u64>,
    pub(super) violations: Vec<String>,
    /// When the gateway last started.
    started: Duration,
    /// When another broker first knew that the gateway wants the messages.
    subscribed: Option<Duration>,
    trace: Trace,
    now: Duration,
}

/// A hash over everything that happened, in order (FNV-1a, 64 bits).
#[derive(Debug)]
struct Trace {
    hash: u64,
    shown: bool,
}

impl Hasher for Trace {
    fn finish(&self) -> u64 {
        self.hash
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

impl Ledger {
    pub(super) fn new(plan: &Plan, shown: bool) -> Self {
        Self {
            plan: plan.clone(),
            sent: BTreeMap::new(),
            fates: BTreeMap::new(),
            durable: BTreeSet::new(),
            refusals: BTreeMap::new(),
            captured: Vec::new(),
            counts: BTreeMap::new(),
            violations: Vec::new(),
            started: Duration::ZERO,
            subscribed: None,
            trace: Trace {
                hash: 0xcbf2_9ce4_8422_2325,
                shown,
            },
            now: Duration::ZERO,
        }
    }

    /// Hash over everything that happened so far.
    pub(super) fn trace(&self) -> u64 {
        self.trace.finish()
    }

    /// Notes that something happened, for the trace.
    pub(super) fn note(&mut self, at: Duration, what: &str, detail: &dyn Debug) {
        self.now = at;
        let line = format!("{:>9.3} {what} {detail:?}", at.as_secs_f64());
        if self.trace.shown {
            anstream::println!("{line}");
        }
        self.trace.write(line.as_bytes());
    }

    pub(super) fn count(&mut self, what: impl Into<String>) {
        *self.counts.entry(what.into()).or_default() += 1;
    }

    fn violation(&mut self, what: String) {
        let (seed, at) = (self.plan.seed, self.now.as_secs_f64());
        if self.trace.shown {
            anstream::println!("VIOLATION {what}");
        }
        self.violations.push(format!("seed {seed}, {at:.3} s: {what}"));
    }

    /// A device made a message.
    pub(super) fn sent(&mut self, key: Key, timestamp: Timestamp, value: f64, at: Duration) {
        self.note(at, "sent", &key);
        self.count("messages made");
        let newest = self
            .sent
            .range((key.0, 0, 0)..=(key.0, u32::MAX, u64::MAX))
            .next_back();
        if newest.is_some_and(|(last, _)| (last.1, last.2) >= (key.1, key.2) || last.2 >= key.2) {
            self.violation(format!("device {} used {key:?} after a later number", key.0));
        }
        self.sent.insert(key, Sent { timestamp, value, at });
    }

    /// A device's publisher said something.
    pub(super) fn told(&mut self, device: u32, boot: u32, event: &Event, at: Duration) {
        self.note(at, "told", &(device, event));
        let key = |sequence: Sequence| (device, boot, sequence.get());
        match event {
            Event::Acknowledged { sequence, .. } => {
                self.count("messages acknowledged to their device");
                self.fates.insert(key(*sequence), Fate::Acknowledged);
                if self.plan.mode == Mode::Embedded && !self.durable.contains(&key(*sequence)) {
                    self.violation(format!(
                        "{:?} was acknowledged, and is not durable",
                        key(*sequence)
                    ));
                }
            }
            Event::Refused { sequence, code } => {
                self.count("messages refused to their device");
                self.fates.insert(key(*sequence), Fate::Refused(*code));
            }
            Event::Dropped { sequence, why } => {
                self.count(match why {
                    Dropped::TooOld => "messages that their device dropped: too old",
                    _ => "messages that their device dropped: no room",
                });
                self.fates.insert(key(*sequence), Fate::Dropped);
            }
            Event::Postponed { .. } => self.count("times that a message could not be stored"),
            Event::Connected { resumed: true } => self.count("sessions resumed"),
            Event::Connected { resumed: false } => self.count("sessions begun"),
            Event::Disconnected { .. } => self.count("connections lost or not made"),
            _ => {}
        }
    }

    /// A host went down.
    pub(super) fn crashed(&mut self, host: Host, at: Duration) {
        self.note(at, "crash", &host);
        self.count(match host {
            Host::Device(_) => "crashes of a device",
            Host::Broker => "crashes of the broker",
            Host::Gateway => "crashes of the gateway",
        });
        let Host::Device(index) = host else { return };
        let device = u32::try_from(index).unwrap_or(u32::MAX);
        let own = (device, 0, 0)..=(device, u32::MAX, u64::MAX);
        for (key, _) in self.sent.range(own) {
            self.fates.entry(*key).or_insert(Fate::Forgotten);
        }
    }

    /// A publish reached the broker.
    pub(super) fn captured(&mut self, captured: Captured) {
        if self.captured.len() < MAX_CAPTURED {
            self.captured.push(captured);
        }
    }

    /// A message was refused before or by the guard.
    pub(super) fn refused(&mut self, key: Option<Key>, reason: Reason, at: Duration) {
        self.note(at, "refused", &(key, reason));
        self.count(format!("refused: {reason}"));
        let Some(key) = key else { return };
        self.refusals.entry(key).or_default().insert(reason);
        let age = self.sent.get(&key).map(|sent| at.saturating_sub(sent.at));
        let Some(age) = age.filter(|_| self.plan.clocks_are_right()) else {
            return;
        };
        let wrongly = match reason {
            Reason::Stale => age < OLDEST,
            Reason::ColdStart => at - age + NEWEST >= self.started,
            Reason::Future => true,
            _ => false,
        };
        if wrongly {
            self.violation(format!("{key:?} was refused as {reason} at an age of {age:?}"));
        }
    }

    /// The gateway starts.
    pub(super) fn gateway_started(&mut self, at: Duration) {
        self.note(at, "gateway", &"starts");
        self.started = at;
    }

    /// The gateway's subscription at another broker stands.
    pub(super) fn subscribed(&mut self, at: Duration) {
        self.note(at, "gateway", &"subscribed");
        self.subscribed.get_or_insert(at);
    }

    /// The broker repeated itself.
    pub(super) fn duplicate(&mut self, key: Key, at: Duration) {
        self.note(at, "duplicate", &key);
        self.count("acknowledged again: duplicate");
    }

    /// The guard admitted a message when the gateway's time was `now`, its floor considered.
    pub(super) fn admitted(&mut self, key: Key, message: &Message, now: Timestamp, at: Duration) {
        self.note(at, "admitted", &key);
        let Some(timestamp) = message.reading.timestamp else {
            self.violation(format!("{key:?} was accepted without a time"));
            return;
        };
        if timestamp < now.minus(OLDEST) {
            let age = now.since(timestamp);
            self.violation(format!("{key:?} was accepted {age:?} late"));
        }
        if timestamp > now.plus(NEWEST) {
            let ahead = timestamp.since(now);
            self.violation(format!("{key:?} was accepted {ahead:?} early"));
        }
    }

    /// A message is on the gateway's disk.
    pub(super) fn durable(&mut self, key: Key, message: &Message, at: Duration) {
        self.note(at, "durable", &key);
        self.count("accepted");
        let Some(sent) = self.sent.get(&key) else {
            self.violation(format!("{key:?} was accepted, and never sent"));
            return;
        };
        let same_time = message
            .reading
            .timestamp
            .is_some_and(|timestamp| timestamp.as_millis() == sent.timestamp.as_millis());
        let value = message.reading.channels.get(super::hosts::CHANNEL);
        if !same_time || value != Some(sent.value) {
            let what = (message.reading.timestamp, value);
            self.violation(format!("{key:?} was accepted as {what:?}, and sent as {sent:?}"));
        }
        if !self.durable.insert(key) {
            self.violation(format!("{key:?} was accepted twice"));
        }
    }

    /// The end: what was promised must be there, and what was not accepted must have its reason.
    /// `floor` is the highest time at which the gateway accepted a message.
    pub(super) fn close(&mut self, at: Duration, floor: Option<Timestamp>, on_disk: &BTreeSet<Key>) {
        self.note(at, "end", &on_disk.len());
        let missing: Vec<Key> = self.durable.symmetric_difference(on_disk).copied().collect();
        for key in missing {
            self.violation(format!("{key:?} was accepted, and is not on the disk"));
        }
        let sent = std::mem::take(&mut self.sent);
        for (key, sent) in &sent {
            let durable = self.durable.contains(key);
            if durable {
                continue;
            }
            // The gateway's time was ahead, and messages agreed: it cannot go back behind that.
            let behind = floor.is_some_and(|floor| true_time(sent.at) < floor.minus(OLDEST / 2));
            if sent.at >= ALL_ACCEPTED_FROM && !behind {
                let fate = self.fates.get(key);
                let refusals = self.refusals.get(key);
                self.violation(format!(
                    "{key:?} was sent when all was well, and is not accepted: {fate:?}, {refusals:?}"
                ));
            } else if let Some(why) = self.unexplained(*key, sent) {
                self.violation(format!("{key:?} was lost: {why}"));
            }
        }
        self.sent = sent;
    }

    /// Why a message that was not accepted should have been, where the run allows to say so.
    fn unexplained(&self, key: Key, sent: &Sent) -> Option<String> {
        if !self.plan.clocks_are_right() {
            return None;
        }
        let refusals = self.refusals.get(&key).cloned().unwrap_or_default();
        let excused = refusals.iter().any(|reason| {
            matches!(
                reason,
                Reason::Stale | Reason::ColdStart | Reason::StorageUnavailable
            )
        });
        match self.fates.get(&key) {
            Some(Fate::Dropped | Fate::Forgotten) => None,
            Some(Fate::Refused(_)) if excused => None,
            Some(Fate::Refused(code)) => Some(format!("refused with {code:#x} for {refusals:?}")),
            // The embedded broker's acknowledgement was checked when it came.
            Some(Fate::Acknowledged) if excused => None,
            // Another broker's acknowledgement says only that it has the message; it keeps it as
            // long as it runs and has been told to whom it goes.
            Some(Fate::Acknowledged)
                if self.plan.crashes(Host::Broker)
                    || self.subscribed.is_none_or(|since| sent.at <= since) =>
            {
                None
            }
            Some(Fate::Acknowledged) => Some(format!("acknowledged, and refused for {refusals:?}")),
            None => Some("its device still waits for an answer".to_owned()),
        }
    }
}

/// The key of a message that the verifier let through.
pub(super) fn key_of(message: &Message) -> Option<Key> {
    let DeviceIndex(device) = message.device?;
    Some((device, message.reading.boot?.0, message.reading.sequence?.get()))
}

#[cfg(test)]
mod tests;
