//! Checks 1 to 5 of a question for the time, which is no reading, and its answers.

use super::{Protection, Verifier, shown};
use crate::delivery::Delivery;
use crate::stage::Unverified;
use crate::verdict::Refusal;
use tidegate_envelope::id::DeviceIndex;
use tidegate_envelope::reason::Reason;
use tidegate_envelope::time::Timestamp;
use tidegate_envelope::time_echo;

/// Longest question in bytes; the usual spelling has [`time_echo::REQUEST_BYTES`].
const MAX_QUESTION_BYTES: usize = 256;

impl Verifier {
    /// The answers to a question for the time, each saying that it is `now`; `None` where the
    /// message is no question, or where nothing is signed.
    ///
    /// One answer for each key that is taken from the device: which one it holds is not known while
    /// its keys are being rotated, and a device without a clock cannot send before it has the time.
    ///
    /// # Errors
    /// Nobody else may ask in a device's name, though an answer says nothing secret: questions
    /// count for its quota.
    pub fn answers(
        &self,
        delivery: Unverified<Delivery<'_>>,
        now: Timestamp,
    ) -> Option<Result<Vec<Vec<u8>>, Refusal>> {
        let delivery = delivery.into_untrusted();
        match self.registry.by_time_topic(delivery.topic) {
            Err(Reason::TopicInvalid) => None,
            _ if self.protection == Protection::Unprotected => None,
            Err(reason) => {
                let detail = format!("topic {}", shown(delivery.topic));
                Some(Err(Refusal::new(reason, None, detail)))
            }
            Ok(index) => Some(self.answer(&delivery, index, now)),
        }
    }

    fn answer(
        &self,
        delivery: &Delivery<'_>,
        index: DeviceIndex,
        now: Timestamp,
    ) -> Result<Vec<Vec<u8>>, Refusal> {
        let refuse = |reason, detail: String| Refusal::new(reason, Some(index), detail);
        let length = delivery.payload.len();
        if length > MAX_QUESTION_BYTES {
            let detail = format!("a question of {length} bytes, more than {MAX_QUESTION_BYTES}");
            return Err(refuse(Reason::Oversize, detail));
        }
        let device = self.registry.device(index);
        self.identity(delivery.principal, device)
            .map_err(|detail| refuse(Reason::IdentityMismatch, detail))?;
        // After the check of identity: else everybody could use up everybody's quota by asking.
        if !self.quotas.admit(Some(index), now) {
            return Err(refuse(
                Reason::RateLimited,
                "more messages than its quota allows".into(),
            ));
        }
        if delivery.retained {
            return Err(refuse(
                Reason::Retained,
                "a retained question is not from now".into(),
            ));
        }
        if !device.enabled {
            let detail = format!("{} is disabled in the registry", device.id);
            return Err(refuse(Reason::DeviceDisabled, detail));
        }
        let nonce = time_echo::parse_request(delivery.payload)
            .ok_or_else(|| refuse(Reason::Malformed, "no question for the time".into()))?;
        let answer = |(epoch, key)| time_echo::answer(&nonce, &device.id, now, epoch, key);
        Ok(device.keys.all().map(answer).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::SessionId;
    use crate::testing::{NOW, device, key, with_devices};
    use std::sync::Arc;
    use tidegate_envelope::id::{DeviceId, KeyEpoch};
    use tidegate_envelope::principal::{Principal, Role};
    use tidegate_envelope::time_echo::Nonce;

    const NONCE: Nonce = Nonce([7; 16]);
    const TOPIC: &str = "hydroficient/grandmarina/device-001/time";

    fn id(number: u32) -> DeviceId {
        DeviceId::new(&format!("device-{number:03}")).unwrap()
    }

    fn certificate(number: u32) -> Principal {
        Principal::Certificate {
            id: id(number),
            role: Role::Device,
        }
    }

    /// Two devices: the first is rotating its key, the second is disabled.
    fn verifier(protection: Protection) -> Verifier {
        let mut rotating = device(1);
        rotating.keys.push((KeyEpoch(1), key(&rotating.id, 1)));
        rotating.quota_per_s = 1;
        let mut disabled = device(2);
        disabled.enabled = false;
        Verifier::new(
            Arc::new(with_devices(vec![rotating, disabled])),
            protection,
            1_024,
        )
    }

    fn asked(
        topic: &str,
        payload: &[u8],
        retained: bool,
        principal: &Principal,
    ) -> Option<Result<usize, Reason>> {
        let answers =
            verifier(Protection::Signed).answers(question(topic, payload, retained, principal), NOW)?;
        Some(
            answers
                .map(|answers| answers.len())
                .map_err(|refusal| refusal.reason),
        )
    }

    fn question<'a>(
        topic: &'a str,
        payload: &'a [u8],
        retained: bool,
        principal: &'a Principal,
    ) -> Unverified<Delivery<'a>> {
        Unverified::new(Delivery {
            topic,
            payload,
            retained,
            principal,
            session: SessionId(1),
            resumed: false,
            detached: None,
        })
    }

    #[test]
    fn device_gets_the_time_under_each_key_that_it_may_hold() {
        let principal = certificate(1);
        let payload = time_echo::request(&NONCE);
        let answers = verifier(Protection::Signed)
            .answers(question(TOPIC, &payload, false, &principal), NOW)
            .unwrap()
            .unwrap();
        let [newest, older] = &answers[..] else {
            panic!("{} answers", answers.len())
        };
        for (answer, epoch) in [(newest, 1), (older, 0)] {
            let check = |epoch: u16| {
                time_echo::check_answer(answer, &NONCE, &id(1), KeyEpoch(epoch), &key(&id(1), epoch))
            };
            assert_eq!(check(epoch), Some(NOW));
            assert_eq!(check(1 - epoch), None);
        }
    }

    #[test]
    fn question_one_step_away_is_refused_by_its_reason() {
        let (own, other) = (certificate(1), certificate(2));
        let right = time_echo::request(&NONCE);
        let largest = |length: usize| [&right[..], &vec![b' '; length - right.len()]].concat();
        assert_eq!(asked(TOPIC, &right, false, &own), Some(Ok(2)));
        assert_eq!(asked(TOPIC, &right, false, &Principal::Broker), Some(Ok(2)));
        assert_eq!(
            asked(TOPIC, &largest(MAX_QUESTION_BYTES), false, &own),
            Some(Ok(2))
        );
        let unknown = TOPIC.replace("001", "009");
        let disabled = TOPIC.replace("001", "002");
        for (topic, payload, retained, principal, reason) in [
            (TOPIC, &right[..], false, &other, Reason::IdentityMismatch),
            (
                TOPIC,
                &right,
                false,
                &Principal::Anonymous,
                Reason::IdentityMismatch,
            ),
            (TOPIC, &right, true, &own, Reason::Retained),
            (TOPIC, &right[1..], false, &own, Reason::Malformed),
            (
                TOPIC,
                &largest(MAX_QUESTION_BYTES + 1),
                false,
                &own,
                Reason::Oversize,
            ),
            (&unknown, &right, false, &own, Reason::UnknownDevice),
            (&disabled, &right, false, &other, Reason::DeviceDisabled),
        ] {
            assert_eq!(
                asked(topic, payload, retained, principal),
                Some(Err(reason)),
                "{reason}"
            );
        }
    }

    #[test]
    fn other_topics_and_levels_without_signatures_have_no_questions() {
        let (principal, payload) = (certificate(1), time_echo::request(&NONCE));
        let telemetry = TOPIC.replace("/time", "/sensors");
        assert_eq!(asked(&telemetry, &payload, false, &principal), None);
        let unsigned = verifier(Protection::Unprotected);
        assert!(
            unsigned
                .answers(question(TOPIC, &payload, false, &principal), NOW)
                .is_none()
        );
    }

    #[test]
    fn questions_count_for_the_quota_and_those_of_others_do_not() {
        let (own, other) = (certificate(1), certificate(2));
        let payload = time_echo::request(&NONCE);
        let verifier = verifier(Protection::Signed);
        let ask = |principal| {
            let answers = verifier
                .answers(question(TOPIC, &payload, false, principal), NOW)
                .unwrap();
            answers.map_err(|refusal| refusal.reason).map(drop)
        };
        for _ in 0..10 {
            assert_eq!(ask(&other), Err(Reason::IdentityMismatch));
        }
        let taken = (0..10).take_while(|_| ask(&own).is_ok()).count();
        assert!((1..10).contains(&taken), "{taken}");
        assert_eq!(ask(&own), Err(Reason::RateLimited));
    }
}
