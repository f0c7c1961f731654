//! Checks 1 to 8: limits, topic, identity, format, key, MAC, schema.

mod cose_v1;
mod json_v1;
mod question;
mod unsigned;

use crate::delivery::{Delivery, SessionId};
use crate::guard::GuardPolicy;
use crate::quota::Quotas;
use crate::registry::{Entry, Format, NotAContinuation, Registry};
use crate::stage::{Unverified, Verified};
use crate::verdict::Refusal;
use std::cell::RefCell;
use std::sync::Arc;
use tidegate_envelope::id::{DeviceIndex, KeyEpoch, ZoneId};
use tidegate_envelope::json::Parser;
use tidegate_envelope::key::{MacKey, Tag};
use tidegate_envelope::principal::{Principal, Role};
use tidegate_envelope::reading::Reading;
use tidegate_envelope::reason::Reason;
use tidegate_envelope::time::Timestamp;

/// Characters of a topic or a name from outside that a refusal repeats.
const MAX_SHOWN: usize = 80;

/// Messages that are fetched at a time: their entries fill a part of the processor's near memory.
const FETCHED_TOGETHER: usize = 64;

thread_local! {
    /// Buffers that a connection's thread uses for one message after the other.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Memory that is used again for the next message; it grows to the largest one's size.
#[derive(Default)]
struct Scratch {
    parser: Parser,
    canonical: Vec<u8>,
}

/// Whether messages prove anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// They do not: levels `plain`, `tls` and `mtls`. Whatever can be read is accepted.
    Unprotected,
    /// They are signed.
    Signed,
}

/// A message that has passed the checks of this file.
#[derive(Debug, Clone)]
pub struct Message {
    /// Whose it is. Always there when signed; an unsigned message may come from nobody registered.
    pub device: Option<DeviceIndex>,
    /// The zone of the device, or the one that an unsigned message names.
    pub zone: Option<ZoneId>,
    /// What it says.
    pub reading: Reading,
    /// Its MAC; zero when unsigned.
    pub tag: Tag,
    /// The epoch of the key that signed it.
    pub epoch: KeyEpoch,
    /// The client session it came through.
    pub session: SessionId,
    /// Whether that session was resumed, so that old messages may come again.
    pub resumed: bool,
    /// When it came.
    pub received_at: Timestamp,
    /// Whether its signature was checked.
    pub protection: Protection,
}

/// The checks, shared by all connections.
#[derive(Debug)]
pub struct Verifier {
    registry: Arc<Registry>,
    protection: Protection,
    max_payload_bytes: usize,
    quotas: Quotas,
    /// Only to say of a message that fails check 8 whether it fails check 10 too.
    policy: GuardPolicy,
    anonymous: bool,
}

impl Verifier {
    /// A verifier for the devices of `registry`.
    #[must_use]
    pub fn new(registry: Arc<Registry>, protection: Protection, max_payload_bytes: usize) -> Self {
        let quotas = Quotas::new(&registry);
        Self {
            registry,
            protection,
            max_payload_bytes,
            quotas,
            policy: GuardPolicy::default(),
            anonymous: false,
        }
    }

    /// The verifier for a registry that takes this one's place while messages come in: the same
    /// limits, and what each device has used of its quota.
    ///
    /// Messages that are on their way through the earlier verifier meanwhile count for its quotas
    /// only, and are judged by its registry.
    ///
    /// # Errors
    /// See [`Registry::continues`].
    pub fn with_registry(&self, registry: Arc<Registry>) -> Result<Self, NotAContinuation> {
        registry.continues(&self.registry)?;
        Ok(Self {
            quotas: self.quotas.with_registry(&registry),
            registry,
            protection: self.protection,
            max_payload_bytes: self.max_payload_bytes,
            policy: self.policy,
            anonymous: self.anonymous,
        })
    }

    /// Names `stale` and `future` by the guard's limits, where they are not the default ones.
    #[must_use]
    pub fn with_policy(mut self, policy: GuardPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Takes signed messages from connections that prove nothing about who is there.
    ///
    /// The MAC alone decides then; and whoever can connect can use up a device's quota in its
    /// place, which with certificates only the device itself can.
    #[must_use]
    pub fn dangerous_allow_anonymous(mut self) -> Self {
        self.anonymous = true;
        self
    }

    /// Has the processor fetch what the messages on these topics will need, all of it at once.
    ///
    /// With a million devices, what is known of each comes from far away: messages that are fetched
    /// together wait for memory about once, and others once or twice each. Decides about nothing,
    /// and is worth calling where several messages are at hand, before the first is verified. Looks
    /// at the first 64 topics.
    pub fn fetch<'t>(&self, topics: impl IntoIterator<Item = &'t str>) {
        let mut expected = [None; FETCHED_TOGETHER];
        for (place, topic) in expected.iter_mut().zip(topics) {
            *place = self.registry.guess(topic);
        }
        for index in expected.into_iter().flatten() {
            self.registry.fetch(index);
            self.quotas.fetch(index);
        }
    }

    /// Runs checks 1 to 8 in order; the first that fails is the reason.
    ///
    /// # Errors
    /// The refusal. Once the MAC has held it names the further checks that fail too, except those
    /// of the replay guard, which sees only what has passed here.
    pub fn verify(
        &self,
        delivery: Unverified<Delivery<'_>>,
        now: Timestamp,
    ) -> Result<Verified<Message>, Refusal> {
        let delivery = delivery.into_untrusted();
        if delivery.payload.len() > self.max_payload_bytes {
            let detail = format!(
                "{} bytes, more than {}",
                delivery.payload.len(),
                self.max_payload_bytes
            );
            let device = self.registry.by_topic(delivery.topic).ok();
            return Err(Refusal::new(Reason::Oversize, device, detail));
        }
        match self.protection {
            Protection::Unprotected => unsigned::read(&self.registry, &delivery, now),
            Protection::Signed => {
                SCRATCH.with_borrow_mut(|scratch| self.verify_signed(&delivery, now, scratch))
            }
        }
        .map(Verified::attest)
    }

    fn verify_signed(
        &self,
        delivery: &Delivery<'_>,
        now: Timestamp,
        scratch: &mut Scratch,
    ) -> Result<Message, Refusal> {
        let by_topic = self.registry.by_topic(delivery.topic);
        let sender = match delivery.principal {
            // Mostly the topic's own device, and then there is nothing to look for.
            Principal::Certificate { id, .. } => by_topic
                .ok()
                .filter(|index| self.registry.device(*index).id == *id)
                .or_else(|| self.registry.by_id(id)),
            Principal::Anonymous | Principal::Broker => by_topic.ok(),
        };
        if !self.quotas.admit(sender, now) {
            let detail = "more messages than its quota allows";
            return Err(Refusal::new(Reason::RateLimited, sender, detail));
        }
        if delivery.retained {
            let detail = "a retained message says nothing about now";
            return Err(Refusal::new(Reason::Retained, by_topic.ok(), detail));
        }
        let index = by_topic
            .map_err(|reason| Refusal::new(reason, None, format!("topic {}", shown(delivery.topic))))?;
        let device = self.registry.device(index);
        let refuse = |reason, detail: String| Refusal::new(reason, Some(index), detail);
        if !device.enabled {
            let detail = format!("{} is disabled in the registry", device.id);
            return Err(refuse(Reason::DeviceDisabled, detail));
        }
        self.identity(delivery.principal, device)
            .map_err(|detail| refuse(Reason::IdentityMismatch, detail))?;

        let asked = Asked {
            delivery,
            index,
            device,
            now,
            policy: self.policy,
        };
        let signed = match &device.format {
            Format::JsonV1 => json_v1::check(&asked, scratch)?,
            Format::CoseV1 { channels } => cose_v1::check(&asked, channels)?,
            Format::CoseDetached => cose_v1::check_detached(&asked, &mut scratch.parser)?,
        };
        Ok(Message {
            device: Some(index),
            zone: Some(device.zone.clone()),
            reading: signed.reading,
            tag: signed.tag,
            epoch: signed.epoch,
            session: delivery.session,
            resumed: delivery.resumed,
            received_at: now,
            protection: Protection::Signed,
        })
    }

    /// Check 4. A certificate must be this very device's; where another broker stands between, its
    /// access control has tied certificate to topic.
    fn identity(&self, principal: &Principal, device: &Entry) -> Result<(), String> {
        match principal {
            Principal::Broker => Ok(()),
            Principal::Certificate {
                id,
                role: Role::Device,
            } if *id == device.id => Ok(()),
            Principal::Certificate { id, .. } => {
                Err(format!("the certificate is {id}'s, the topic {}'s", device.id))
            }
            Principal::Anonymous if self.anonymous => Ok(()),
            Principal::Anonymous => Err(format!("nobody proved to be {}", device.id)),
        }
    }
}

/// A message that has come as far as check 5.
struct Asked<'v> {
    delivery: &'v Delivery<'v>,
    index: DeviceIndex,
    device: &'v Entry,
    now: Timestamp,
    policy: GuardPolicy,
}

/// A message that has passed checks 5 to 8.
struct Signed {
    reading: Reading,
    epoch: KeyEpoch,
    tag: Tag,
}

impl Asked<'_> {
    fn refuse(&self, reason: Reason, detail: impl Into<String>) -> Refusal {
        Refusal::new(reason, Some(self.index), detail)
    }

    /// Check 6.
    fn key(&self, epoch: KeyEpoch) -> Result<&MacKey, Refusal> {
        let keys = &self.device.keys;
        keys.of(epoch)
            .map_err(|reason| self.refuse(reason, format!("key epoch {epoch}")))
    }

    /// Check 7 has failed.
    fn bad_mac(&self) -> Refusal {
        let detail = "the message was altered, or signed with another key";
        self.refuse(Reason::BadMac, detail)
    }

    /// Check 8 has failed: the MAC is the device's and the name is not.
    fn foreign(&self, claimed: &str) -> Refusal {
        let (claimed, own) = (shown(claimed), &self.device.message_id);
        let detail = format!("the message speaks for {claimed}, the topic for {own}");
        self.refuse(Reason::IdentityMismatch, detail)
    }

    /// Check 10, of a message that has failed check 8 already.
    fn lateness(&self, timestamp: Timestamp) -> Option<Reason> {
        self.policy.lateness(timestamp, self.now)
    }
}

/// Text from outside, short and without control characters.
fn shown(text: &str) -> String {
    text.chars()
        .take(MAX_SHOWN)
        .flat_map(char::escape_default)
        .collect()
}

#[cfg(test)]
mod tests;
