//! A running server, events, and small clients for its two ports.

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tidegate_envelope::id::{DeviceId, MessageDeviceId, ZoneId};
use tidegate_envelope::reading::Channels;
use tidegate_envelope::reason::{Layer, Reason};
use tidegate_envelope::time::Timestamp;
use tidegate_serve::access::{Access, Denied};
use tidegate_serve::hub::{DeviceOptions, Hub, HubOptions, ZoneOptions};
use tidegate_serve::protocol::Totals;
use tidegate_serve::server::Server;
use tidegate_store::event::{Event, Outcome};
use tidegate_store::reader::Reader;
use tidegate_store::writer::{Options, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};
use tokio_util::sync::CancellationToken;

/// 2027-01-15, 08:00:00 UTC.
pub(crate) const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);
/// Longer than anything here takes; a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server on free ports, stopped when dropped.
pub(crate) struct Running {
    pub(crate) hub: Hub,
    pub(crate) page: SocketAddr,
    pub(crate) compatible: SocketAddr,
    pub(crate) denied: Arc<Mutex<Vec<Denied>>>,
    pub(crate) task: JoinHandle<std::io::Result<()>>,
    pub(crate) cancelled: CancellationToken,
    folder: TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cancelled.cancel();
    }
}

/// A server with nothing in its database.
pub(crate) async fn start() -> Running {
    start_with(Vec::new(), 0).await
}

/// A server with `kept` in its database, of which its hub knows the newest `known`.
pub(crate) async fn start_with(kept: Vec<Event>, known: usize) -> Running {
    let page = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let compatible = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hub = Hub::new(HubOptions {
        site: "Grand Marina".into(),
        level: "ai".into(),
        demo: true,
        layers: vec![Layer::Tls, Layer::Signature],
        zones: vec![
            zone("main_building", "Main Building", &[1, 4]),
            zone("pool_spa", "Pool & Spa", &[2]),
        ],
        totals: Totals {
            accepted: 10,
            flagged: 1,
            blocked: 2,
            got_in: 0,
        },
        recent: kept[kept.len() - known..].to_vec(),
        notes: vec!["a shared secret is in use".into()],
        clock: || NOW,
    });
    let denied = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&denied);
    let running = Running {
        hub: hub.clone(),
        page: page.local_addr().unwrap(),
        compatible: compatible.local_addr().unwrap(),
        denied,
        cancelled: CancellationToken::new(),
        folder: TempDir::new().unwrap(),
        task: tokio::spawn(async { Ok(()) }),
    };
    let server = Server {
        page,
        compatible: Some(compatible),
        hub,
        reader: reader(&running.folder, kept),
        access: Access::default(),
        on_denied: Arc::new(move |denial| seen.lock().unwrap().push(denial)),
    };
    let task = tokio::spawn(server.run(running.cancelled.clone()));
    let mut running = running;
    running.task = task;
    running
}

/// A database that holds `kept`.
fn reader(folder: &TempDir, kept: Vec<Event>) -> Reader {
    let path = folder.path().join("tidegate.db");
    let options = Options {
        event_rows_per_second: u32::MAX,
        ..Options::default()
    };
    let mut store = Store::open(&path, &[], &options).unwrap();
    for event in kept {
        store.record(event);
    }
    store.flush().unwrap();
    store.close().unwrap();
    Reader::open(&path).unwrap()
}

fn zone(id: &str, name: &str, devices: &[u32]) -> ZoneOptions {
    let device = |number: &u32| DeviceOptions {
        id: DeviceId::new(&format!("device-{number:03}")).unwrap(),
        message_id: MessageDeviceId::new(&format!("HYDROLOGIC-Device-{number:03}")).unwrap(),
    };
    ZoneOptions {
        id: ZoneId::new(id).unwrap(),
        name: name.into(),
        devices: devices.iter().map(device).collect(),
    }
}

/// An accepted reading of `device-002` in `pool_spa`.
pub(crate) fn accepted() -> Event {
    let mut event = Event::new(NOW, Outcome::Accepted, None);
    event.device = Some(DeviceId::new("device-002").unwrap());
    event.zone = Some(ZoneId::new("pool_spa").unwrap());
    event.topic = "hydroficient/grandmarina/device-002/sensors".into();
    event.source = "device-002 at 127.0.0.1:50000".into();
    event.sequence = Some(7);
    event.protected = true;
    let channels = [
        ("pressure_upstream", 60.1),
        ("pressure_downstream", 55.0),
        ("flow_rate", 12.5),
        ("gate_a_position", 40.0),
    ];
    event.channels = Channels::new(
        channels
            .iter()
            .map(|(name, value)| ((*name).into(), *value))
            .collect(),
    )
    .unwrap();
    event
}

/// The same reading, flagged.
pub(crate) fn flagged(id: i64) -> Event {
    let mut event = accepted();
    event.id = id;
    event.outcome = Outcome::Flagged;
    event.reason = Some(Reason::Anomaly);
    event.score = Some(-0.123_456);
    event.detail = "flow_rate is far above normal".into();
    event
}

/// A refused message that claims to be from `device-002`.
pub(crate) fn blocked(id: i64, reason: Reason) -> Event {
    let mut event = Event::new(NOW, Outcome::Blocked, Some(reason));
    event.id = id;
    event.device = Some(DeviceId::new("device-002").unwrap());
    event.zone = Some(ZoneId::new("pool_spa").unwrap());
    event.topic = "hydroficient/grandmarina/device-002/sensors".into();
    event.source = "mallory at 127.0.0.1:50001".into();
    event.raw = Some(b"{\"device_id\":\"HYDROLOGIC-Device-002\"}".to_vec());
    event
}

/// A WebSocket client.
pub(crate) struct Client(WebSocketStream<TcpStream>);

impl Client {
    /// Connects, or says with which status it was refused.
    pub(crate) async fn connect(
        address: SocketAddr,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, u16> {
        let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let socket = TcpStream::connect(address).await.unwrap();
        match client_async(request, socket).await {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    /// The next text frame; `None` when the connection has ended.
    pub(crate) async fn text(&mut self) -> Option<String> {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.0.next())
                .await
                .expect("the server says something");
            match message? {
                Ok(Message::Text(text)) => return Some(text.to_string()),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The next text frame as JSON.
    pub(crate) async fn json(&mut self) -> Value {
        serde_json::from_str(&self.text().await.expect("the connection is open")).unwrap()
    }

    /// Reads until a message satisfies `wanted`.
    pub(crate) async fn json_where(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let message = self.json().await;
            if wanted(&message) {
                return message;
            }
        }
    }

    pub(crate) async fn send(&mut self, message: Message) {
        self.0.send(message).await.unwrap();
    }

    pub(crate) async fn say(&mut self, text: &str) {
        self.send(Message::text(text)).await;
    }
}

/// An answer over plain HTTP.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// GET with the right Host.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Answer {
    ask(
        address,
        &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"),
    )
    .await
}

/// Sends `request` as it stands, and reads until the server closes.
pub(crate) async fn ask(address: SocketAddr, request: &str) -> Answer {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    // The server may close before it has read everything, which is an error here and no fault there.
    let _ = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut bytes))
        .await
        .expect("the server closes");
    let end = bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .expect("the answer has a head");
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head[9..12].parse().unwrap();
    Answer {
        status,
        head,
        body: bytes[end + 4..].to_vec(),
    }
}
