//! Stock clients: `mosquitto_pub` and `mosquitto_sub` over TCP, TLS and mutual TLS, and `rumqttc`.
//!
//! The Mosquitto tools must be installed (Debian: `mosquitto-clients`, `coreutils`); without them these
//! tests fail.

use std::path::PathBuf;
use std::process::{Output, Stdio};

use rumqttc::mqttbytes::QoS as RustQos;
use rumqttc::{AsyncClient, Event, Incoming, MqttOptions, PublishOptions, TlsConfiguration, Transport};
use tidegate_broker::Limits;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::identities::Identities;
use crate::serve::{PATIENCE, Server};

/// How the tools reach the broker.
struct Way<'a> {
    server: &'a Server,
    version: &'static str,
    arguments: Vec<PathBuf>,
}

impl Way<'_> {
    fn command(&self, tool: &str, arguments: &[&str]) -> Command {
        // Into a pipe, the tools write whole blocks unless told to write lines.
        let mut command = Command::new("stdbuf");
        command
            .args([
                "-oL",
                tool,
                "-h",
                "localhost",
                "-V",
                self.version,
                "-p",
                &self.server.address.port().to_string(),
            ])
            .args(&self.arguments)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn publish(&self, arguments: &[&str]) -> Output {
        let run = self.command("mosquitto_pub", arguments).output();
        timeout(PATIENCE, run)
            .await
            .expect("mosquitto_pub ends in time")
            .expect("mosquitto_pub is installed")
    }

    /// A subscriber that the broker has answered.
    async fn subscribe(&self, arguments: &[&str]) -> Subscriber {
        let mut command = self.command("mosquitto_sub", arguments);
        let mut child = command.arg("-d").spawn().expect("mosquitto_sub is installed");
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut subscriber = Subscriber { _child: child, lines };
        while !subscriber.line().await.starts_with("Subscribed") {}
        subscriber
    }
}

struct Subscriber {
    _child: Child,
    lines: BufReader<tokio::process::ChildStdout>,
}

impl Subscriber {
    async fn line(&mut self) -> String {
        let mut line = String::new();
        timeout(PATIENCE, self.lines.read_line(&mut line))
            .await
            .expect("output in time")
            .unwrap();
        assert!(!line.is_empty(), "mosquitto_sub has ended");
        line.trim_end().to_owned()
    }

    /// The next message, between lines of debug output.
    async fn message(&mut self) -> String {
        loop {
            let line = self.line().await;
            if !line.starts_with("Client ") && !line.starts_with("Subscribed") {
                return line;
            }
        }
    }
}

const VERSIONS: [&str; 3] = ["mqttv31", "mqttv311", "mqttv5"];

async fn exchange(way: &Way<'_>) {
    for qos in ["0", "1", "2"] {
        let mut subscriber = way.subscribe(&["-t", "site/+/x", "-q", qos]).await;
        let output = way.publish(&["-t", "site/a/x", "-m", "hello", "-q", qos]).await;
        assert!(output.status.success(), "{} QoS {qos}: {output:?}", way.version);
        assert_eq!(subscriber.message().await, "hello", "{} QoS {qos}", way.version);
    }
}

#[tokio::test]
async fn mosquitto_clients_exchange_messages_in_every_version_and_qos() {
    let server = Server::open();
    for version in VERSIONS {
        exchange(&Way {
            server: &server,
            version,
            arguments: Vec::new(),
        })
        .await;
    }
}

#[tokio::test]
async fn mosquitto_clients_exchange_messages_over_tls() {
    let identities = Identities::new();
    let server = identities.serve_open();
    for version in VERSIONS {
        let arguments = vec!["--cafile".into(), identities.path("ca.pem")];
        exchange(&Way {
            server: &server,
            version,
            arguments,
        })
        .await;
    }
}

#[tokio::test]
async fn mosquitto_clients_are_bound_to_their_certificates() {
    let identities = Identities::new();
    let server = identities.serve();
    let way = |name: &str, version| {
        let arguments =
            ["ca", name, &format!("{name}-key")].map(|file| identities.path(&format!("{file}.pem")));
        let [ca, certificate, key] = arguments;
        let arguments = vec![
            "--cafile".into(),
            ca,
            "--cert".into(),
            certificate,
            "--key".into(),
            key,
        ];
        Way {
            server: &server,
            version,
            arguments,
        }
    };
    for version in ["mqttv311", "mqttv5"] {
        let mut gateway = way("gateway", version)
            .subscribe(&["-t", "site/+/sensors", "-q", "1"])
            .await;
        let device = way("device-001", version);
        // A denied publish of MQTT 3.1.1 looks like a delivered one; the subscriber must not see it.
        let denied = device
            .publish(&["-t", "site/two/sensors", "-m", "forged", "-q", "1"])
            .await;
        assert_eq!(
            String::from_utf8_lossy(&denied.stderr).contains("authorized"),
            version == "mqttv5",
            "{denied:?}"
        );
        let output = device
            .publish(&["-t", "site/one/sensors", "-m", "reading", "-q", "1"])
            .await;
        assert!(output.status.success(), "{output:?}");
        assert_eq!(gateway.message().await, "reading");
    }
    let without = Way {
        server: &server,
        version: "mqttv5",
        arguments: vec!["--cafile".into(), identities.path("ca.pem")],
    };
    let refused = without
        .publish(&["-t", "site/one/sensors", "-m", "x", "-q", "1"])
        .await;
    assert!(!refused.status.success());
}

#[tokio::test]
async fn mosquitto_sub_gets_retained_messages_wills_and_what_waited() {
    let server = Server::open();
    let way = Way {
        server: &server,
        version: "mqttv5",
        arguments: Vec::new(),
    };
    assert!(
        way.publish(&["-t", "kept", "-m", "old", "-r", "-q", "1"])
            .await
            .status
            .success()
    );
    assert_eq!(way.subscribe(&["-t", "kept"]).await.message().await, "old");

    let lasting = ["-t", "waiting", "-q", "1", "-i", "sub", "-c"];
    drop(way.subscribe(&lasting).await);
    assert!(
        way.publish(&["-t", "waiting", "-m", "waited", "-q", "1"])
            .await
            .status
            .success()
    );
    let mut back = way.command("mosquitto_sub", &lasting).spawn().unwrap();
    let mut lines = BufReader::new(back.stdout.take().unwrap()).lines();
    let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap();
    assert_eq!(line.as_deref(), Some("waited"));

    let mut heir = way.subscribe(&["-t", "wills"]).await;
    let dying = ["-t", "x", "--will-topic", "wills", "--will-payload", "last words"];
    drop(way.subscribe(&dying).await);
    assert_eq!(heir.message().await, "last words");
}

#[tokio::test]
async fn large_and_many_messages_pass_through_mosquitto_clients() {
    let server = Server::limited(Limits::default());
    let way = Way {
        server: &server,
        version: "mqttv311",
        arguments: Vec::new(),
    };
    let mut subscriber = way.subscribe(&["-t", "t", "-q", "1"]).await;
    let large = "x".repeat(60_000);
    assert!(
        way.publish(&["-t", "t", "-m", &large, "-q", "1"])
            .await
            .status
            .success()
    );
    assert_eq!(subscriber.message().await.len(), large.len());
    let output = way
        .publish(&["-t", "t", "-m", "again", "-q", "1", "--repeat", "500"])
        .await;
    assert!(output.status.success(), "{output:?}");
    for _ in 0..500 {
        assert_eq!(subscriber.message().await, "again");
    }
}

#[tokio::test]
async fn rumqttc_publishes_and_receives_over_mutual_tls() {
    let identities = Identities::new();
    let server = identities.serve();
    let mut options = MqttOptions::new("rust", ("localhost", server.address.port()));
    options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(
        identities.client_tls(Some("operator")),
    )));
    let (client, mut events) = AsyncClient::builder(options).capacity(10).build();
    client
        .subscribe("site/+/commands", RustQos::ExactlyOnce)
        .await
        .unwrap();
    let mut received = Vec::new();
    while received.len() < 3 {
        let event = timeout(PATIENCE, events.poll())
            .await
            .expect("an event in time")
            .unwrap();
        match event {
            Event::Incoming(Incoming::SubAck(_)) => {
                for qos in [RustQos::AtMostOnce, RustQos::AtLeastOnce, RustQos::ExactlyOnce] {
                    let publish =
                        client.publish("site/one/commands", format!("{qos:?}"), PublishOptions::new(qos));
                    publish.await.unwrap();
                }
            }
            Event::Incoming(Incoming::Publish(publish)) => received.push(publish.payload),
            _ => {}
        }
    }
    assert_eq!(received, ["AtMostOnce", "AtLeastOnce", "ExactlyOnce"]);
}
