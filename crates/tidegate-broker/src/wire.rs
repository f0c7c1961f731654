//! Packets of both protocol versions as one set of types, over the codec of `rmqtt-codec`.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::{BufMut, BytesMut};
use bytestring::ByteString;
use rmqtt_codec::error::DecodeError;
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{
    ConnectAck, ConnectAckReason, Disconnect, DisconnectReasonCode, PublishAck, PublishAckReason,
    SubscribeAck, SubscribeAckReason, SubscriptionOptions, UnsubscribeAck, UnsubscribeAckReason,
};
use rmqtt_codec::version::{ProtocolVersion, VersionCodec};
use rmqtt_codec::{v3, v5};
use tokio_util::codec::{Decoder, Encoder};

mod translate;

use translate::{from_v3, from_v5, packet_v3, packet_v5};

/// Longest fixed header: packet type and four bytes of length.
const MAX_HEADER_BYTES: usize = 5;

/// Smallest Maximum Packet Size that leaves room for a PUBACK with a reason string.
const ROOM_FOR_REASON_BYTES: usize = 64;

/// A connection's protocol version, with the codec's state.
#[derive(Debug)]
pub(crate) enum Wire {
    V3(v3::Codec),
    V5 {
        codec: v5::Codec,
        /// The client's Maximum Packet Size, fixed header included.
        max_packet_bytes: usize,
        /// The client wants reason strings (MQTT 5 §3.1.2.11.7).
        reasons: bool,
    },
}

/// A client's CONNECT.
#[derive(Debug)]
pub(crate) struct Connect {
    pub(crate) client_id: ByteString,
    pub(crate) clean_start: bool,
    /// Seconds, 0 for none.
    pub(crate) keep_alive_s: u16,
    /// Seconds that the session outlives the connection.
    pub(crate) session_expiry_s: u32,
    pub(crate) receive_maximum: u16,
    pub(crate) will: Option<Will>,
    pub(crate) wants_authentication: bool,
}

/// What is published when the client goes without a word.
#[derive(Debug)]
pub(crate) struct Will {
    pub(crate) publish: Publish,
    pub(crate) delay_s: u32,
}

/// A packet from a client whose CONNECT was accepted.
#[derive(Debug)]
pub(crate) enum Packet {
    Publish(Box<Publish>),
    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    Acknowledge {
        kind: Acknowledge,
        packet_id: NonZeroU16,
        success: bool,
    },
    Subscribe {
        packet_id: NonZeroU16,
        id: Option<NonZeroU32>,
        filters: Vec<(ByteString, SubscriptionOptions)>,
    },
    Unsubscribe {
        packet_id: NonZeroU16,
        filters: Vec<ByteString>,
    },
    Ping,
    Disconnect {
        with_will: bool,
        session_expiry_s: Option<u32>,
    },
}

/// The four packets that acknowledge a publish, by their first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Acknowledge {
    Ack = 0x40,
    Received = 0x50,
    Release = 0x62,
    Complete = 0x70,
}

/// Why bytes of a client are not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error("a packet of {bytes} bytes is longer than {limit}")]
    TooLong { bytes: usize, limit: usize },
    #[error("broken packet of type {kind:#04x}: {source}")]
    Broken { kind: u8, source: DecodeError },
    #[error("a client may not send a packet of type {kind:#04x} now")]
    Unexpected { kind: u8 },
    #[error("the length of a packet has more than four bytes")]
    Length,
    #[error("{0}")]
    Protocol(&'static str),
    /// Answered with this CONNACK before the connection is closed.
    #[error("a CONNECT without a client id that wants to keep its session")]
    NoClientId { answer: &'static [u8] },
}

/// CONNACKs with return code 2 (MQTT 3.1.1 §3.1.3.5) and reason code 0x85 (MQTT 5 §3.2.2.2).
const IDENTIFIER_REJECTED_V3: &[u8] = &[0x20, 2, 0, 2];
const IDENTIFIER_REJECTED_V5: &[u8] = &[0x20, 3, 0, 0x85, 0];

impl WireError {
    /// The reason code of the DISCONNECT that answers it.
    pub(crate) fn code(&self) -> DisconnectReasonCode {
        match self {
            Self::TooLong { .. } => DisconnectReasonCode::PacketTooLarge,
            Self::Broken { .. } | Self::Length => DisconnectReasonCode::MalformedPacket,
            Self::Unexpected { .. } | Self::Protocol(_) | Self::NoClientId { .. } => {
                DisconnectReasonCode::ProtocolError
            }
        }
    }
}

/// Length of the first packet in `bytes`, header included; `None` while its length is not known.
///
/// The codec reserves the length that a header claims; this is asked first, so that memory is
/// taken only for bytes that have come.
fn frame_bytes(bytes: &[u8], limit: usize) -> Result<Option<usize>, WireError> {
    let mut remaining = 0_usize;
    for (position, byte) in bytes.iter().skip(1).take(MAX_HEADER_BYTES - 1).enumerate() {
        remaining |= usize::from(byte & 0x7f) << (7 * position);
        if byte & 0x80 == 0 {
            if remaining > limit {
                return Err(WireError::TooLong {
                    bytes: remaining,
                    limit,
                });
            }
            return Ok(Some(2 + position + remaining));
        }
    }
    if bytes.len() >= MAX_HEADER_BYTES {
        Err(WireError::Length)
    } else {
        Ok(None)
    }
}

/// First byte of the first packet, once all of that packet is in `bytes`.
fn complete_frame(bytes: &[u8], limit: usize) -> Result<Option<u8>, WireError> {
    let complete = frame_bytes(bytes, limit)?.is_some_and(|length| bytes.len() >= length);
    Ok(bytes.first().copied().filter(|_| complete))
}

impl Wire {
    /// Reads the CONNECT that opens a connection; `None` while it is incomplete.
    pub(crate) fn open(bytes: &mut BytesMut, limit: usize) -> Result<Option<(Self, Connect)>, WireError> {
        // Anything but a CONNECT is refused by its first byte, not after its claimed length.
        match bytes.first() {
            None => return Ok(None),
            Some(0x10) => {}
            Some(kind) => return Err(WireError::Unexpected { kind: *kind }),
        }
        let Some(kind) = complete_frame(bytes, limit)? else {
            return Ok(None);
        };
        let broken = |source| WireError::Broken { kind, source };
        let version = VersionCodec.decode(bytes).map_err(broken)?;
        let no_client_id = |answer| {
            move |source| match source {
                DecodeError::InvalidClientId => WireError::NoClientId { answer },
                source => broken(source),
            }
        };
        match version.ok_or(WireError::Protocol("a CONNECT without a protocol version"))? {
            ProtocolVersion::MQTT3 => {
                let mut codec = v3::Codec::new(0);
                match codec
                    .decode(bytes)
                    .map_err(no_client_id(IDENTIFIER_REJECTED_V3))?
                {
                    Some((v3::Packet::Connect(connect), _)) => Ok(Some((Self::V3(codec), from_v3(*connect)))),
                    _ => Err(WireError::Unexpected { kind }),
                }
            }
            ProtocolVersion::MQTT5 => {
                let mut codec = v5::Codec::new(0, 0);
                let Some((v5::Packet::Connect(connect), _)) = codec
                    .decode(bytes)
                    .map_err(no_client_id(IDENTIFIER_REJECTED_V5))?
                else {
                    return Err(WireError::Unexpected { kind });
                };
                let max_packet_bytes = connect
                    .max_packet_size
                    .map_or(usize::MAX, |size| size.get() as usize);
                let wire = Self::V5 {
                    codec,
                    max_packet_bytes,
                    reasons: connect.request_problem_info,
                };
                Ok(Some((wire, from_v5(*connect)?)))
            }
        }
    }

    /// Reads the next packet; `None` while it is incomplete.
    pub(crate) fn read(&mut self, bytes: &mut BytesMut, limit: usize) -> Result<Option<Packet>, WireError> {
        let Some(kind) = complete_frame(bytes, limit)? else {
            return Ok(None);
        };
        let broken = |source| WireError::Broken { kind, source };
        let packet = match self {
            Self::V3(codec) => codec
                .decode(bytes)
                .map_err(broken)?
                .and_then(|(packet, _)| packet_v3(packet)),
            Self::V5 { codec, .. } => codec
                .decode(bytes)
                .map_err(broken)?
                .and_then(|(packet, _)| packet_v5(packet)),
        };
        let packet = packet.ok_or(WireError::Unexpected { kind })?;
        if let Packet::Publish(publish) = &packet
            && publish.qos == QoS::AtMostOnce
            && publish.dup
        {
            return Err(WireError::Protocol("a publish of QoS 0 with the DUP flag"));
        }
        Ok(Some(packet))
    }

    pub(crate) fn is_v5(&self) -> bool {
        matches!(self, Self::V5 { .. })
    }

    /// Writes a CONNACK that accepts. The acknowledgement's fields beside `session_present` are for MQTT 5.
    pub(crate) fn accept(&mut self, acknowledgement: ConnectAck, out: &mut BytesMut) {
        match self {
            Self::V3(codec) => {
                let packet = v3::ConnectAck {
                    return_code: v3::ConnectAckReason::ConnectionAccepted,
                    session_present: acknowledgement.session_present,
                };
                encode(codec, v3::Packet::ConnectAck(packet), usize::MAX, out);
            }
            Self::V5 {
                codec,
                max_packet_bytes,
                ..
            } => {
                encode(
                    codec,
                    v5::Packet::ConnectAck(Box::new(acknowledgement)),
                    *max_packet_bytes,
                    out,
                );
            }
        }
    }

    /// Writes a CONNACK that refuses.
    pub(crate) fn refuse(&mut self, reason_code: ConnectAckReason, out: &mut BytesMut) {
        match self {
            Self::V3(codec) => {
                let return_code = match reason_code {
                    ConnectAckReason::ClientIdentifierNotValid => v3::ConnectAckReason::IdentifierRejected,
                    ConnectAckReason::NotAuthorized => v3::ConnectAckReason::NotAuthorized,
                    _ => v3::ConnectAckReason::ServiceUnavailable,
                };
                let packet = v3::ConnectAck {
                    return_code,
                    session_present: false,
                };
                encode(codec, v3::Packet::ConnectAck(packet), usize::MAX, out);
            }
            Self::V5 {
                codec,
                max_packet_bytes,
                ..
            } => {
                let packet = ConnectAck {
                    reason_code,
                    ..ConnectAck::default()
                };
                encode(
                    codec,
                    v5::Packet::ConnectAck(Box::new(packet)),
                    *max_packet_bytes,
                    out,
                );
            }
        }
    }

    /// Writes a publish; `false` when it is longer than the client takes, and nothing was written.
    pub(crate) fn publish(&mut self, publish: Publish, out: &mut BytesMut) -> bool {
        match self {
            Self::V3(codec) => encode(codec, v3::Packet::Publish(Box::new(publish)), usize::MAX, out),
            Self::V5 {
                codec,
                max_packet_bytes,
                ..
            } => encode(
                codec,
                v5::Packet::Publish(Box::new(publish)),
                *max_packet_bytes,
                out,
            ),
        }
    }

    /// Writes an acknowledgement of success. These four bytes are the same in both versions
    /// (MQTT 5 §3.4.2.1: a reason code of success may be left out).
    pub(crate) fn acknowledge(kind: Acknowledge, packet_id: NonZeroU16, out: &mut BytesMut) {
        out.put_slice(&[kind as u8, 2]);
        out.put_u16(packet_id.get());
    }

    /// Writes a PUBCOMP for a packet id that is not in use (MQTT 5 §3.7.2.1: 0x92).
    pub(crate) fn complete_unknown(&self, packet_id: NonZeroU16, out: &mut BytesMut) {
        match self {
            Self::V3(_) => Self::acknowledge(Acknowledge::Complete, packet_id, out),
            Self::V5 { .. } => {
                out.put_slice(&[Acknowledge::Complete as u8, 3]);
                out.put_u16(packet_id.get());
                out.put_u8(0x92);
            }
        }
    }

    /// Writes a PUBACK or PUBREC that refuses. MQTT 3.1.1 has none: the plain one is written.
    pub(crate) fn reject(
        &mut self,
        kind: Acknowledge,
        packet_id: NonZeroU16,
        reason_code: PublishAckReason,
        reason: &'static str,
        out: &mut BytesMut,
    ) {
        match self {
            Self::V3(_) => Self::acknowledge(kind, packet_id, out),
            Self::V5 {
                codec,
                max_packet_bytes,
                reasons,
            } => {
                let explain = *reasons && *max_packet_bytes >= ROOM_FOR_REASON_BYTES;
                let reason_string = explain.then(|| ByteString::from_static(reason));
                let packet = PublishAck {
                    packet_id,
                    reason_code,
                    reason_string,
                    properties: Vec::new(),
                };
                let packet = match kind {
                    Acknowledge::Received => v5::Packet::PublishReceived(packet),
                    _ => v5::Packet::PublishAck(packet),
                };
                encode(codec, packet, *max_packet_bytes, out);
            }
        }
    }

    /// Writes a SUBACK.
    pub(crate) fn subscribed(
        &mut self,
        packet_id: NonZeroU16,
        status: Vec<SubscribeAckReason>,
        out: &mut BytesMut,
    ) {
        match self {
            Self::V3(codec) => {
                let granted = |reason: SubscribeAckReason| {
                    QoS::try_from(u8::from(reason))
                        .map_or(v3::SubscribeReturnCode::Failure, v3::SubscribeReturnCode::Success)
                };
                let status = status.into_iter().map(granted).collect();
                encode(
                    codec,
                    v3::Packet::SubscribeAck { packet_id, status },
                    usize::MAX,
                    out,
                );
            }
            Self::V5 {
                codec,
                max_packet_bytes,
                ..
            } => {
                let packet = SubscribeAck {
                    packet_id,
                    status,
                    properties: Vec::new(),
                    reason_string: None,
                };
                encode(codec, v5::Packet::SubscribeAck(packet), *max_packet_bytes, out);
            }
        }
    }

    /// Writes an UNSUBACK.
    pub(crate) fn unsubscribed(
        &mut self,
        packet_id: NonZeroU16,
        status: Vec<UnsubscribeAckReason>,
        out: &mut BytesMut,
    ) {
        match self {
            Self::V3(codec) => {
                encode(codec, v3::Packet::UnsubscribeAck { packet_id }, usize::MAX, out);
            }
            Self::V5 {
                codec,
                max_packet_bytes,
                ..
            } => {
                let packet = UnsubscribeAck {
                    packet_id,
                    status,
                    properties: Vec::new(),
                    reason_string: None,
                };
                encode(codec, v5::Packet::UnsubscribeAck(packet), *max_packet_bytes, out);
            }
        }
    }

    /// Writes a PINGRESP.
    pub(crate) fn pong(out: &mut BytesMut) {
        out.put_slice(&[0xd0, 0]);
    }

    /// Writes a DISCONNECT, which MQTT 3.1.1 servers do not have.
    pub(crate) fn disconnect(&mut self, code: DisconnectReasonCode, out: &mut BytesMut) {
        if let Self::V5 {
            codec,
            max_packet_bytes,
            ..
        } = self
        {
            encode(
                codec,
                v5::Packet::Disconnect(Disconnect::new(code)),
                *max_packet_bytes,
                out,
            );
        }
    }
}

/// Writes a packet, or nothing when it is too long or not encodable.
///
/// The limit is kept here because the codec's own subtracts header sizes from small limits.
fn encode<P, C: Encoder<P>>(codec: &mut C, packet: P, max_bytes: usize, out: &mut BytesMut) -> bool {
    let before = out.len();
    let written = codec.encode(packet, out).is_ok() && out.len() - before <= max_bytes;
    if !written {
        out.truncate(before);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONNECT_V3: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a";
    const CONNECT_V5: &[u8] = b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01a";

    fn open(bytes: &[u8]) -> Result<Option<(Wire, Connect)>, WireError> {
        Wire::open(&mut BytesMut::from(bytes), 1_000)
    }

    #[test]
    fn both_versions_are_told_apart_by_their_connect() {
        let (wire, connect) = open(CONNECT_V3).unwrap().unwrap();
        assert!(!wire.is_v5());
        assert_eq!((&*connect.client_id, connect.keep_alive_s), ("a", 60));
        let (wire, connect) = open(CONNECT_V5).unwrap().unwrap();
        assert!(wire.is_v5());
        assert_eq!((&*connect.client_id, connect.session_expiry_s), ("a", 0));
    }

    #[test]
    fn a_connect_cut_at_any_byte_is_waited_for() {
        for whole in [CONNECT_V3, CONNECT_V5] {
            for length in 0..whole.len() {
                assert!(open(&whole[..length]).unwrap().is_none(), "{length}");
            }
        }
    }

    #[test]
    fn a_connect_without_client_id_needs_a_clean_start() {
        let without_id = |flags: u8| [0x10, 12, 0, 4, b'M', b'Q', b'T', b'T', 4, flags, 0, 60, 0, 0];
        assert!(matches!(
            open(&without_id(0)),
            Err(WireError::NoClientId {
                answer: IDENTIFIER_REJECTED_V3
            })
        ));
        assert!(open(&without_id(2)).unwrap().unwrap().1.client_id.is_empty());
    }

    #[test]
    fn a_first_packet_of_another_kind_is_refused_at_once() {
        assert!(matches!(open(b"\x30"), Err(WireError::Unexpected { kind: 0x30 })));
        assert!(matches!(
            open(b"GET / HTTP/1.1"),
            Err(WireError::Unexpected { kind: b'G' })
        ));
    }

    #[test]
    fn lengths_beyond_the_limit_or_four_bytes_are_refused_from_the_header_alone() {
        assert!(matches!(
            open(b"\x10\xe9\x07"),
            Err(WireError::TooLong {
                bytes: 1_001,
                limit: 1_000
            })
        ));
        assert!(open(b"\x10\xe8\x07").unwrap().is_none());
        assert!(matches!(
            open(b"\x10\xff\xff\xff\xff\x01"),
            Err(WireError::Length)
        ));
    }

    #[test]
    fn a_packet_longer_than_the_client_takes_is_not_written() {
        let connect = b"\x10\x13\x00\x04MQTT\x05\x02\x00\x3c\x05\x27\x00\x00\x00\x14\x00\x01a";
        let (mut wire, _) = open(connect).unwrap().unwrap();
        let publish = |payload: &'static [u8]| Publish {
            dup: false,
            retain: false,
            qos: QoS::AtMostOnce,
            topic: "topic".into(),
            packet_id: None,
            payload: payload.into(),
            properties: None,
        };
        let mut out = BytesMut::new();
        assert!(wire.publish(publish(&[0; 10]), &mut out));
        assert_eq!(out.len(), 20);
        assert!(!wire.publish(publish(&[0; 11]), &mut out));
        assert_eq!(out.len(), 20);
    }

    #[test]
    fn a_client_may_not_send_what_only_servers_send() {
        for (opening, bytes) in [
            (CONNECT_V3, &b"\x20\x02\x00\x00"[..]),
            (CONNECT_V5, b"\xd0\x00"),
            (CONNECT_V5, CONNECT_V5),
        ] {
            let (mut wire, _) = open(opening).unwrap().unwrap();
            let read = wire.read(&mut BytesMut::from(bytes), 1_000);
            assert!(matches!(read, Err(WireError::Unexpected { .. })), "{bytes:x?}");
        }
    }
}
