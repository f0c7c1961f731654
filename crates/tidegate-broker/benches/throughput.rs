//! Messages per second through the broker: 50 publishers, QoS 1, 350 bytes, one subscriber.
//!
//! `cargo bench -p tidegate-broker` measures TCP and mutual TLS, acknowledged only and delivered.
//! `cargo bench -p tidegate-broker -- HOST:PORT CERTS` puts the same load on another broker, with
//! `ca.pem`, `device-001.pem` and `device-001-key.pem` out of the folder CERTS; `-` for plain TCP.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for people, whose failures end it"
)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, BytesMut};
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{Codec, Connect, Packet, Subscribe, SubscriptionOptions};
use rustls::ClientConfig;
use tidegate_broker::{
    Access, Broker, BrokerConfig, Disposition, Gate, Incoming, Limits, Listener, SecurityEvent, Transport,
};
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::time::Timestamp;
use tidegate_pki::authority::Authority;
use tidegate_pki::profile::Profile;
use tidegate_pki::tls::{ClientAuth, ClientTls, ServerTls, client_config, server_config};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_util::codec::Encoder;
use tokio_util::sync::CancellationToken;

const PUBLISHERS: u16 = 50;
const PAYLOAD_BYTES: usize = 350;
/// Publishes of one publisher without an acknowledgement.
const WINDOW: u16 = 20;
const WARM_UP: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(4);
const TOPIC: &str = "site/one/sensors";

struct Open;

impl Gate for Open {
    async fn admit(&self, _: Incoming) -> Disposition {
        Disposition::Deliver
    }

    fn observe(&self, event: SecurityEvent) {
        println!("unexpected: {event:?}");
    }
}

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

#[derive(Default)]
struct Counts {
    acknowledged: AtomicU64,
    delivered: AtomicU64,
}

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    let clients = runtime();
    if let [address, certificates] = &arguments[..] {
        let address = address.parse().unwrap();
        let tls = (certificates != "-").then(|| client_tls(Path::new(certificates)));
        for subscribers in [0, 1] {
            measure(&clients, "other", address, tls.clone(), subscribers);
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    issue(folder.path());
    for transport in [Transport::Plain, Transport::Tls] {
        for subscribers in [0, 1] {
            let server = runtime();
            let (address, stop) = serve(&server, transport, folder.path());
            let tls = (transport == Transport::Tls).then(|| client_tls(folder.path()));
            measure(&clients, &format!("{transport:?}"), address, tls, subscribers);
            stop.cancel();
        }
    }
}

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn issue(folder: &Path) {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = Timestamp::from_micros(since_1970.as_micros().try_into().unwrap());
    let authority = Authority::generate(now).unwrap();
    std::fs::write(folder.join("ca.pem"), authority.certificate_pem()).unwrap();
    let profiles = [
        ("server", Profile::server(&[] as &[&str]).unwrap()),
        (
            "device-001",
            Profile::device(DeviceId::new("device-001").unwrap()),
        ),
    ];
    for (name, profile) in profiles {
        authority
            .issue(&profile, now)
            .unwrap()
            .write(folder, name, true)
            .unwrap();
    }
}

fn client_tls(folder: &Path) -> Arc<ClientConfig> {
    let identity = Some((folder.join("device-001.pem"), folder.join("device-001-key.pem")));
    client_config(&ClientTls {
        ca: folder.join("ca.pem"),
        identity,
    })
    .unwrap()
}

fn serve(runtime: &Runtime, transport: Transport, folder: &Path) -> (SocketAddr, CancellationToken) {
    let ca: PathBuf = folder.join("ca.pem");
    let tls = server_config(&ServerTls {
        certificate: folder.join("server.pem"),
        key: folder.join("server-key.pem"),
        client_auth: Some(ClientAuth { ca, crl: None }),
    });
    let address = ([127, 0, 0, 1], 0).into();
    let listeners = vec![Listener {
        address,
        transport,
        access: Access::Open,
    }];
    let config = BrokerConfig {
        listeners,
        tls: Some(tls.unwrap()),
        limits: Limits::default(),
    };
    let stop = CancellationToken::new();
    let broker = runtime.block_on(async { Broker::bind(config, Arc::new(Open)).unwrap() });
    let address = broker.local_addresses()[0];
    runtime.spawn(broker.run(stop.clone()));
    (address, stop)
}

fn measure(
    runtime: &Runtime,
    name: &str,
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    subscribers: u16,
) {
    let counts = Arc::new(Counts::default());
    let mut tasks = JoinSet::new();
    runtime.block_on(async {
        for number in 0..subscribers {
            let socket = open(address, tls.clone(), format!("subscriber-{number}")).await;
            tasks.spawn(subscribe(socket, Arc::clone(&counts)));
        }
        for number in 0..PUBLISHERS {
            let socket = open(address, tls.clone(), format!("publisher-{number}")).await;
            tasks.spawn(publish(socket, Arc::clone(&counts)));
        }
        tokio::time::sleep(WARM_UP).await;
        let read = || {
            (
                counts.acknowledged.load(Ordering::Relaxed),
                counts.delivered.load(Ordering::Relaxed),
            )
        };
        let before = read();
        let start = tokio::time::Instant::now();
        tokio::time::sleep(MEASURED).await;
        let (after, seconds) = (read(), start.elapsed().as_secs_f64());
        let rate = |before: u64, after: u64| (after - before) as f64 / seconds;
        println!(
            "{name:5} {subscribers} subscribers: {:8.0} acknowledged/s {:8.0} delivered/s",
            rate(before.0, after.0),
            rate(before.1, after.1),
        );
        tasks.shutdown().await;
    });
}

async fn open(address: SocketAddr, tls: Option<Arc<ClientConfig>>, client_id: String) -> Box<dyn Socket> {
    let tcp = TcpStream::connect(address).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let mut socket: Box<dyn Socket> = match tls {
        None => Box::new(tcp),
        Some(config) => Box::new(
            TlsConnector::from(config)
                .connect("localhost".try_into().unwrap(), tcp)
                .await
                .unwrap(),
        ),
    };
    let connect = Connect {
        client_id: client_id.into(),
        clean_start: true,
        ..Connect::default()
    };
    socket.write_all(&encoded(connect)).await.unwrap();
    let mut header = [0; 2];
    socket.read_exact(&mut header).await.unwrap();
    let mut rest = vec![0; header[1].into()];
    socket.read_exact(&mut rest).await.unwrap();
    assert_eq!(rest[1], 0, "CONNACK");
    socket
}

fn encoded(packet: impl Into<Packet>) -> BytesMut {
    let mut bytes = BytesMut::new();
    Codec::default().encode(packet.into(), &mut bytes).unwrap();
    bytes
}

/// Keeps a window of publishes in flight. Acknowledgements are counted, not read: each has four
/// bytes, or six from a broker that spells out success.
async fn publish(mut socket: Box<dyn Socket>, counts: Arc<Counts>) {
    let message = Publish {
        dup: false,
        retain: false,
        qos: QoS::AtLeastOnce,
        topic: TOPIC.into(),
        packet_id: 1.try_into().ok(),
        payload: vec![b'x'; PAYLOAD_BYTES].into(),
        properties: None,
    };
    let template = encoded(message);
    let id_at = template.len() - PAYLOAD_BYTES - 3;
    let (mut next, mut free, mut input) = (1_u16, WINDOW, BytesMut::new());
    let mut output = BytesMut::new();
    loop {
        for _ in 0..free {
            let start = output.len();
            output.extend_from_slice(&template);
            output[start + id_at..start + id_at + 2].copy_from_slice(&next.to_be_bytes());
            next = next.checked_add(1).unwrap_or(1);
        }
        socket.write_all_buf(&mut output).await.unwrap();
        assert_ne!(
            socket.read_buf(&mut input).await.unwrap(),
            0,
            "the broker closed the connection"
        );
        free = 0;
        while let Some(length) = input.get(1).map(|length| 2 + usize::from(*length))
            && input.len() >= length
        {
            assert_eq!(input[0], 0x40, "PUBACK");
            input.advance(length);
            free += 1;
        }
        counts.acknowledged.fetch_add(u64::from(free), Ordering::Relaxed);
    }
}

async fn subscribe(mut socket: Box<dyn Socket>, counts: Arc<Counts>) {
    let options = SubscriptionOptions {
        qos: QoS::AtLeastOnce,
        ..SubscriptionOptions::default()
    };
    let topic_filters = vec![("site/#".into(), options)];
    let packet_id = 1.try_into().unwrap();
    socket
        .write_all(&encoded(Subscribe {
            packet_id,
            id: None,
            user_properties: Vec::new(),
            topic_filters,
        }))
        .await
        .unwrap();
    let (mut input, mut output) = (BytesMut::with_capacity(65_536), BytesMut::new());
    loop {
        input.reserve(65_536);
        assert_ne!(
            socket.read_buf(&mut input).await.unwrap(),
            0,
            "the broker closed the connection"
        );
        let mut delivered = 0;
        while let [first, low, high, ..] = input[..] {
            let (header, rest) = match low {
                0..=127 => (2, usize::from(low)),
                _ => (3, usize::from(low & 0x7f) | usize::from(high) << 7),
            };
            if input.len() < header + rest {
                break;
            }
            if first & 0xf0 == 0x30 {
                let id_at = header + 2 + TOPIC.len();
                output.extend_from_slice(&[0x40, 2, input[id_at], input[id_at + 1]]);
                delivered += 1;
            }
            input.advance(header + rest);
        }
        counts.delivered.fetch_add(delivered, Ordering::Relaxed);
        socket.write_all_buf(&mut output).await.unwrap();
    }
}
