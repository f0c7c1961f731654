//! Events in words: what happened to a message or a connection, for the page and the database.

use bytes::Bytes;
use tidegate_broker::SecurityEvent;
use tidegate_detect::detector::Assessment;
use tidegate_detect::explain::Explanation;
use tidegate_enroll::event::{Event as Enrollment, Given, What};
use tidegate_envelope::id::{DeviceId, DeviceIndex, ZoneId};
use tidegate_envelope::principal::Principal;
use tidegate_envelope::reason::Reason;
use tidegate_envelope::time::Timestamp;
use tidegate_lab::attack::Attack;
use tidegate_store::event::{Event, Outcome};
use tidegate_verify::guard::Admission;
use tidegate_verify::registry::Registry;
use tidegate_verify::stage::Fresh;
use tidegate_verify::verdict::{Notice, Refusal};

/// Where a message came from; kept beside it until its fate is known.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) topic: String,
    pub(super) source: String,
    pub(super) payload: Bytes,
    /// Another broker delivered it, and will again unless it is acknowledged.
    pub(super) redelivered: bool,
}

/// A refused message.
pub(super) fn refused(registry: &Registry, refusal: &Refusal, origin: &Origin, now: Timestamp) -> Event {
    let mut event = Event::new(now, Outcome::Blocked, None);
    event.reason = Some(refusal.reason);
    event.also.clone_from(&refusal.also);
    event.detail.clone_from(&refusal.detail);
    place(&mut event, registry, refusal.device);
    from(&mut event, origin);
    event.raw = Some(origin.payload.to_vec());
    event
}

/// An accepted reading, flagged or not.
pub(super) fn accepted(
    registry: &Registry,
    admission: &Fresh<Admission>,
    assessment: Option<&Assessment>,
    origin: &Origin,
    protected: bool,
) -> Event {
    let message = &admission.get().message;
    let flagged = assessment.is_some_and(|assessment| assessment.flagged);
    let outcome = if flagged {
        Outcome::Flagged
    } else {
        Outcome::Accepted
    };
    let mut event = Event::new(message.received_at, outcome, None);
    place(&mut event, registry, message.device);
    from(&mut event, origin);
    if event.zone.is_none() {
        event.zone.clone_from(&message.zone);
    }
    let reading = &message.reading;
    event.protected = protected;
    event.sequence = reading.sequence.map(|sequence| sequence.get());
    event.boot = reading.boot;
    event.timestamp = reading.timestamp;
    event.status = reading.status.to_string();
    event.channels = reading.channels.clone();
    if let Some(assessment) = assessment {
        event.score = Some(assessment.score);
        if let Some(explanation) = &assessment.reason {
            event.detail.clone_from(&explanation.sentence);
            let number = |value: f64| format!("{value:.2} {}", explanation.unit);
            let seen = explanation.seen.map(number).unwrap_or_default();
            event.expected = Some(format!("{}, seen {seen}", number(explanation.expected)));
        }
    }
    if flagged {
        event.reason = Some(Reason::Anomaly);
        event.raw = Some(origin.payload.to_vec());
    }
    event
}

/// A device that has said nothing for longer than the rules allow.
pub(super) fn silent(registry: &Registry, device: DeviceIndex, why: &Explanation, now: Timestamp) -> Event {
    let mut event = Event::new(now, Outcome::Flagged, Some(Reason::Anomaly));
    place(&mut event, registry, Some(device));
    event.detail.clone_from(&why.sentence);
    event
}

/// The reason that would have stopped an attack of the demo, had its layer been on.
///
/// Only the demo may ask: its attackers have client ids of their own, as no real one would.
pub(super) fn got_in(origin: &Origin) -> Option<Reason> {
    let client_id = origin.source.split(' ').next().unwrap_or_default();
    Attack::by_client_id(client_id).map(Attack::stopped_by)
}

/// What is worth showing about an accepted message.
pub(super) fn notices<'a>(
    registry: &'a Registry,
    admission: &'a Fresh<Admission>,
    origin: &'a Origin,
) -> impl Iterator<Item = Event> + 'a {
    let admission = admission.get();
    admission.notices.iter().map(move |notice| {
        let mut event = Event::new(admission.message.received_at, Outcome::Notice, None);
        place(&mut event, registry, admission.message.device);
        from(&mut event, origin);
        event.sequence = admission.message.reading.sequence.map(|sequence| sequence.get());
        let (reason, detail) = match notice {
            Notice::Gap { missing: 1 } => (Reason::Gap, "1 message before this one never arrived".to_owned()),
            Notice::Gap { missing } => (
                Reason::Gap,
                format!("{missing} messages before this one never arrived"),
            ),
            Notice::PublisherRestart => (
                Reason::PublisherRestart,
                "the publisher started again and counts from the beginning".to_owned(),
            ),
            Notice::ClockRollback { by_ms } => (
                Reason::ClockRollback,
                format!(
                    "this machine's clock was set back by {:.1} s",
                    *by_ms as f64 / 1_000.0
                ),
            ),
        };
        event.reason = Some(reason);
        event.detail = detail;
        event
    })
}

/// Messages that could not be made durable; `origin` is that of one of them.
pub(super) fn storage_unavailable(
    messages: usize,
    error: &str,
    origin: Option<&Origin>,
    now: Timestamp,
) -> Event {
    let mut event = Event::new(now, Outcome::Blocked, None);
    event.reason = Some(Reason::StorageUnavailable);
    event.detail = format!("{messages} messages were not accepted: {error}");
    if let Some(origin) = origin {
        from(&mut event, origin);
    }
    event
}

/// The database can be written again.
pub(super) fn storage_available(messages: usize, seconds: f64, now: Timestamp) -> Event {
    let mut event = Event::new(now, Outcome::Notice, None);
    event.reason = Some(Reason::StorageUnavailable);
    event.detail = format!(
        "the database can be written again, after {seconds:.1} s in which {messages} messages were not accepted"
    );
    event
}

/// What the broker saw of a connection.
pub(super) fn security(registry: &Registry, observed: &SecurityEvent, now: Timestamp) -> Event {
    let mut event = Event::new(now, Outcome::Blocked, None);
    event.reason = Some(observed.reason);
    if let Some(Principal::Certificate { id, .. }) = &observed.principal {
        event.device = Some(id.clone());
        place(&mut event, registry, registry.by_id(id));
    }
    event.topic = observed
        .topic
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    event.source = match &observed.client_id {
        Some(client_id) => format!("{client_id} at {}", observed.peer),
        None => observed.peer.to_string(),
    };
    event.detail.clone_from(&observed.detail);
    if observed.left_out > 0 {
        event.detail = format!("{} (and {} more like it)", event.detail, observed.left_out);
    }
    event
}

/// Something that nobody sent, and that somebody should know.
pub(crate) fn notice(reason: Reason, detail: String, now: Timestamp) -> Event {
    let mut event = Event::new(now, Outcome::Notice, Some(reason));
    event.detail = detail;
    event
}

/// What the enrolment service did for a device, or refused to somebody.
pub(crate) fn enrollment(registry: &Registry, observed: &Enrollment) -> Event {
    let given = |verb: &str, given: &Given| {
        let detail = format!(
            "{verb}, serial number {}, valid until {}",
            given.serial, given.not_after
        );
        notice(Reason::CertificateIssued, detail, observed.at)
    };
    let mut event = match &observed.what {
        What::Enrolled(certificate) => given("enrolled with a token", certificate),
        What::Renewed(certificate) => given("renewed", certificate),
        What::Refused(refusal) => Event {
            detail: format!("enrolment: {refusal}"),
            ..Event::new(observed.at, Outcome::Blocked, Some(refusal.reason()))
        },
    };
    if let Some(id) = &observed.device {
        match registry.by_id(id) {
            // Refused ones only claim to be it, and it concerns it all the same.
            Some(device) => place(&mut event, registry, Some(device)),
            None => event.detail = format!("{} (as `{id}`)", event.detail),
        }
    }
    event.source = format!("enrolment at {}", observed.peer);
    event
}

/// Another origin's page, or a request under a foreign host name, at the web server's door.
pub(crate) fn origin_denied(detail: String, now: Timestamp) -> Event {
    let mut event = Event::new(now, Outcome::Blocked, None);
    event.reason = Some(Reason::OriginDenied);
    event.detail = detail;
    event
}

fn place(event: &mut Event, registry: &Registry, device: Option<DeviceIndex>) {
    if let Some(device) = device.map(|index| registry.device(index)) {
        let (id, zone): (&DeviceId, &ZoneId) = (&device.id, &device.zone);
        event.device = Some(id.clone());
        event.zone = Some(zone.clone());
    }
}

fn from(event: &mut Event, origin: &Origin) {
    event.topic.clone_from(&origin.topic);
    event.source.clone_from(&origin.source);
}
