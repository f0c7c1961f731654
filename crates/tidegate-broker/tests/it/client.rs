//! A client of packets: sends exactly what a test says, and shows exactly what comes.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v3;
use rmqtt_codec::v5::{
    self, Connect, ConnectAck, ConnectAckReason, LastWill, Packet, PublishAck, PublishAck2, PublishAckReason,
    SubscribeAckReason, SubscriptionOptions,
};
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::codec::Framed;

use crate::serve::PATIENCE;

pub(crate) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

pub(crate) type BoxedSocket = Box<dyn Socket>;

pub(crate) async fn tcp(address: SocketAddr) -> BoxedSocket {
    Box::new(TcpStream::connect(address).await.unwrap())
}

pub(crate) async fn tls(address: SocketAddr, config: Arc<ClientConfig>) -> std::io::Result<BoxedSocket> {
    tls_over(TcpStream::connect(address).await?, config).await
}

/// TLS over a socket that is open already.
pub(crate) async fn tls_over(socket: TcpStream, config: Arc<ClientConfig>) -> std::io::Result<BoxedSocket> {
    let name = "localhost".try_into().unwrap();
    Ok(Box::new(TlsConnector::from(config).connect(name, socket).await?))
}

/// A packet id.
pub(crate) fn id(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap()
}

pub(crate) fn connect(client_id: &'static str) -> Connect {
    Connect {
        client_id: client_id.into(),
        clean_start: true,
        keep_alive: 60,
        ..Connect::default()
    }
}

/// A CONNECT whose session outlives the connection.
pub(crate) fn lasting(client_id: &'static str) -> Connect {
    Connect {
        clean_start: false,
        session_expiry_interval_secs: 600,
        ..connect(client_id)
    }
}

pub(crate) fn will(topic: &'static str, message: &'static str) -> LastWill {
    LastWill {
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: topic.into(),
        message: message.into(),
        will_delay_interval_sec: None,
        correlation_data: None,
        message_expiry_interval: None,
        content_type: None,
        user_properties: Vec::new(),
        is_utf8_payload: None,
        response_topic: None,
    }
}

pub(crate) fn publish(topic: &'static str, payload: impl Into<Bytes>, qos: QoS, packet_id: u16) -> Publish {
    Publish {
        dup: false,
        retain: false,
        qos,
        topic: topic.into(),
        packet_id: NonZeroU16::new(packet_id).filter(|_| qos != QoS::AtMostOnce),
        payload: payload.into(),
        properties: None,
    }
}

/// An MQTT 5 client.
pub(crate) struct Client {
    pub(crate) framed: Framed<BoxedSocket, v5::Codec>,
}

impl Client {
    /// Connects and must be let in.
    pub(crate) async fn open(address: SocketAddr, client_id: &'static str) -> Self {
        Self::with(address, connect(client_id)).await.0
    }

    /// Connects and must be let in; the CONNACK is for the test to look at.
    pub(crate) async fn with(address: SocketAddr, connect: Connect) -> (Self, ConnectAck) {
        let (client, answer) = Self::over(tcp(address).await, connect).await;
        assert_eq!(answer.reason_code, ConnectAckReason::Success);
        (client, answer)
    }

    pub(crate) async fn over(socket: BoxedSocket, connect: Connect) -> (Self, ConnectAck) {
        let mut client = Self {
            framed: Framed::new(socket, v5::Codec::default()),
        };
        client.send(connect).await;
        match client.receive().await {
            Packet::ConnectAck(answer) => (client, *answer),
            other => panic!("{other:?} instead of CONNACK"),
        }
    }

    pub(crate) async fn send(&mut self, packet: impl Into<Packet>) {
        self.framed.send(packet.into()).await.unwrap();
    }

    pub(crate) async fn receive(&mut self) -> Packet {
        self.next()
            .await
            .expect("a packet, and not the end of the connection")
    }

    /// `None` when the connection has ended.
    pub(crate) async fn next(&mut self) -> Option<Packet> {
        let next = timeout(PATIENCE, self.framed.next())
            .await
            .expect("a packet in time");
        next.and_then(Result::ok).map(|(packet, _)| packet)
    }

    pub(crate) async fn subscribe(&mut self, filter: &'static str, qos: QoS) -> SubscribeAckReason {
        self.subscribe_with(
            filter,
            SubscriptionOptions {
                qos,
                ..SubscriptionOptions::default()
            },
        )
        .await
    }

    pub(crate) async fn subscribe_with(
        &mut self,
        filter: &'static str,
        options: SubscriptionOptions,
    ) -> SubscribeAckReason {
        let subscribe = v5::Subscribe {
            packet_id: id(60_000),
            id: None,
            user_properties: Vec::new(),
            topic_filters: vec![(filter.into(), options)],
        };
        self.send(subscribe).await;
        match self.receive().await {
            Packet::SubscribeAck(ack) => ack.status[0],
            other => panic!("{other:?} instead of SUBACK"),
        }
    }

    /// Publishes with QoS 1 and returns how it was acknowledged.
    pub(crate) async fn publish(
        &mut self,
        topic: &'static str,
        payload: impl Into<Bytes>,
    ) -> PublishAckReason {
        self.send(publish(topic, payload, QoS::AtLeastOnce, 50_000)).await;
        let ack = self.acknowledged().await;
        assert_eq!(ack.packet_id, id(50_000));
        ack.reason_code
    }

    pub(crate) async fn acknowledged(&mut self) -> PublishAck {
        match self.receive().await {
            Packet::PublishAck(ack) | Packet::PublishReceived(ack) => ack,
            other => panic!("{other:?} instead of PUBACK or PUBREC"),
        }
    }

    pub(crate) async fn message(&mut self) -> Publish {
        match self.receive().await {
            Packet::Publish(publish) => *publish,
            other => panic!("{other:?} instead of PUBLISH"),
        }
    }

    /// The payload of a message, acknowledged if its QoS is 1.
    pub(crate) async fn payload(&mut self) -> Bytes {
        let message = self.message().await;
        if let (QoS::AtLeastOnce, Some(packet_id)) = (message.qos, message.packet_id) {
            self.send(PublishAck {
                packet_id,
                ..PublishAck::default()
            })
            .await;
        }
        message.payload
    }

    pub(crate) async fn send_release(&mut self, packet_id: u16) {
        self.send(Packet::PublishRelease(second(packet_id))).await;
    }

    pub(crate) async fn completed(&mut self) -> PublishAck2 {
        match self.receive().await {
            Packet::PublishComplete(ack) => ack,
            other => panic!("{other:?} instead of PUBCOMP"),
        }
    }

    /// Asserts that nothing else is on its way to this client: a ping is answered next.
    pub(crate) async fn assert_quiet(&mut self) {
        self.send(Packet::PingRequest).await;
        assert_eq!(self.receive().await, Packet::PingResponse);
    }

    /// Whether the connection still answers.
    pub(crate) async fn answers(&mut self) -> bool {
        if self.framed.send(Packet::PingRequest).await.is_err() {
            return false;
        }
        matches!(self.next().await, Some(Packet::PingResponse))
    }

    /// The reason code of the DISCONNECT that ends the connection, skipping what comes before.
    pub(crate) async fn ended(&mut self) -> Option<v5::DisconnectReasonCode> {
        let mut code = None;
        while let Some(packet) = self.next().await {
            if let Packet::Disconnect(disconnect) = packet {
                code = Some(disconnect.reason_code);
            }
        }
        code
    }
}

pub(crate) fn second(packet_id: u16) -> PublishAck2 {
    PublishAck2 {
        packet_id: id(packet_id),
        reason_code: v5::PublishAck2Reason::Success,
        properties: Vec::new(),
        reason_string: None,
    }
}

/// An MQTT 3.1.1 client.
pub(crate) struct OldClient {
    framed: Framed<BoxedSocket, v3::Codec>,
}

impl OldClient {
    pub(crate) async fn open(address: SocketAddr, client_id: &'static str) -> Self {
        let connect = v3::Connect {
            clean_session: true,
            keep_alive: 60,
            ..v3::Connect::default().client_id(client_id)
        };
        let (client, answer) = Self::over(tcp(address).await, connect).await;
        assert_eq!(answer.return_code, v3::ConnectAckReason::ConnectionAccepted);
        client
    }

    pub(crate) async fn over(socket: BoxedSocket, connect: v3::Connect) -> (Self, v3::ConnectAck) {
        let mut client = Self {
            framed: Framed::new(socket, v3::Codec::default()),
        };
        client.send(connect).await;
        match client.next().await {
            Some(v3::Packet::ConnectAck(answer)) => (client, answer),
            other => panic!("{other:?} instead of CONNACK"),
        }
    }

    pub(crate) async fn send(&mut self, packet: impl Into<v3::Packet>) {
        self.framed.send(packet.into()).await.unwrap();
    }

    /// `None` when the connection has ended.
    pub(crate) async fn next(&mut self) -> Option<v3::Packet> {
        let next = timeout(PATIENCE, self.framed.next())
            .await
            .expect("a packet in time");
        next.and_then(Result::ok).map(|(packet, _)| packet)
    }
}
