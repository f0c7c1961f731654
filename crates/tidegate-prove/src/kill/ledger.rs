//! The ledger: every message that was ever signed, and what was promised about it.

use super::client::Answer;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;
use tidegate_envelope::id::{Boot, Sequence};
use tidegate_envelope::json_v1::{self, Draft};
use tidegate_envelope::reading::Channels;
use tidegate_envelope::time::Timestamp;

use super::site::Device;

/// The status text of every message.
pub(crate) const STATUS: &str = "operational";

/// The count of acknowledged messages: by the gateway as accepted, by Mosquitto as taken.
pub(crate) const ACKNOWLEDGED: &str = "messages acknowledged";

/// The count of copies of such messages that were acknowledged too: by the gateway, which knows
/// them as redeliveries, or by Mosquitto, which takes everything.
const COPIES_TAKEN: &str = "copies of acknowledged messages that were acknowledged again";

/// A message's place in the ledger.
pub(crate) type Id = usize;

/// Who sends a message, and the how-manieth time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sending {
    /// Its device, for the first time.
    First,
    /// Its device, because no answer came.
    Again,
    /// A copy through the device's own connection, as a broker or a thief might redeliver it.
    OwnCopy,
    /// A copy through another connection with the device's certificate.
    Replay,
}

impl Sending {
    /// The same, when it has to be done once more.
    pub(crate) fn again(self) -> Self {
        match self {
            Self::First => Self::Again,
            other => other,
        }
    }
}

/// One signed message.
#[derive(Debug)]
pub(crate) struct Message {
    /// Position of its device in the site.
    pub(crate) device: usize,
    pub(crate) boot: Boot,
    pub(crate) sequence: u64,
    pub(crate) timestamp: Timestamp,
    pub(crate) payload: Bytes,
    /// Somebody was told that it is accepted; from Mosquitto: that it has the message.
    pub(crate) acknowledged: bool,
    /// Its device was told what became of it.
    pub(crate) answered: bool,
    /// A subscriber got it.
    pub(crate) delivered: bool,
    /// Signed with a time that had passed by the time that the gateway could see it.
    pub(crate) outdated: bool,
}

/// All messages of a campaign in the order of signing, and counts of what happened.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    messages: Vec<Message>,
    by_number: HashMap<(usize, u64), Id>,
    by_payload: HashMap<Bytes, Id>,
    newest: HashMap<usize, Id>,
    pub(crate) counts: Counts,
}

/// Named counts, and what went against the claim.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    counts: BTreeMap<String, u64>,
    violations: Vec<String>,
    further_violations: u64,
}

/// Violations that are told one by one; further ones are counted.
const MOST_TOLD: usize = 20;

impl Ledger {
    /// Signs the next message of a device.
    pub(crate) fn sign(
        &mut self,
        number: usize,
        device: &Device,
        (boot, sequence): (Boot, Sequence),
        timestamp: Timestamp,
        outdated: bool,
    ) -> Id {
        let channels = values(number, sequence.get());
        let draft = Draft {
            device: &device.message_id,
            timestamp,
            sequence,
            boot: Some(boot),
            epoch: None,
            status: STATUS,
            channels: &channels,
        };
        let payload = Bytes::from(json_v1::sign(&draft, &device.key));
        let id = self.messages.len();
        self.by_number.insert((number, sequence.get()), id);
        self.by_payload.insert(payload.clone(), id);
        self.newest.insert(number, id);
        self.messages.push(Message {
            device: number,
            boot,
            sequence: sequence.get(),
            timestamp,
            payload,
            acknowledged: false,
            answered: false,
            delivered: false,
            outdated,
        });
        self.counts.add("messages signed and published", 1);
        id
    }

    pub(crate) fn message(&self, id: Id) -> &Message {
        &self.messages[id]
    }

    /// How many messages there are; their ids are all below it.
    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(crate) fn messages(&self) -> impl Iterator<Item = (Id, &Message)> {
        self.messages.iter().enumerate()
    }

    /// The message with this number of a device.
    pub(crate) fn find(&self, device: usize, sequence: u64) -> Option<Id> {
        self.by_number.get(&(device, sequence)).copied()
    }

    /// The newest message of each device that has one.
    pub(crate) fn newest(&self) -> impl Iterator<Item = (usize, &Message)> {
        self.newest
            .iter()
            .map(|(device, id)| (*device, &self.messages[*id]))
    }

    /// Takes down an answer.
    pub(crate) fn answer(&mut self, id: Id, sending: Sending, answer: &Answer) {
        let message = &mut self.messages[id];
        message.answered |= matches!(sending, Sending::First | Sending::Again);
        match (answer, sending) {
            (Answer::Accepted, _) if !message.acknowledged => {
                message.acknowledged = true;
                self.counts.add(ACKNOWLEDGED, 1);
            }
            (Answer::Accepted, Sending::First) => {}
            (Answer::Accepted, _) => self.counts.add(COPIES_TAKEN, 1),
            (Answer::Unavailable, _) => self.counts.add("answered storage_unavailable", 1),
            (Answer::Refused(reason), Sending::First | Sending::Again) => {
                self.counts
                    .add(&format!("device's own sending refused: {reason}"), 1);
            }
            (Answer::Refused(reason), Sending::OwnCopy | Sending::Replay) => {
                self.counts.add(&format!("replays refused: {reason}"), 1);
            }
        }
    }

    /// Takes down that a subscriber got a message: only what is accepted may be given out, and once.
    pub(crate) fn deliver(&mut self, payload: &Bytes) {
        let Some(id) = self.by_payload.get(payload) else {
            self.counts
                .violation("a subscriber got a message that nobody sent".into());
            return;
        };
        let message = &mut self.messages[*id];
        if message.delivered {
            let text = format!("a subscriber got {} twice", name(message));
            self.counts.violation(text);
        }
        message.delivered = true;
        self.counts.add("given to a subscriber", 1);
    }
}

impl Counts {
    pub(crate) fn add(&mut self, what: &str, number: u64) {
        match self.counts.get_mut(what) {
            Some(count) => *count += number,
            None => drop(self.counts.insert(what.to_owned(), number)),
        }
    }

    pub(crate) fn of(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }

    /// All counts by name.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, u64)> {
        self.counts.iter().map(|(what, count)| (what.as_str(), *count))
    }

    pub(crate) fn violation(&mut self, text: String) {
        if self.violations.len() < MOST_TOLD {
            self.violations.push(text);
        } else {
            self.further_violations += 1;
        }
    }

    /// The same, with each name told apart from those of other kinds of sites.
    pub(crate) fn of_site(mut self, kind: &str) -> Self {
        let counts = std::mem::take(&mut self.counts);
        self.counts = counts
            .into_iter()
            .map(|(what, number)| (format!("{kind}: {what}"), number))
            .collect();
        self.violations = self
            .violations
            .iter()
            .map(|text| format!("{kind}: {text}"))
            .collect();
        self
    }

    pub(crate) fn merge(&mut self, other: Self) {
        for (what, number) in other.counts {
            self.add(&what, number);
        }
        for text in other.violations {
            self.violation(text);
        }
        self.further_violations += other.further_violations;
    }

    /// What went against the claim, as far as it is told.
    pub(crate) fn violations(&self) -> impl Iterator<Item = String> {
        let further = (self.further_violations > 0).then(|| format!("and {} more", self.further_violations));
        self.violations.iter().cloned().chain(further)
    }
}

/// A message in words.
pub(crate) fn name(message: &Message) -> String {
    format!(
        "message {} of start {} of device {}",
        message.sequence,
        message.boot.0,
        message.device + 1
    )
}

/// The values that a message must have, in the database too: a function of its number alone.
pub(crate) fn values(device: usize, sequence: u64) -> Channels {
    let mut random = StdRng::seed_from_u64(sequence.wrapping_mul(64) + device as u64);
    let names = [
        "flow_rate",
        "pressure_upstream",
        "pressure_downstream",
        "gate_a_position",
        "gate_b_position",
    ];
    let values = names.map(|name| (name.into(), random.random_range(0.0..100.0)));
    Channels::new(values.to_vec()).expect("five short names and finite numbers")
}

/// This machine's time.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or_default())
}
