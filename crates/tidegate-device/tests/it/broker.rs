//! As much of an MQTT 5 broker as one publisher needs, with every answer in the test's hands.

use tidegate_pki::tls::{ServerTls, server_config};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A packet from the publisher.
#[derive(Debug, PartialEq)]
pub(crate) enum Packet {
    Publish {
        topic: String,
        id: u16,
        dup: bool,
        payload: Vec<u8>,
    },
    /// A PUBLISH at QoS 0.
    Question {
        topic: String,
        payload: Vec<u8>,
    },
    Subscribe {
        filter: String,
        id: u16,
    },
    Disconnect,
    /// The connection ended without a farewell.
    End,
}

/// A listener on a free port.
pub(crate) struct Broker {
    listener: TcpListener,
    tls: Option<tokio_rustls::TlsAcceptor>,
}

/// One accepted connection.
pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    pub(crate) client_id: String,
    pub(crate) clean_start: bool,
}

impl Broker {
    pub(crate) async fn plain() -> Self {
        Self {
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            tls: None,
        }
    }

    pub(crate) async fn tls(tls: &ServerTls) -> Self {
        let config = server_config(tls).unwrap();
        Self {
            tls: Some(config.into()),
            ..Self::plain().await
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    /// Accepts a connection and its CONNECT, and answers with CONNACK.
    pub(crate) async fn accept(&self, session_present: bool) -> std::io::Result<Connection> {
        let (tcp, _) = self.listener.accept().await?;
        let mut stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(tcp),
            Some(acceptor) => Box::new(acceptor.clone().accept(tcp).await?),
        };
        let (first, body) = packet(&mut stream).await?;
        assert_eq!(first, 0x10, "a CONNECT comes first");
        assert_eq!(&body[..7], b"\0\x04MQTT\x05");
        let clean_start = body[7] & 0x02 != 0;
        let properties = usize::from(body[10]);
        let client_id = text(&body[11 + properties..]);
        stream
            .write_all(&[0x20, 3, u8::from(session_present), 0, 0])
            .await?;
        Ok(Connection {
            stream,
            client_id,
            clean_start,
        })
    }
}

impl Connection {
    /// The next packet; pings are answered and not shown.
    pub(crate) async fn next(&mut self) -> Packet {
        loop {
            let Ok((first, body)) = packet(&mut self.stream).await else {
                return Packet::End;
            };
            match first >> 4 {
                // A question for the time, at QoS 0 and not retained.
                3 if first & 0x07 == 0 => {
                    let topic = text(&body);
                    let rest = &body[2 + topic.len()..];
                    let payload = rest[1 + usize::from(rest[0])..].to_vec();
                    return Packet::Question { topic, payload };
                }
                8 => {
                    let id = u16::from_be_bytes([body[0], body[1]]);
                    let filter = text(&body[3 + usize::from(body[2])..]);
                    return Packet::Subscribe { filter, id };
                }
                3 => {
                    assert_eq!(first & 0x07, 0x02, "QoS 1 and not retained");
                    let topic = text(&body);
                    let rest = &body[2 + topic.len()..];
                    let id = u16::from_be_bytes([rest[0], rest[1]]);
                    let payload = rest[3 + usize::from(rest[2])..].to_vec();
                    return Packet::Publish {
                        topic,
                        id,
                        dup: first & 0x08 != 0,
                        payload,
                    };
                }
                12 => self.stream.write_all(&[0xd0, 0]).await.unwrap(),
                14 => return Packet::Disconnect,
                other => panic!("packet of type {other}"),
            }
        }
    }

    /// The next packet's payload and id; it must be a PUBLISH.
    pub(crate) async fn published(&mut self) -> (u16, Vec<u8>) {
        match self.next().await {
            Packet::Publish { id, payload, .. } => (id, payload),
            other => panic!("{other:?} instead of a PUBLISH"),
        }
    }

    /// Answers a PUBLISH with a reason code; 0 is success.
    pub(crate) async fn answer(&mut self, id: u16, code: u8) {
        let [high, low] = id.to_be_bytes();
        self.stream.write_all(&[0x40, 3, high, low, code]).await.unwrap();
    }
}

impl Connection {
    /// Grants a subscription, at QoS 0.
    pub(crate) async fn subscribed(&mut self, id: u16) {
        let [high, low] = id.to_be_bytes();
        self.stream.write_all(&[0x90, 4, high, low, 0, 0]).await.unwrap();
    }
}

async fn packet(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<(u8, Vec<u8>)> {
    let first = stream.read_u8().await?;
    let (mut length, mut shift) = (0_usize, 0);
    loop {
        let byte = stream.read_u8().await?;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok((first, body))
}

fn text(bytes: &[u8]) -> String {
    let length = usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
    String::from_utf8(bytes[2..2 + length].to_vec()).unwrap()
}
