//! The subscriber, at the embedded broker and at a stock Mosquitto (which must be installed).

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::PublishProperties;
use rumqttc::MqttOptions;
use tempfile::TempDir;
use tidegate_broker::subscriber::{self, Refused, Watch};
use tidegate_broker::{Disposition, Gate, Incoming, Reply, SecurityEvent};
use tidegate_envelope::principal::Principal;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::client::{Client, connect, lasting, publish};
use crate::serve::{PATIENCE, Server};

/// Holds `held` until let go, cannot store the first `unlucky` and no `full` while it is full,
/// answers what comes on `…/time`, and takes everything else.
struct Listening {
    seen: UnboundedSender<Incoming>,
    unlucky: AtomicBool,
    full: AtomicBool,
    held: Semaphore,
}

impl Gate for Listening {
    async fn admit(&self, publish: Incoming) -> Disposition {
        let wish = publish.payload.clone();
        let asker = publish.topic.strip_suffix("/time").map(str::to_owned);
        let _ = self.seen.send(publish);
        if let Some(asker) = asker {
            return Disposition::Reply(Reply {
                topic: format!("{asker}/commands").into(),
                payloads: vec!["now".into()],
            });
        }
        match &*wish {
            b"held" => self.held.acquire().await.unwrap().forget(),
            b"unlucky" if self.unlucky.swap(false, Ordering::Relaxed) => return Disposition::Unavailable,
            wish if wish.starts_with(b"full") && self.full.load(Ordering::Relaxed) => {
                return Disposition::Unavailable;
            }
            _ => {}
        }
        Disposition::Deliver
    }

    fn observe(&self, _: SecurityEvent) {}
}

struct Told(UnboundedSender<bool>);

impl Watch for Told {
    fn connected(&mut self) {
        let _ = self.0.send(true);
    }

    fn disconnected(&mut self, _: &str) {
        let _ = self.0.send(false);
    }
}

/// A running subscriber to `site/#`.
struct Gateway {
    gate: Arc<Listening>,
    seen: UnboundedReceiver<Incoming>,
    told: UnboundedReceiver<bool>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), Refused>>,
}

impl Gateway {
    /// A subscriber whose subscription stands.
    async fn at(port: u16) -> Self {
        let (seen_in, seen) = unbounded_channel();
        let (told_in, told) = unbounded_channel();
        let gate = Arc::new(Listening {
            seen: seen_in,
            unlucky: AtomicBool::new(true),
            full: AtomicBool::new(true),
            held: Semaphore::new(0),
        });
        let (stop, asked) = (CancellationToken::new(), Arc::clone(&gate));
        let stopping = stop.clone();
        let task = tokio::spawn(async move {
            let options = MqttOptions::new("gateway", ("127.0.0.1", port));
            subscriber::run(options, "site/#", &asked, stopping, &mut Told(told_in)).await
        });
        let mut gateway = Self {
            gate,
            seen,
            told,
            stop,
            task,
        };
        assert!(gateway.told().await);
        gateway
    }

    async fn told(&mut self) -> bool {
        timeout(PATIENCE, self.told.recv()).await.unwrap().unwrap()
    }

    async fn seen(&mut self) -> Incoming {
        timeout(PATIENCE, self.seen.recv()).await.unwrap().unwrap()
    }

    /// Ends without a word, as in a crash.
    async fn crash(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    async fn stop(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test]
async fn delivery_tells_the_gate_all_that_the_broker_knows() {
    let server = Server::open();
    let mut sender = Client::open(server.address, "sender").await;
    let mut kept = publish("site/one/kept", "old", QoS::AtLeastOnce, 1);
    kept.retain = true;
    sender.send(kept).await;
    sender.acknowledged().await;
    let mut gateway = Gateway::at(server.address.port()).await;
    let old = gateway.seen().await;
    assert_eq!((&*old.payload, old.retain), (&b"old"[..], true));

    let mut signed = publish("site/one/sensors", "m", QoS::AtLeastOnce, 2);
    let property = ("tidegate-mac0".into(), "abc".into());
    signed.properties = Some(PublishProperties {
        user_properties: vec![property],
        ..PublishProperties::default()
    });
    sender.send(signed).await;
    let new = gateway.seen().await;
    assert_eq!((&*new.topic, &*new.payload), ("site/one/sensors", &b"m"[..]));
    assert_eq!(new.user_properties, [("tidegate-mac0".into(), "abc".into())]);
    assert_eq!(
        (new.qos, new.retain, new.dup, new.resumed),
        (1, false, false, false)
    );
    assert_eq!((&*new.principal, new.peer), (&Principal::Broker, None));
    gateway.stop().await;
}

#[tokio::test]
async fn what_could_not_be_stored_comes_again_over_a_new_connection() {
    let server = Server::open();
    let mut gateway = Gateway::at(server.address.port()).await;
    let mut sender = Client::open(server.address, "sender").await;
    sender.publish("site/one/sensors", "unlucky").await;
    let first = gateway.seen().await;
    assert!(!first.dup && !first.resumed);
    assert!(!gateway.told().await, "the connection ends");
    assert!(gateway.told().await, "and is made again");
    let again = gateway.seen().await;
    assert_eq!(&*again.payload, b"unlucky");
    assert!(again.dup && again.resumed);
    assert_eq!(again.session, first.session);
    sender.publish("site/one/sensors", "next").await;
    assert_eq!(&*gateway.seen().await.payload, b"next");
    gateway.stop().await;
}

#[tokio::test]
async fn one_message_at_a_time_is_tried_while_nothing_can_be_stored_and_all_come_in_order_afterwards() {
    let server = Server::open();
    let mut gateway = Gateway::at(server.address.port()).await;
    let mut sender = Client::open(server.address, "sender").await;
    let all = ["full 1", "full 2", "full 3", "full 4", "full 5"];
    for payload in all {
        sender.publish("site/one/sensors", payload).await;
    }
    // The first connection may have had them all on their way.
    assert!(!gateway.told().await);
    while gateway.seen.try_recv().is_ok() {}
    for _ in 0..2 {
        // What is owed may come before the subscription stands again.
        while gateway.told().await {}
        assert_eq!(&*gateway.seen().await.payload, b"full 1");
        assert!(gateway.seen.try_recv().is_err());
    }
    gateway.gate.full.store(false, Ordering::Relaxed);
    let mut seen = Vec::new();
    while seen.last().is_none_or(|last| last != all[4]) {
        seen.push(gateway.seen().await.payload);
    }
    // A try that was under way may have failed once more.
    seen.dedup();
    assert_eq!(seen, all);
    gateway.stop().await;
}

#[tokio::test]
async fn session_that_a_crash_left_without_its_subscription_gets_it() {
    let server = Server::open();
    // The gateway connected, and died before it subscribed.
    drop(Client::with(server.address, lasting("gateway")).await);
    let mut gateway = Gateway::at(server.address.port()).await;
    let mut sender = Client::open(server.address, "sender").await;
    sender.publish("site/one/sensors", "m").await;
    let seen = gateway.seen().await;
    assert_eq!(&*seen.payload, b"m");
    assert!(seen.resumed);
    gateway.stop().await;
}

#[tokio::test]
async fn stopping_answers_and_acknowledges_what_the_gate_has_and_leaves_the_rest_to_the_broker() {
    let server = Server::open();
    let mut gateway = Gateway::at(server.address.port()).await;
    let mut sender = Client::open(server.address, "sender").await;
    sender.publish("site/one/sensors", "held").await;
    gateway.seen().await;
    gateway.stop.cancel();
    gateway.gate.held.add_permits(1);
    gateway.stop().await;
    sender.publish("site/one/sensors", "later").await;
    let mut gateway = Gateway::at(server.address.port()).await;
    let later = gateway.seen().await;
    assert_eq!(&*later.payload, b"later");
    assert!(later.resumed);
    gateway.stop().await;
}

#[tokio::test]
async fn gateway_without_access_is_told_so_and_gives_up() {
    let server = Server::start(
        tidegate_broker::Transport::Plain,
        crate::identities::rules(),
        None,
        tidegate_broker::Limits::default(),
    );
    let (seen, _) = unbounded_channel();
    let gate = Arc::new(Listening {
        seen,
        unlucky: AtomicBool::new(false),
        full: AtomicBool::new(false),
        held: Semaphore::new(0),
    });
    let options = MqttOptions::new("gateway", ("127.0.0.1", server.address.port()));
    let mut watch = Told(unbounded_channel().0);
    let run = subscriber::run(options, "site/#", &gate, CancellationToken::new(), &mut watch);
    let refused = timeout(PATIENCE, run).await.unwrap().unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the broker refuses this gateway: NotAuthorized"
    );
}

/// A broker at `port`: whatever happens before the acknowledgement, the message comes again.
async fn nothing_is_acknowledged_before_the_gate_has_answered(port: u16) {
    let address = ([127, 0, 0, 1], port).into();
    let mut gateway = Gateway::at(port).await;
    let mut sender = Client::open(address, "sender").await;
    sender.publish("site/one/sensors", "held").await;
    let first = gateway.seen().await;
    assert!(!first.dup && !first.resumed);
    gateway.crash().await;

    let mut gateway = Gateway::at(port).await;
    let again = gateway.seen().await;
    assert_eq!(&*again.payload, b"held");
    assert!(again.dup && again.resumed);
    gateway.gate.held.add_permits(1);
    sender.publish("site/one/sensors", "next").await;
    assert_eq!(&*gateway.seen().await.payload, b"next");
    gateway.stop().await;

    sender.publish("site/one/sensors", "last").await;
    let mut gateway = Gateway::at(port).await;
    let last = gateway.seen().await;
    assert_eq!(
        &*last.payload, b"last",
        "what was acknowledged does not come again"
    );
    gateway.stop().await;
}

/// A broker at `port`: the asker is answered, and the gateway does not hear its own answer.
async fn question_is_answered_through_the_broker(port: u16) {
    let address = ([127, 0, 0, 1], port).into();
    let mut device = Client::with(address, connect("device")).await.0;
    device.subscribe("site/one/commands", QoS::AtLeastOnce).await;
    // In a new session, and in one that a gateway before this one has left behind.
    for resumed in [false, true] {
        let mut gateway = Gateway::at(port).await;
        device
            .send(publish("site/one/time", "?", QoS::AtMostOnce, 0))
            .await;
        assert_eq!(device.payload().await, "now");
        let asked = gateway.seen().await;
        assert_eq!((&*asked.topic, asked.resumed), ("site/one/time", resumed));
        device.publish("site/one/sensors", "m").await;
        assert_eq!(&*gateway.seen().await.topic, "site/one/sensors");
        gateway.stop().await;
    }
}

#[tokio::test]
async fn embedded_broker_keeps_what_the_gate_has_not_answered() {
    let server = Server::open();
    nothing_is_acknowledged_before_the_gate_has_answered(server.address.port()).await;
}

#[tokio::test]
async fn embedded_broker_carries_answers() {
    let server = Server::open();
    question_is_answered_through_the_broker(server.address.port()).await;
}

#[tokio::test]
async fn mosquitto_keeps_what_the_gate_has_not_answered() {
    let mosquitto = Mosquitto::start().await;
    nothing_is_acknowledged_before_the_gate_has_answered(mosquitto.port).await;
}

#[tokio::test]
async fn mosquitto_carries_answers() {
    let mosquitto = Mosquitto::start().await;
    question_is_answered_through_the_broker(mosquitto.port).await;
}

/// A stock Mosquitto on a free port.
struct Mosquitto {
    port: u16,
    _folder: TempDir,
    _child: Child,
}

impl Mosquitto {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let file = folder.path().join("mosquitto.conf");
        let text = format!("listener {port} 127.0.0.1\nallow_anonymous true\nlog_dest stderr\n");
        std::fs::write(&file, text).unwrap();
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let mut child = Command::new("mosquitto")
            .arg("-c")
            .arg(&file)
            .env("PATH", path)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("mosquitto is installed");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let running = async {
            while !lines
                .next_line()
                .await
                .unwrap()
                .expect("mosquitto runs")
                .contains(" running")
            {}
        };
        timeout(PATIENCE, running)
            .await
            .expect("mosquitto starts in time");
        // Its log is read to the end, or Mosquitto would block on it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self {
            port,
            _folder: folder,
            _child: child,
        }
    }
}
