//! From the codec's packets of either version to the broker's own.

use std::num::NonZeroU16;

use rmqtt_codec::types::Publish;
use rmqtt_codec::v5::{DisconnectReasonCode, PublishProperties, RetainHandling, SubscriptionOptions};
use rmqtt_codec::{v3, v5};

use super::{Acknowledge, Connect, Packet, Will, WireError};

pub(super) fn from_v3(connect: v3::Connect) -> Connect {
    let will = |will: v3::LastWill| Will {
        publish: Publish {
            dup: false,
            retain: will.retain,
            qos: will.qos,
            topic: will.topic,
            packet_id: None,
            payload: will.message,
            properties: None,
        },
        delay_s: 0,
    };
    Connect {
        client_id: connect.client_id,
        clean_start: connect.clean_session,
        keep_alive_s: connect.keep_alive,
        session_expiry_s: if connect.clean_session { 0 } else { u32::MAX },
        receive_maximum: u16::MAX,
        will: connect.last_will.map(will),
        wants_authentication: false,
    }
}

pub(super) fn from_v5(connect: v5::Connect) -> Result<Connect, WireError> {
    if connect.auth_data.is_some() && connect.auth_method.is_none() {
        return Err(WireError::Protocol("authentication data without a method"));
    }
    let will = |will: v5::LastWill| Will {
        delay_s: will.will_delay_interval_sec.unwrap_or(0),
        publish: Publish {
            dup: false,
            retain: will.retain,
            qos: will.qos,
            topic: will.topic,
            packet_id: None,
            payload: will.message,
            properties: Some(PublishProperties {
                correlation_data: will.correlation_data,
                message_expiry_interval: will.message_expiry_interval,
                content_type: will.content_type,
                user_properties: will.user_properties,
                is_utf8_payload: will.is_utf8_payload.unwrap_or(false),
                response_topic: will.response_topic,
                ..PublishProperties::default()
            }),
        },
    };
    Ok(Connect {
        client_id: connect.client_id,
        clean_start: connect.clean_start,
        keep_alive_s: connect.keep_alive,
        session_expiry_s: connect.session_expiry_interval_secs,
        receive_maximum: connect.receive_max.map_or(u16::MAX, NonZeroU16::get),
        will: connect.last_will.map(will),
        wants_authentication: connect.auth_method.is_some(),
    })
}

/// `None` for packets that only a server sends, and for a second CONNECT.
pub(super) fn packet_v3(packet: v3::Packet) -> Option<Packet> {
    let acknowledge = |kind, packet_id| {
        Some(Packet::Acknowledge {
            kind,
            packet_id,
            success: true,
        })
    };
    match packet {
        v3::Packet::Publish(publish) => Some(Packet::Publish(publish)),
        v3::Packet::PublishAck { packet_id } => acknowledge(Acknowledge::Ack, packet_id),
        v3::Packet::PublishReceived { packet_id } => acknowledge(Acknowledge::Received, packet_id),
        v3::Packet::PublishRelease { packet_id } => acknowledge(Acknowledge::Release, packet_id),
        v3::Packet::PublishComplete { packet_id } => acknowledge(Acknowledge::Complete, packet_id),
        v3::Packet::Subscribe {
            packet_id,
            topic_filters,
        } => {
            let options = |qos| SubscriptionOptions {
                qos,
                no_local: false,
                retain_as_published: false,
                retain_handling: RetainHandling::AtSubscribe,
            };
            let filters = topic_filters
                .into_iter()
                .map(|(filter, qos)| (filter, options(qos)))
                .collect();
            Some(Packet::Subscribe {
                packet_id,
                id: None,
                filters,
            })
        }
        v3::Packet::Unsubscribe {
            packet_id,
            topic_filters: filters,
        } => Some(Packet::Unsubscribe { packet_id, filters }),
        v3::Packet::PingRequest => Some(Packet::Ping),
        v3::Packet::Disconnect => Some(Packet::Disconnect {
            with_will: false,
            session_expiry_s: None,
        }),
        _ => None,
    }
}

/// `None` for packets that only a server sends, for a second CONNECT, and for AUTH, since no
/// authentication method is offered.
pub(super) fn packet_v5(packet: v5::Packet) -> Option<Packet> {
    let acknowledge = |kind, packet_id, code: u8| {
        Some(Packet::Acknowledge {
            kind,
            packet_id,
            success: code < 0x80,
        })
    };
    match packet {
        v5::Packet::Publish(publish) => Some(Packet::Publish(publish)),
        v5::Packet::PublishAck(ack) => acknowledge(Acknowledge::Ack, ack.packet_id, ack.reason_code.into()),
        v5::Packet::PublishReceived(ack) => {
            acknowledge(Acknowledge::Received, ack.packet_id, ack.reason_code.into())
        }
        v5::Packet::PublishRelease(ack) => {
            acknowledge(Acknowledge::Release, ack.packet_id, ack.reason_code.into())
        }
        v5::Packet::PublishComplete(ack) => {
            acknowledge(Acknowledge::Complete, ack.packet_id, ack.reason_code.into())
        }
        v5::Packet::Subscribe(subscribe) => Some(Packet::Subscribe {
            packet_id: subscribe.packet_id,
            id: subscribe.id,
            filters: subscribe.topic_filters,
        }),
        v5::Packet::Unsubscribe(unsubscribe) => Some(Packet::Unsubscribe {
            packet_id: unsubscribe.packet_id,
            filters: unsubscribe.topic_filters,
        }),
        v5::Packet::PingRequest => Some(Packet::Ping),
        v5::Packet::Disconnect(disconnect) => Some(Packet::Disconnect {
            with_will: disconnect.reason_code == DisconnectReasonCode::DisconnectWithWillMessage,
            session_expiry_s: disconnect.session_expiry_interval_secs,
        }),
        _ => None,
    }
}
