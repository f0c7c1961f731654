//! CONNECT: who the client is, what it may do, and which session it gets.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use bytestring::ByteString;
use futures_util::stream::FuturesOrdered;
use rmqtt_codec::v5::{ConnectAck, ConnectAckReason};
use tidegate_envelope::principal::Principal;
use tidegate_envelope::reason::Reason;
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use crate::acl::{Access, Rights};
use crate::connection::{Clock, Connection, FIRST_READ_BYTES, Link, say};
use crate::filter::is_topic_name;
use crate::info::TlsInfo;
use crate::limits::Place;
use crate::message::{owned, too_many_user_properties};
use crate::router::RouteMemory;
use crate::session::{About, Leash, stable_id};
use crate::sessions::ClaimError;
use crate::shared::{Shared, Who, count};
use crate::tls::{Certificate, now};
use crate::wire::{Connect, Will, Wire, WireError};

/// Longest client id, in bytes.
const MAX_CLIENT_ID_BYTES: usize = 256;

/// Time that a newcomer waits for the connection that holds its session to let go, beside the
/// time that this one has for publishes in flight.
const TAKE_OVER_MARGIN: Duration = Duration::from_secs(2);

/// A socket past its TLS handshake, if it has one.
pub(crate) struct Arrival {
    pub(crate) link: Link,
    pub(crate) who: Who,
    pub(crate) principal: Arc<Principal>,
    pub(crate) certificate: Option<Certificate>,
    pub(crate) tls: Option<TlsInfo>,
    /// Which TLS configuration the client was checked under.
    pub(crate) tls_generation: Option<u64>,
    pub(crate) access: Access,
    pub(crate) place: Place,
}

/// A client's opening words.
pub(crate) struct Opening {
    wire: Wire,
    connect: Connect,
    /// What came after the CONNECT.
    rest: BytesMut,
}

/// A refusal: the code for the client, and the event for the defender.
struct Refusal {
    code: ConnectAckReason,
    event: Option<(Reason, Option<ByteString>, String)>,
}

impl Refusal {
    fn silent(code: ConnectAckReason) -> Self {
        Self { code, event: None }
    }

    fn event(
        code: ConnectAckReason,
        reason: Reason,
        topic: Option<&ByteString>,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            code,
            event: Some((reason, topic.cloned(), detail.into())),
        }
    }

    fn revoked() -> Self {
        Self::event(
            ConnectAckReason::NotAuthorized,
            Reason::TlsRevoked,
            None,
            "the certificate was revoked since its TLS handshake began",
        )
    }
}

impl Arrival {
    /// Reads the CONNECT. `None` when the socket closed, or said something else, which is
    /// reported here. The caller keeps the deadline.
    pub(crate) async fn read_opening(&mut self, shared: &Shared) -> Option<Opening> {
        let mut input = BytesMut::with_capacity(FIRST_READ_BYTES);
        loop {
            match Wire::open(&mut input, shared.limits.max_packet_bytes()) {
                Ok(Some((wire, connect))) => {
                    return Some(Opening {
                        wire,
                        connect,
                        rest: input,
                    });
                }
                Ok(None) => {}
                Err(error) => {
                    let reason = match error {
                        WireError::TooLong { .. } => Reason::Oversize,
                        _ => Reason::MqttMalformed,
                    };
                    shared.report(reason, &self.who, None, error.to_string());
                    if let WireError::NoClientId { answer } = error {
                        say(&mut self.link, answer).await;
                    }
                    return None;
                }
            }
            match self.link.read_buf(&mut input).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Answers the CONNECT. `None` when it was refused.
    pub(crate) async fn establish(mut self, shared: Arc<Shared>, opening: Opening) -> Option<Connection> {
        let Opening {
            mut wire,
            mut connect,
            rest,
        } = opening;
        let assigned = connect.client_id.is_empty();
        connect.client_id = if assigned {
            assign_client_id()
        } else {
            owned(&connect.client_id)
        };
        self.who.client_id = Some(connect.client_id.clone());
        if !shared.rates.admits(&self.principal) {
            let refusal = Refusal::event(
                ConnectAckReason::ConnectionRateExceeded,
                Reason::ConnectionLimit,
                None,
                "this certificate connects more often than it may",
            );
            self.turn_away(&shared, &mut wire, refusal).await;
            return None;
        }
        let rights = match examine(&shared, &self, &connect, &wire) {
            Ok(rights) => rights,
            Err(refusal) => {
                self.turn_away(&shared, &mut wire, refusal).await;
                return None;
            }
        };
        let (serial, valid_for) = match self.certificate.take() {
            Some(Certificate { serial, valid_for }) => (serial, Some(valid_for)),
            None => (Box::default(), None),
        };
        let leash = Arc::new(Leash::new(About {
            serial,
            peer: self.who.peer,
            since: now(),
            tls: self.tls,
        }));
        let wait = shared.limits.drain_within + TAKE_OVER_MARGIN;
        let claimed = shared
            .sessions
            .claim(
                &connect.client_id,
                &self.principal,
                connect.clean_start,
                &leash,
                wait,
            )
            .await;
        let claim = match claimed {
            Ok(claim) => claim,
            Err(error) => {
                let refusal = if shared.is_revoked(&leash.about) {
                    Refusal::revoked()
                } else {
                    claim_refusal(error)
                };
                self.turn_away(&shared, &mut wire, refusal).await;
                return None;
            }
        };
        if claim.took_over {
            let detail = "a second connection of the same principal took over the client id";
            shared.report(Reason::SessionTakeover, &self.who, None, detail);
        }
        let asked = Duration::from_secs(u64::from(connect.session_expiry_s));
        let session_expiry = asked.min(shared.limits.max_session_expiry);
        // The session is in the table now. A TLS configuration or a revocation from before this
        // moment shows here, and an identity shut out after it is found in the table: no client
        // that was checked under a superseded revocation list slips between the two.
        let superseded = self
            .tls_generation
            .is_some_and(|generation| generation != shared.tls().generation);
        let refusal = if shared.is_revoked(&leash.about) {
            Some(Refusal::revoked())
        } else {
            superseded.then(|| Refusal::silent(ConnectAckReason::ServerUnavailable))
        };
        if let Some(refusal) = refusal {
            shared
                .sessions
                .release(&claim.session, claim.flow, &leash, session_expiry, None);
            self.turn_away(&shared, &mut wire, refusal).await;
            return None;
        }
        claim.session.mailbox.attach();
        count(&shared.counters.accepted, 1);
        let mut output = BytesMut::new();
        let granted = ConnectAck {
            session_present: claim.resumed,
            session_expiry_interval_secs: (asked > session_expiry)
                .then(|| u32::try_from(session_expiry.as_secs()).unwrap_or(u32::MAX)),
            receive_max: NonZeroU16::new(shared.limits.max_incoming_in_flight).unwrap_or(NonZeroU16::MIN),
            max_packet_size: u32::try_from(shared.limits.max_packet_bytes()).ok(),
            assigned_client_id: assigned.then(|| connect.client_id.clone()),
            ..ConnectAck::default()
        };
        wire.accept(granted, &mut output);
        let mut connection = Connection {
            stable_id: stable_id(&self.principal, &connect.client_id),
            resumed: claim.resumed,
            outgoing_window: usize::from(connect.receive_maximum.min(shared.limits.max_outgoing_in_flight)),
            expires_at: valid_for.and_then(|valid_for| Instant::now().checked_add(valid_for)),
            keep_alive: keep_alive(connect.keep_alive_s),
            will: connect.will,
            link: self.link,
            who: self.who,
            principal: self.principal,
            session: claim.session,
            flow: claim.flow,
            input: rest,
            pending: FuturesOrdered::new(),
            unacknowledged: 0,
            routes: RouteMemory::default(),
            batch: Vec::new(),
            clock: Clock::new(),
            _place: self.place,
            shared,
            wire,
            output,
            rights,
            leash,
            session_expiry,
        };
        if claim.resumed {
            connection.resend();
        }
        if let Some(late) = claim.late_will {
            connection.shared.publish_will(&connection.session, late).await;
        }
        Some(connection)
    }

    async fn turn_away(&mut self, shared: &Shared, wire: &mut Wire, refusal: Refusal) {
        if let Some((reason, topic, detail)) = refusal.event {
            shared.report(reason, &self.who, topic.as_ref(), detail);
        }
        let mut answer = BytesMut::new();
        wire.refuse(refusal.code, &mut answer);
        say(&mut self.link, &answer).await;
    }
}

/// Everything about a CONNECT that can be decided without the session.
fn examine(shared: &Shared, arrival: &Arrival, connect: &Connect, wire: &Wire) -> Result<Rights, Refusal> {
    if connect.wants_authentication {
        return Err(Refusal::silent(ConnectAckReason::BadAuthenticationMethod));
    }
    let id = &connect.client_id;
    if id.len() > MAX_CLIENT_ID_BYTES || id.chars().any(char::is_control) {
        let detail = format!("client ids have at most {MAX_CLIENT_ID_BYTES} bytes and no control characters");
        return Err(Refusal::event(
            ConnectAckReason::ClientIdentifierNotValid,
            Reason::MqttMalformed,
            None,
            detail,
        ));
    }
    let Some(rights) = Rights::of(&arrival.access, &arrival.principal) else {
        let detail = "this port wants a client certificate";
        return Err(Refusal::event(
            ConnectAckReason::NotAuthorized,
            Reason::TlsNoCertificate,
            None,
            detail,
        ));
    };
    if arrival
        .certificate
        .as_ref()
        .is_some_and(|certificate| certificate.valid_for.is_zero())
    {
        let detail = "a resumed TLS session outlived the certificate";
        return Err(Refusal::event(
            ConnectAckReason::NotAuthorized,
            Reason::TlsExpired,
            None,
            detail,
        ));
    }
    if let Some(will) = &connect.will {
        examine_will(shared, &rights, will)?;
    }
    tracing::debug!(client = &**id, peer = %arrival.who.peer, v5 = wire.is_v5(), "connect");
    Ok(rights)
}

/// A will is a publish, and is refused while its sender is still there to be told.
fn examine_will(shared: &Shared, rights: &Rights, will: &Will) -> Result<(), Refusal> {
    let topic = &will.publish.topic;
    let limit = shared.limits.max_payload_bytes;
    if !is_topic_name(topic) {
        let detail = "an illegal will topic";
        return Err(Refusal::event(
            ConnectAckReason::TopicNameInvalid,
            Reason::MqttMalformed,
            None,
            detail,
        ));
    }
    if will.publish.payload.len() > limit {
        let detail = format!(
            "a will of {} bytes is longer than {limit}",
            will.publish.payload.len()
        );
        return Err(Refusal::event(
            ConnectAckReason::PacketTooLarge,
            Reason::Oversize,
            Some(topic),
            detail,
        ));
    }
    if let Some(detail) = too_many_user_properties(&will.publish) {
        return Err(Refusal::event(
            ConnectAckReason::PacketTooLarge,
            Reason::Oversize,
            Some(topic),
            detail,
        ));
    }
    rights.publish(topic, will.publish.retain).map_err(|reason| {
        Refusal::event(
            ConnectAckReason::NotAuthorized,
            reason,
            Some(topic),
            "a will was refused",
        )
    })
}

fn claim_refusal(error: ClaimError) -> Refusal {
    match error {
        ClaimError::Full => Refusal::event(
            ConnectAckReason::QuotaExceeded,
            Reason::ConnectionLimit,
            None,
            "there are as many sessions as there may be",
        ),
        ClaimError::Share => Refusal::event(
            ConnectAckReason::QuotaExceeded,
            Reason::ConnectionLimit,
            None,
            "this certificate has as many sessions as one may have",
        ),
        ClaimError::Busy => Refusal::silent(ConnectAckReason::ServerBusy),
        ClaimError::Ended => Refusal::silent(ConnectAckReason::ServerUnavailable),
    }
}

/// One and a half times the interval that the client promised (MQTT 5 §3.1.2.10).
fn keep_alive(seconds: u16) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_millis(u64::from(seconds) * 1_500))
}

/// A client id that nobody else can guess, and so not take over.
fn assign_client_id() -> ByteString {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let random = RandomState::new().hash_one(number);
    ByteString::from(format!("tidegate-{number:x}-{random:016x}"))
}
