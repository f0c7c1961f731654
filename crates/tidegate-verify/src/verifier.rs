//! Checks 1 to 8: limits, topic, identity, format, key, MAC, schema.

use crate::delivery::{Delivery, SessionId};
use crate::guard::GuardPolicy;
use crate::quota::Quotas;
use crate::registry::{Device, Registry};
use crate::stage::{Unverified, Verified};
use crate::verdict::Refusal;
use std::cell::RefCell;
use std::sync::Arc;
use tidegate_envelope::id::{DeviceIndex, KeyEpoch, ZoneId};
use tidegate_envelope::json::{Document, Member, Parser};
use tidegate_envelope::json_v1;
use tidegate_envelope::key::Tag;
use tidegate_envelope::principal::{Principal, Role};
use tidegate_envelope::reading::Reading;
use tidegate_envelope::reason::Reason;
use tidegate_envelope::time::Timestamp;
use tidegate_envelope::unsigned;

/// Characters of a topic or a name from outside that a refusal repeats.
const MAX_SHOWN: usize = 80;

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
            Protection::Unprotected => self.read_unsigned(&delivery, now),
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
        Scratch { parser, canonical }: &mut Scratch,
    ) -> Result<Message, Refusal> {
        let by_topic = self.registry.by_topic(delivery.topic);
        let sender = match delivery.principal {
            Principal::Certificate { id, .. } => self.registry.by_id(id),
            Principal::Anonymous | Principal::Broker => by_topic.ok(),
        };
        if !self.quotas.admit(sender, now) {
            return Err(Refusal::new(
                Reason::RateLimited,
                sender,
                "more messages than its quota allows",
            ));
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
            return Err(refuse(
                Reason::DeviceDisabled,
                format!("{} is disabled in the registry", device.id),
            ));
        }
        self.identity(delivery.principal, device)
            .map_err(|detail| refuse(Reason::IdentityMismatch, detail))?;

        let document = parser
            .parse(delivery.payload)
            .map_err(|error| refuse(Reason::Malformed, error.to_string()))?;
        let reading = match json_v1::reading(&document) {
            Err(error) if error.reason() == Reason::Malformed => {
                return Err(refuse(Reason::Malformed, error.to_string()));
            }
            reading => reading,
        };
        let (epoch, tag) =
            signature(&document, device, canonical).map_err(|(reason, detail)| refuse(reason, detail))?;
        // Read from the document, since a message that fails its schema has no reading.
        let claimed = match document.members().find("device_id") {
            Some(Member::Text(claimed)) => Some(claimed),
            _ => None,
        };
        let foreign = claimed.filter(|claimed| *claimed != device.message_id.as_str());
        if let Some(claimed) = foreign {
            let claimed = shown(claimed);
            let detail = format!(
                "the message speaks for {claimed}, the topic for {}",
                device.message_id
            );
            let mut refusal = refuse(Reason::IdentityMismatch, detail);
            refusal
                .also
                .extend(reading.as_ref().err().map(|error| error.reason()));
            refusal.also.extend(self.lateness(&document, now));
            return Err(refusal);
        }
        let reading = reading.map_err(|error| {
            let mut refusal = refuse(error.reason(), error.to_string());
            refusal.also.extend(self.lateness(&document, now));
            refusal
        })?;
        Ok(Message {
            device: Some(index),
            zone: Some(device.zone.clone()),
            reading,
            tag,
            epoch,
            session: delivery.session,
            received_at: now,
            protection: Protection::Signed,
        })
    }

    /// Takes whatever can be read: nothing proves who wrote it.
    fn read_unsigned(&self, delivery: &Delivery<'_>, now: Timestamp) -> Result<Message, Refusal> {
        let by_topic = self.registry.by_topic(delivery.topic);
        let older_zone = self.registry.topics().older_zone(delivery.topic);
        if by_topic == Err(Reason::TopicInvalid) && older_zone.is_none() {
            return Err(Refusal::new(
                Reason::TopicInvalid,
                None,
                format!("topic {}", shown(delivery.topic)),
            ));
        }
        let document = Document::parse(delivery.payload)
            .map_err(|error| Refusal::new(Reason::Malformed, by_topic.ok(), error.to_string()))?;
        let said = unsigned::reading(&document);
        let by_message = || {
            said.reading
                .device
                .as_ref()
                .and_then(|id| self.registry.by_message_id(id))
        };
        let device = by_topic.ok().or_else(by_message);
        let zone = match device {
            Some(index) => Some(self.registry.device(index).zone.clone()),
            None => older_zone
                .or(said.zone.as_deref())
                .and_then(|zone| ZoneId::new(zone).ok()),
        };
        Ok(Message {
            device,
            zone,
            reading: said.reading,
            tag: Tag([0; 32]),
            epoch: KeyEpoch(0),
            session: delivery.session,
            received_at: now,
            protection: Protection::Unprotected,
        })
    }

    /// Check 4. A certificate must be this very device's; where another broker stands between, its
    /// access control has tied certificate to topic.
    fn identity(&self, principal: &Principal, device: &Device) -> Result<(), String> {
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

    /// Check 10 of a message that has failed check 8 already.
    fn lateness(&self, document: &Document<'_>, now: Timestamp) -> Option<Reason> {
        match document.members().find("timestamp") {
            Some(Member::Text(text)) => self.policy.lateness(Timestamp::parse_rfc3339(text)?, now),
            _ => None,
        }
    }
}

/// Text from outside, short and without control characters.
fn shown(text: &str) -> String {
    text.chars()
        .take(MAX_SHOWN)
        .flat_map(char::escape_default)
        .collect()
}

/// Checks 6 and 7: which of the device's keys signed this?
fn signature(
    document: &Document<'_>,
    device: &Device,
    canonical: &mut Vec<u8>,
) -> Result<(KeyEpoch, Tag), (Reason, String)> {
    let named = json_v1::epoch(document).map_err(|error| (Reason::UnknownKey, error.to_string()))?;
    let mut keys = device.keys.as_slice();
    if let Some(named) = named {
        let position = keys
            .iter()
            .position(|(epoch, _)| *epoch == named)
            .ok_or_else(|| {
                let retired = keys.first().is_some_and(|(oldest, _)| named < *oldest);
                let reason = if retired {
                    Reason::KeyRetired
                } else {
                    Reason::UnknownKey
                };
                (reason, format!("key epoch {named}"))
            })?;
        keys = &keys[position..=position];
    }
    let Some(hmac) = document.hmac() else {
        return Err((Reason::MissingMac, "no member `hmac`".into()));
    };
    canonical.clear();
    document.canonical(canonical);
    // Newest first: during a rotation that is the one in use.
    let verified = keys
        .iter()
        .rev()
        .find_map(|(epoch, key)| Some((*epoch, key.verified(canonical, hmac)?)));
    verified.ok_or_else(|| {
        (
            Reason::BadMac,
            "the message was altered, or signed with another key".into(),
        )
    })
}

#[cfg(test)]
mod tests;
