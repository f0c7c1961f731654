//! PUBLISH from a client: checked, admitted by the gate, acknowledged in order.

use std::num::NonZeroU16;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{DisconnectReasonCode, PublishAckReason, PublishProperties};
use tidegate_envelope::reason::Reason;

use crate::connection::Connection;
use crate::end::End;
use crate::filter::is_topic_name;
use crate::gate::{Admission, Disposition, Incoming};
use crate::message::{too_many_user_properties, user_properties};
use crate::session::Taken;
use crate::shared::count;
use crate::wire::{Acknowledge, Wire};

/// A publish that the gate decides about.
pub(crate) struct Pending {
    /// Taken out when the decision is there.
    publish: Option<Box<Publish>>,
    decision: Decision,
}

enum Decision {
    /// Refused by the broker itself; waits only for its turn.
    Refused(Reason),
    Gate(Admission),
}

/// A publish with what becomes of it.
pub(crate) struct Settled {
    publish: Box<Publish>,
    disposition: Disposition,
}

impl Future for Pending {
    type Output = Settled;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Settled> {
        let disposition = match &mut self.decision {
            Decision::Refused(reason) => Disposition::Refused(*reason),
            Decision::Gate(admission) => std::task::ready!(admission.as_mut().poll(cx)),
        };
        let publish = self
            .publish
            .take()
            .expect("a future is not polled after it is ready");
        Poll::Ready(Settled { publish, disposition })
    }
}

impl Connection {
    /// Takes a publish in: to the gate, or to its refusal.
    pub(crate) fn accept_publish(&mut self, publish: Box<Publish>) -> Result<(), End> {
        count(&self.shared.counters.received, 1);
        check_form(&publish)?;
        if let Some(packet_id) = publish.packet_id {
            if publish.qos == QoS::ExactlyOnce
                && let Some(taken) = self.flow.received.get(&packet_id)
            {
                // A message sent again: it is acknowledged again, and not taken again (MQTT 5 §4.3.3).
                if *taken == Taken::Acknowledged {
                    Wire::acknowledge(Acknowledge::Received, packet_id, &mut self.output);
                }
                return Ok(());
            }
            self.note_unacknowledged(packet_id, publish.qos)?;
        }
        let decision = match self.refusal(&publish) {
            Some(reason) => Decision::Refused(reason),
            None => Decision::Gate(self.admit(&publish)),
        };
        self.pending.push_back(Pending {
            publish: Some(publish),
            decision,
        });
        Ok(())
    }

    /// Counts a publish against the Receive Maximum (MQTT 5 §3.3.4). An MQTT 3.1.1 client knows
    /// none; what it sends too much waits in its socket, and only unreleased QoS 2 ids are bounded.
    fn note_unacknowledged(&mut self, packet_id: NonZeroU16, qos: QoS) -> Result<(), End> {
        let most = usize::from(self.shared.limits.max_incoming_in_flight);
        let unreleased = self.flow.received.len();
        let too_many = if self.wire.is_v5() {
            let acknowledged = self
                .flow
                .received
                .values()
                .filter(|taken| **taken == Taken::Acknowledged);
            // Counting costs a walk over at most `most` ids, and only clients of QoS 2 have any.
            self.unacknowledged + acknowledged.count() >= most
        } else {
            qos == QoS::ExactlyOnce && unreleased >= most * 4
        };
        if too_many {
            return Err(End::protocol(
                DisconnectReasonCode::ReceiveMaximumExceeded,
                format!("more than {most} publishes without an acknowledgement"),
            ));
        }
        self.unacknowledged += 1;
        if qos == QoS::ExactlyOnce {
            self.flow.received.insert(packet_id, Taken::Pending);
        }
        Ok(())
    }

    /// The broker's own reasons to refuse a publish; each is told as an event here, since the
    /// gate does not get to see it.
    fn refusal(&mut self, publish: &Publish) -> Option<Reason> {
        let limit = self.shared.limits.max_payload_bytes;
        let (reason, detail) = if publish.payload.len() > limit {
            (
                Reason::Oversize,
                format!(
                    "a payload of {} bytes is longer than {limit}",
                    publish.payload.len()
                ),
            )
        } else if let Some(detail) = too_many_user_properties(publish) {
            (Reason::Oversize, detail)
        } else {
            self.rights.look_again();
            let reason = self.rights.publish(&publish.topic, publish.retain).err()?;
            (reason, "a publish was refused".to_owned())
        };
        self.shared
            .report(reason, &self.who, Some(&publish.topic), detail);
        Some(reason)
    }

    fn admit(&self, publish: &Publish) -> Admission {
        Arc::clone(&self.shared.gate).admit(Incoming {
            topic: publish.topic.clone(),
            payload: publish.payload.clone(),
            retain: publish.retain,
            dup: publish.dup,
            qos: publish.qos.value(),
            principal: Arc::clone(&self.principal),
            session: self.stable_id,
            resumed: self.resumed,
            user_properties: user_properties(publish),
            client_id: self.session.client_id.clone(),
            peer: Some(self.who.peer),
        })
    }

    /// Carries out a decision: delivers, and answers the sender.
    pub(crate) fn settle(&mut self, settled: Settled) -> Result<(), End> {
        let Settled { publish, disposition } = settled;
        let unavailable = disposition == Disposition::Unavailable;
        let outcome = match disposition {
            Disposition::Deliver => {
                let routed = self
                    .shared
                    .distribute(&mut self.routes, &publish, self.session.key);
                if routed.pressed {
                    self.clock.pause();
                }
                Ok(())
            }
            Disposition::Reply(reply) => {
                self.shared.answer(reply);
                Ok(())
            }
            // The message was accepted when it came first, so its sender may forget it.
            Disposition::Refused(Reason::Duplicate) => Ok(()),
            Disposition::Refused(reason) => Err(reason),
            Disposition::Unavailable => Err(Reason::StorageUnavailable),
        };
        if outcome.is_err() {
            count(&self.shared.counters.refused, 1);
        }
        let Some(packet_id) = publish.packet_id else {
            return Ok(());
        };
        self.unacknowledged -= 1;
        let kind = match publish.qos {
            QoS::ExactlyOnce => Acknowledge::Received,
            _ => Acknowledge::Ack,
        };
        if unavailable && !self.wire.is_v5() {
            self.flow.received.remove(&packet_id);
            return Err(End::Unavailable);
        }
        // A refusal of MQTT 5 ends the exchange; every other answer to QoS 2 is followed by PUBREL.
        if kind == Acknowledge::Received {
            if outcome.is_err() && self.wire.is_v5() {
                self.flow.received.remove(&packet_id);
            } else {
                self.flow.received.insert(packet_id, Taken::Acknowledged);
            }
        }
        match outcome {
            Ok(()) => Wire::acknowledge(kind, packet_id, &mut self.output),
            Err(reason) => {
                self.wire.reject(
                    kind,
                    packet_id,
                    refusal_code(reason),
                    reason.as_str(),
                    &mut self.output,
                );
            }
        }
        Ok(())
    }

    /// PUBREL: the packet id is free again.
    pub(crate) fn release(&mut self, packet_id: NonZeroU16) -> Result<(), End> {
        match self.flow.received.remove(&packet_id) {
            Some(Taken::Acknowledged) => {
                Wire::acknowledge(Acknowledge::Complete, packet_id, &mut self.output);
            }
            None => self.wire.complete_unknown(packet_id, &mut self.output),
            Some(Taken::Pending) => {
                return Err(End::protocol(
                    DisconnectReasonCode::ProtocolError,
                    "PUBREL before PUBREC",
                ));
            }
        }
        Ok(())
    }
}

/// What MQTT forbids whatever the topic is.
fn check_form(publish: &Publish) -> Result<(), End> {
    if let Some(PublishProperties {
        topic_alias,
        subscription_ids,
        ..
    }) = &publish.properties
    {
        if topic_alias.is_some() {
            return Err(End::protocol(
                DisconnectReasonCode::TopicAliasInvalid,
                "a topic alias, though none is offered",
            ));
        }
        if !subscription_ids.is_empty() {
            return Err(End::protocol(
                DisconnectReasonCode::ProtocolError,
                "a subscription identifier from a client",
            ));
        }
    }
    if !is_topic_name(&publish.topic) {
        return Err(End::protocol(
            DisconnectReasonCode::TopicNameInvalid,
            "an illegal topic name",
        ));
    }
    Ok(())
}

/// How PUBACK and PUBREC of MQTT 5 tell a refusal. They have no code for a packet that is too
/// large (0x95 belongs to DISCONNECT), so an oversize payload is told as a limit exceeded.
fn refusal_code(reason: Reason) -> PublishAckReason {
    match reason {
        Reason::Malformed | Reason::BadSchema => PublishAckReason::PayloadFormatInvalid,
        Reason::RateLimited | Reason::Oversize => PublishAckReason::QuotaExceeded,
        Reason::StorageUnavailable => PublishAckReason::ImplementationSpecificError,
        _ => PublishAckReason::NotAuthorized,
    }
}
