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
mod tests {
    use super::*;
    use crate::testing::{NOW, Said, device, key, registry, topic, with_devices};
    use tidegate_envelope::id::DeviceId;

    const MAX: usize = 65_536;

    fn principal(number: u32, role: Role) -> Principal {
        Principal::Certificate {
            id: DeviceId::new(&format!("device-{number:03}")).unwrap(),
            role,
        }
    }

    /// What becomes of `payload` on `topic` from `principal`.
    fn check(
        registry: Registry,
        topic: &str,
        payload: &[u8],
        principal: &Principal,
    ) -> Result<Message, Reason> {
        let verifier = Verifier::new(Arc::new(registry), Protection::Signed, MAX);
        let delivery = Delivery {
            topic,
            payload,
            retained: false,
            principal,
            session: SessionId(1),
        };
        let verdict = verifier.verify(Unverified::new(delivery), NOW);
        verdict
            .map(Verified::into_inner)
            .map_err(|refusal| refusal.reason)
    }

    fn payload() -> Vec<u8> {
        Said::at(1, NOW).signed()
    }

    #[test]
    fn genuine_message_passes_and_one_step_away_is_refused_in_order() {
        let own = principal(1, Role::Device);
        let accepted = check(registry(2), &topic(1), &payload(), &own).unwrap();
        assert_eq!(accepted.device, Some(DeviceIndex(0)));
        assert!(check(registry(2), &topic(1), &payload(), &Principal::Broker).is_ok());

        let text = String::from_utf8(payload()).unwrap();
        let altered = |from: &str, to: &str| text.replace(from, to).into_bytes();
        let mut disabled = device(1);
        disabled.enabled = false;
        let other = Said {
            device: 2,
            ..Said::at(1, NOW)
        }
        .signed();
        let cases: Vec<(Registry, String, Vec<u8>, Principal, Reason)> = vec![
            (
                registry(2),
                "elsewhere".into(),
                payload(),
                own.clone(),
                Reason::TopicInvalid,
            ),
            (
                registry(2),
                topic(3),
                payload(),
                own.clone(),
                Reason::UnknownDevice,
            ),
            (
                with_devices(vec![disabled]),
                topic(1),
                payload(),
                own.clone(),
                Reason::DeviceDisabled,
            ),
            (
                registry(2),
                topic(2),
                payload(),
                own.clone(),
                Reason::IdentityMismatch,
            ),
            (
                registry(2),
                topic(1),
                payload(),
                principal(1, Role::Gateway),
                Reason::IdentityMismatch,
            ),
            (
                registry(2),
                topic(1),
                payload(),
                Principal::Anonymous,
                Reason::IdentityMismatch,
            ),
            (
                registry(2),
                topic(1),
                b"[]".to_vec(),
                own.clone(),
                Reason::Malformed,
            ),
            (
                registry(2),
                topic(1),
                altered("\"sequence\": 1", "\"sequence\": 1.0"),
                own.clone(),
                Reason::Malformed,
            ),
            (
                registry(2),
                topic(1),
                altered("50.0", "50.1"),
                own.clone(),
                Reason::BadMac,
            ),
            (
                registry(2),
                topic(1),
                altered("hmac", "mac"),
                own.clone(),
                Reason::MissingMac,
            ),
            (
                registry(2),
                topic(1),
                Said {
                    epoch: Some(1),
                    ..Said::at(1, NOW)
                }
                .signed(),
                own.clone(),
                Reason::UnknownKey,
            ),
            (
                registry(2),
                topic(1),
                altered("\"status\"", "\"kid\": 70000, \"status\""),
                own.clone(),
                Reason::UnknownKey,
            ),
            // A device that signs with its own key in another's name reaches check 8 only with that key.
            (registry(2), topic(1), other, own, Reason::BadMac),
        ];
        for (position, (registry, topic, payload, principal, reason)) in cases.into_iter().enumerate() {
            let verdict = check(registry, &topic, &payload, &principal);
            assert_eq!(
                verdict.map(|message| message.device),
                Err(reason),
                "case {position}"
            );
        }
    }

    #[test]
    fn signed_message_with_foreign_id_or_missing_member_is_refused_after_its_mac() {
        let id = DeviceId::new("device-001").unwrap();
        let sign = |body: &str| {
            let unsigned = Document::parse(body.as_bytes()).unwrap();
            let mut canonical = Vec::new();
            unsigned.canonical(&mut canonical);
            let tag = key(&id, 0).mac(&canonical);
            body.replacen('{', &format!("{{\"hmac\": \"{tag}\", "), 1)
                .into_bytes()
        };
        let foreign = r#"{"device_id": "HYDROLOGIC-Device-002", "timestamp": "2026-02-19T03:35:05Z", "sequence": 1, "readings": {}}"#;
        let incomplete =
            r#"{"device_id": "HYDROLOGIC-Device-001", "timestamp": "2026-02-19T03:35:05Z", "sequence": 1}"#;
        let verdict = |body| {
            check(registry(2), &topic(1), &sign(body), &Principal::Broker).map(|message| message.device)
        };
        assert_eq!(verdict(foreign), Err(Reason::IdentityMismatch));
        assert_eq!(verdict(incomplete), Err(Reason::BadSchema));
    }

    #[test]
    fn both_epochs_of_a_rotation_are_taken_and_an_older_one_is_retired() {
        let mut rotating = device(1);
        let id = rotating.id.clone();
        rotating.keys = vec![(KeyEpoch(1), key(&id, 1)), (KeyEpoch(2), key(&id, 2))];
        let verdict = |epoch| {
            let payload = Said {
                epoch,
                ..Said::at(1, NOW)
            }
            .signed();
            let registry = with_devices(vec![rotating.clone()]);
            check(registry, &topic(1), &payload, &Principal::Broker).map(|message| message.epoch)
        };
        assert_eq!(verdict(Some(1)), Ok(KeyEpoch(1)));
        assert_eq!(verdict(Some(2)), Ok(KeyEpoch(2)));
        assert_eq!(verdict(Some(0)), Err(Reason::KeyRetired));
        assert_eq!(verdict(Some(3)), Err(Reason::UnknownKey));
    }

    #[test]
    fn retained_oversize_and_too_many_are_refused_before_anything_is_read() {
        let registry = Arc::new(registry(1));
        let verifier = Verifier::new(registry, Protection::Signed, 64);
        let payload = payload();
        let (topic, junk) = (topic(1), [b'['; 64]);
        let mut delivery = Delivery {
            topic: &topic,
            payload: &payload,
            retained: true,
            principal: &Principal::Broker,
            session: SessionId(1),
        };
        let reason = |delivery| {
            verifier
                .verify(Unverified::new(delivery), NOW)
                .unwrap_err()
                .reason
        };
        assert_eq!(reason(delivery), Reason::Oversize);
        delivery.payload = &junk;
        assert_eq!(reason(delivery), Reason::Retained);
        delivery.retained = false;
        assert_eq!(reason(delivery), Reason::Malformed);
        for _ in 0..998 {
            reason(delivery);
        }
        assert_eq!(reason(delivery), Reason::RateLimited);
    }

    #[test]
    fn anonymous_sender_is_taken_only_where_it_was_allowed_and_only_with_a_mac() {
        let registry = Arc::new(registry(1));
        let strict = Verifier::new(Arc::clone(&registry), Protection::Signed, MAX);
        let open = Verifier::new(registry, Protection::Signed, MAX).dangerous_allow_anonymous();
        let (topic, payload) = (topic(1), payload());
        let forged = String::from_utf8(payload.clone())
            .unwrap()
            .replace("50.0", "50.1");
        let reason = |verifier: &Verifier, payload: &[u8], principal: &Principal| {
            let delivery = Delivery {
                topic: &topic,
                payload,
                retained: false,
                principal,
                session: SessionId(1),
            };
            let verdict = verifier.verify(Unverified::new(delivery), NOW);
            verdict.err().map(|refusal| refusal.reason)
        };
        let nobody = Principal::Anonymous;
        assert_eq!(reason(&strict, &payload, &nobody), Some(Reason::IdentityMismatch));
        assert_eq!(reason(&open, &payload, &nobody), None);
        assert_eq!(reason(&open, forged.as_bytes(), &nobody), Some(Reason::BadMac));
        let other = principal(2, Role::Device);
        assert_eq!(reason(&open, &payload, &other), Some(Reason::IdentityMismatch));
    }

    #[test]
    fn refusal_repeats_a_foreign_topic_shortened_and_escaped() {
        let verifier = Verifier::new(Arc::new(registry(1)), Protection::Signed, MAX);
        let topic = format!("\u{1b}[2J{}", "a".repeat(60_000));
        let delivery = Delivery {
            topic: &topic,
            payload: b"{}",
            retained: false,
            principal: &Principal::Broker,
            session: SessionId(1),
        };
        let refusal = verifier.verify(Unverified::new(delivery), NOW).unwrap_err();
        assert!(
            refusal.detail.starts_with("topic \\u{1b}[2Ja"),
            "{}",
            refusal.detail
        );
        assert!(refusal.detail.len() < 2 * MAX_SHOWN, "{}", refusal.detail.len());
    }

    #[test]
    fn unprotected_levels_take_unsigned_and_forged_messages_but_not_junk() {
        let verifier = Verifier::new(Arc::new(registry(1)), Protection::Unprotected, MAX);
        let verdict = |topic: &str, payload: &[u8]| {
            let principal = &Principal::Anonymous;
            let delivery = Delivery {
                topic,
                payload,
                retained: true,
                principal,
                session: SessionId(1),
            };
            let verdict = verifier.verify(Unverified::new(delivery), NOW);
            verdict
                .map(Verified::into_inner)
                .map_err(|refusal| refusal.reason)
        };
        let forged = br#"{"device_id": "HYDROLOGIC-Device-001", "flow_rate": 1, "hmac": "no"}"#;
        assert_eq!(verdict(&topic(1), forged).unwrap().device, Some(DeviceIndex(0)));
        let older = verdict(
            "grandmarina/sensors/kitchen/telemetry",
            br#"{"payload": {"pressure_psi": 60}}"#,
        )
        .unwrap();
        assert_eq!((older.device, older.zone), (None, ZoneId::new("kitchen").ok()));
        assert_eq!(verdict(&topic(9), forged).unwrap().device, Some(DeviceIndex(0)));
        assert_eq!(verdict("elsewhere", forged).unwrap_err(), Reason::TopicInvalid);
        assert_eq!(verdict(&topic(1), b"junk").unwrap_err(), Reason::Malformed);
    }
}
