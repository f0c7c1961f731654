//! A client's way into a broker: TCP, TLS, CONNECT, CONNACK, and then one packet after the other.

use anyhow::{Context, Result, bail};
use bytes::BytesMut;
use rmqtt_codec::v3::{Codec, Connect, ConnectAckReason, Packet};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::codec::{Decoder, Encoder};

/// Largest packet that is read.
const LARGEST_PACKET_BYTES: u32 = 1 << 16;

/// An open connection, CONNACK received.
pub(super) struct Link {
    stream: TlsStream<TcpStream>,
    codec: Codec,
    incoming: BytesMut,
}

/// What the two ends agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Agreed {
    /// Such as `TLS 1.3`.
    pub(super) version: &'static str,
    /// Such as `X25519MLKEM768`; `no key exchange` in a resumed TLS 1.2.
    pub(super) key_exchange: String,
    /// Whether an earlier session was taken up, without certificates.
    pub(super) resumed: bool,
}

impl Link {
    /// Connects as `client_id`, which may be silent for `keep_alive_s` seconds, and waits until the
    /// broker has taken it.
    pub(super) async fn open(
        port: u16,
        tls: &Arc<ClientConfig>,
        client_id: &str,
        keep_alive_s: u16,
    ) -> Result<Self> {
        let socket = connect(Ipv4Addr::LOCALHOST, port).await?;
        let stream = shake_hands(tls, socket).await?;
        let mut link = Self {
            stream,
            codec: Codec::new(LARGEST_PACKET_BYTES),
            incoming: BytesMut::new(),
        };
        let connect = Connect {
            clean_session: true,
            keep_alive: keep_alive_s,
            client_id: client_id.into(),
            ..Connect::default()
        };
        link.send(Packet::Connect(Box::new(connect))).await?;
        match link.receive().await? {
            Packet::ConnectAck(ack) if ack.return_code == ConnectAckReason::ConnectionAccepted => Ok(link),
            other => bail!("the broker answers {other:?}"),
        }
    }

    /// What TLS agreed on.
    pub(super) fn agreed(&self) -> Result<Agreed> {
        let connection = self.stream.get_ref().1;
        Ok(Agreed {
            version: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
                Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
                other => bail!("an unexpected protocol version: {other:?}"),
            },
            key_exchange: connection.negotiated_key_exchange_group().map_or_else(
                || "no key exchange".to_owned(),
                |group| format!("{:?}", group.name()),
            ),
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        })
    }

    /// Asks whether the broker is there, and waits for its answer.
    pub(super) async fn ping(&mut self) -> Result<()> {
        self.send(Packet::PingRequest).await?;
        match self.receive().await? {
            Packet::PingResponse => Ok(()),
            other => bail!("the broker answers a ping with {other:?}"),
        }
    }

    /// Says goodbye, and waits until the broker has closed.
    pub(super) async fn leave(mut self) {
        // Whatever fails here, the connection is gone.
        if self.send(Packet::Disconnect).await.is_ok() {
            self.closed().await;
        }
    }

    /// Waits until the broker closes. Nothing is lost when this is dropped while it waits.
    pub(super) async fn closed(&mut self) {
        while self.receive().await.is_ok() {}
    }

    /// Sends one packet.
    pub(super) async fn send(&mut self, packet: Packet) -> Result<()> {
        let mut out = BytesMut::new();
        self.encode(packet, &mut out)?;
        self.write(&out).await
    }

    /// Adds a packet to `out`.
    pub(super) fn encode(&mut self, packet: Packet, out: &mut BytesMut) -> Result<()> {
        self.codec
            .encode(packet, out)
            .map_err(|error| anyhow::anyhow!("{error}"))
    }

    /// Sends what was encoded.
    pub(super) async fn write(&mut self, packets: &[u8]) -> Result<()> {
        self.stream.write_all(packets).await?;
        // TLS keeps what the socket does not take at once, and nobody asks for it again.
        Ok(self.stream.flush().await?)
    }

    /// The next packet. Nothing is lost when this is dropped while it waits.
    pub(super) async fn receive(&mut self) -> Result<Packet> {
        loop {
            if let Some(packet) = self.decode()? {
                return Ok(packet);
            }
            if self.stream.read_buf(&mut self.incoming).await? == 0 {
                bail!("the broker closed the connection");
            }
        }
    }

    /// The next packet of those that have arrived.
    pub(super) fn decode(&mut self) -> Result<Option<Packet>> {
        let decoded = self.codec.decode(&mut self.incoming);
        decoded
            .map(|found| found.map(|(packet, _)| packet))
            .map_err(|error| anyhow::anyhow!("{error}"))
    }
}

/// A socket to a port of this machine, from one of its loopback addresses.
pub(super) async fn connect(from: Ipv4Addr, port: u16) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4().context("no socket")?;
    if from != Ipv4Addr::LOCALHOST {
        socket.bind((IpAddr::V4(from), 0).into())?;
    }
    let stream = socket
        .connect((Ipv4Addr::LOCALHOST, port).into())
        .await
        .context("cannot connect")?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The client's side of a TLS handshake with `localhost`.
pub(super) async fn shake_hands(tls: &Arc<ClientConfig>, socket: TcpStream) -> Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost")?;
    TlsConnector::from(Arc::clone(tls))
        .connect(name, socket)
        .await
        .context("no TLS connection")
}
