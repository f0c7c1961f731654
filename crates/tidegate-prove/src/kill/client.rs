//! An MQTT 5 client over mutual TLS that says exactly what it is told, and shows every answer.

use anyhow::{Result, anyhow, bail};
use bytes::{Bytes, BytesMut};
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{
    Codec, Connect, ConnectAckReason, Packet, PublishAckReason, Subscribe, SubscriptionOptions,
};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::net::Ipv4Addr;
use std::num::NonZeroU16;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::codec::{Decoder, Encoder};

/// Largest packet that is read, in bytes.
const LARGEST_PACKET_BYTES: u32 = 1 << 17;

/// One connection.
pub(crate) struct Client {
    stream: TlsStream<TcpStream>,
    codec: Codec,
    incoming: BytesMut,
    outgoing: BytesMut,
    packet_id: u16,
    receive_maximum: usize,
}

/// What comes from the broker.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// The answer to the publish with this packet id.
    Answer(u16, Answer),
    /// A message under a subscription.
    Message(Bytes),
}

/// What became of a publish, as its PUBACK says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Accepted, and durable: the gateway's promise. From Mosquitto: it has the message.
    Accepted,
    /// It could not be made durable; the sender should send it again.
    Unavailable,
    /// Refused for good, by this reason.
    Refused(String),
}

impl Client {
    /// Connects to this machine's broker; an error when it is not there or does not want us.
    pub(crate) async fn connect(port: u16, tls: &Arc<ClientConfig>, client_id: &str) -> Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("localhost")?;
        let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await?;
        let mut client = Self {
            stream,
            codec: Codec::new(LARGEST_PACKET_BYTES, 0),
            incoming: BytesMut::new(),
            outgoing: BytesMut::new(),
            packet_id: 0,
            receive_maximum: 0,
        };
        client.encode(Packet::Connect(Box::new(Connect {
            clean_start: true,
            keep_alive: 60,
            client_id: client_id.to_owned().into(),
            ..Connect::default()
        })))?;
        client.flush().await?;
        match client.packet().await? {
            Packet::ConnectAck(ack) if ack.reason_code == ConnectAckReason::Success => {
                client.receive_maximum = usize::from(ack.receive_max.get());
                Ok(client)
            }
            other => bail!("the broker answers CONNECT with {other:?}"),
        }
    }

    /// Publishes that the broker takes without having answered (MQTT 5 §3.2.2.3.3).
    pub(crate) fn receive_maximum(&self) -> usize {
        self.receive_maximum
    }

    /// Subscribes at QoS 0, at which no message is delivered twice by the protocol.
    pub(crate) async fn subscribe(&mut self, filter: &str) -> Result<()> {
        let options = SubscriptionOptions {
            qos: QoS::AtMostOnce,
            ..SubscriptionOptions::default()
        };
        self.encode(Packet::Subscribe(Subscribe {
            packet_id: NonZeroU16::MIN,
            id: None,
            user_properties: Vec::new(),
            topic_filters: vec![(filter.to_owned().into(), options)],
        }))?;
        self.flush().await?;
        match self.packet().await? {
            Packet::SubscribeAck(ack) if ack.status.iter().all(|code| (*code as u8) < 0x80) => Ok(()),
            other => bail!("the broker answers SUBSCRIBE with {other:?}"),
        }
    }

    /// Puts a publish at QoS 1 into the outgoing bytes, and gives its packet id.
    pub(crate) fn publish(&mut self, topic: &str, payload: &Bytes, again: bool) -> Result<u16> {
        // 1 to 65,535, and around again: far more than are ever unanswered.
        self.packet_id = self.packet_id.checked_add(1).unwrap_or(1);
        self.encode(Packet::Publish(Box::new(Publish {
            dup: again,
            retain: false,
            qos: QoS::AtLeastOnce,
            topic: topic.to_owned().into(),
            packet_id: NonZeroU16::new(self.packet_id),
            payload: payload.clone(),
            properties: None,
        })))?;
        Ok(self.packet_id)
    }

    /// Sends what [`Self::publish`] has put together.
    pub(crate) async fn flush(&mut self) -> Result<()> {
        while !self.outgoing.is_empty() {
            self.stream.write_buf(&mut self.outgoing).await?;
        }
        self.stream.flush().await?;
        Ok(())
    }

    /// The next answer or message. Nothing is lost when this is dropped while it waits.
    pub(crate) async fn receive(&mut self) -> Result<Received> {
        loop {
            match self.packet().await? {
                Packet::PublishAck(ack) => {
                    let answer = match ack.reason_code {
                        PublishAckReason::Success | PublishAckReason::NoMatchingSubscribers => {
                            Answer::Accepted
                        }
                        PublishAckReason::ImplementationSpecificError => Answer::Unavailable,
                        code => Answer::Refused(
                            ack.reason_string
                                .map_or_else(|| format!("{code:?}"), |reason| reason.to_string()),
                        ),
                    };
                    return Ok(Received::Answer(ack.packet_id.get(), answer));
                }
                Packet::Publish(publish) => return Ok(Received::Message(publish.payload)),
                Packet::Disconnect(disconnect) => bail!("the broker disconnects: {disconnect:?}"),
                _ => {}
            }
        }
    }

    async fn packet(&mut self) -> Result<Packet> {
        loop {
            let decoded = self.codec.decode(&mut self.incoming);
            if let Some((packet, _)) = decoded.map_err(|error| anyhow!("{error}"))? {
                return Ok(packet);
            }
            if self.stream.read_buf(&mut self.incoming).await? == 0 {
                bail!("the broker closed the connection");
            }
        }
    }

    fn encode(&mut self, packet: Packet) -> Result<()> {
        self.codec
            .encode(packet, &mut self.outgoing)
            .map_err(|error| anyhow!("{error}"))
    }
}
