//! Certificates, CAs, revocation lists and registry exchanged under a running Tidegate, with stock
//! clients as its witnesses.

use crate::support::{Lines, Running, Site, http_get, wait_for};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tidegate_envelope::time::Timestamp;

mod enrollment;
mod gateway;
mod lists;
mod server;

/// A `mosquitto_sub` that is connected, and says what happens to it.
struct Session {
    child: Child,
    said: Receiver<String>,
}

impl Session {
    /// Connects and subscribes.
    fn open(site: &Site, identity: &str, topic: &str) -> Self {
        // Its output is a pipe, and buffered unless `stdbuf` says otherwise.
        let client = site.stock_client("mosquitto_sub", identity);
        let mut command = Command::new("stdbuf");
        command
            .args(["-oL", "-eL", "mosquitto_sub"])
            .args(client.get_args())
            .args(["-V", "5", "-d", "-t", topic])
            .current_dir(site.path(""))
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, said) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let session = Self { child, said };
        session.wait_for("received SUBACK");
        session
    }

    /// A device that listens for its commands.
    fn device(site: &Site, id: &str) -> Self {
        Self::open(site, id, &commands(id))
    }

    /// Waits for a line with this in it; nothing before it may say that the session ended.
    fn wait_for(&self, text: &str) {
        loop {
            let line = self.said.recv_timeout(crate::support::PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("waited in vain for `{text}`"));
            if line.contains(text) {
                return;
            }
            assert!(!line.contains("DISCONNECT"), "{line}, and not `{text}`");
        }
    }

    /// The broker sends it away.
    fn is_closed(&self) {
        self.wait_for("Received DISCONNECT");
    }

    /// It is the session that it was: a command arrives in it, and nothing else came before.
    fn goes_on(&self, site: &Site, id: &str, command: &str) {
        let sent = site
            .stock_client("mosquitto_pub", "operator")
            .args(["-t", &commands(id), "-m", command])
            .status();
        assert!(sent.unwrap().success());
        loop {
            let line = self.said.recv_timeout(crate::support::PATIENCE).unwrap();
            for end in ["DISCONNECT", "sending CONNECT", "CONNACK"] {
                assert!(!line.contains(end), "{id} did not stay connected: {line}");
            }
            if line == command {
                return;
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn commands(id: &str) -> String {
    format!("hydroficient/grandmarina/{id}/commands")
}

/// Whether a device can connect and publish anew.
fn is_let_in(site: &Site, id: &str) -> bool {
    let topic = format!("hydroficient/grandmarina/{id}/sensors");
    let mut client = site.stock_client("mosquitto_pub", id);
    let client = client.args(["-t", &topic, "-m", READING]).stderr(Stdio::null());
    client.status().unwrap().success()
}

/// Taken at level mtls, where messages are not signed.
const READING: &str = r#"{"device_id": "x", "timestamp": "2026-01-01T00:00:00Z", "counter": 1,
    "pressure_upstream": 60.0, "pressure_downstream": 55.0, "flow_rate": 20.0}"#;

/// A running `tidegate up` at level mtls, and what it prints.
fn up() -> (Site, Running, Lines) {
    let site = Site::new("mtls", "");
    let (running, lines) = site.start_and_listen(&["up"], &site.path("up.log"));
    (site, running, lines)
}

/// The details of the stored events with this reason, the oldest first.
fn details(site: &Site, reason: &str) -> Vec<String> {
    let mut events = site.stored_events();
    events.retain(|event| event["reason"] == reason);
    events.sort_by(|a, b| a["at"].as_str().cmp(&b["at"].as_str()));
    let detail = |event: &serde_json::Value| event["detail"].as_str().unwrap().to_owned();
    events.iter().map(detail).collect()
}

/// A number of `/metrics`.
fn metric(site: &Site, name: &str) -> Option<f64> {
    let text = http_get(site.ports.page, "/metrics")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().parse().ok()
}

fn wait_for_metric(site: &Site, name: &str, value: f64) {
    wait_for(&format!("{name} to be {value}"), || {
        metric(site, name).is_some_and(|is| (is - value).abs() < 0.5)
    });
}

fn now() -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_micros(i64::try_from(now.as_micros()).unwrap())
}

const CRITICAL: &str = "tidegate_alarms{severity=\"critical\"}";
const WARNING: &str = "tidegate_alarms{severity=\"warning\"}";

/// The serial number of the certificate that a server shows.
fn shown_serial(site: &Site, port: u16) -> String {
    let script = format!(
        "openssl s_client -connect localhost:{port} -CAfile certs/ca.pem -cert certs/operator.pem \
         -key certs/operator-key.pem < /dev/null 2> /dev/null | openssl x509 -noout -serial"
    );
    let output = Command::new("sh")
        .args(["-c", &script])
        .current_dir(site.path(""))
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn file_serial(site: &Site, file: &str) -> String {
    let output = Command::new("openssl")
        .args(["x509", "-noout", "-serial", "-in", file])
        .current_dir(site.path(""))
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn broker_alone_closes_revoked_sessions_and_follows_its_registry() {
    let site = Site::new("mtls", "");
    site.succeed(&["certs", "init"]);
    let mut command = site.command(&["broker"]);
    let broker = command.stdout(Stdio::null()).stderr(Stdio::null());
    let broker = Running::of(broker.spawn().unwrap());
    let port = site.ports.mqtts;
    wait_for("the broker to listen", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    let (first, second) = (
        Session::device(&site, "device-001"),
        Session::device(&site, "device-002"),
    );
    site.succeed(&["certs", "revoke", "device-001"]);
    first.is_closed();
    assert!(!is_let_in(&site, "device-001"));
    second.goes_on(&site, "device-002", "after-revocation");

    // A device that is not in the registry any more may not stay.
    let registry = site.path("devices.toml");
    let text = fs::read_to_string(&registry).unwrap();
    fs::write(
        &registry,
        text.replacen("id = \"device-002\"", "id = \"elsewhere\"", 1),
    )
    .unwrap();
    second.is_closed();
    assert!(is_let_in(&site, "device-003"));
    assert_eq!(broker.interrupt(), 0);
}

#[test]
fn registry_that_grows_lets_a_connected_device_in_and_a_broken_one_alarms_until_it_is_mended() {
    let (site, running, lines) = up();
    site.succeed(&["certs", "issue", "device-013"]);
    // Its certificate is good, and there is nothing that it may do.
    let session = Session::open(&site, "operator", "hydroficient/grandmarina/+/sensors");
    is_let_in(&site, "device-013");
    wait_for("the denial", || details(&site, "acl_denied").len() == 1);
    site.succeed(&["devices", "add", "device-013", "--zone", "kitchen"]);
    lines.wait_for("Took the changed registry");
    is_let_in(&site, "device-013");
    session.wait_for("pressure_upstream");
    assert_eq!(details(&site, "acl_denied").len(), 1);

    let registry = site.path("devices.toml");
    let whole = fs::read_to_string(&registry).unwrap();
    fs::write(&registry, format!("{whole}\n[[device")).unwrap();
    wait_for_metric(&site, WARNING, 1.0);
    fs::write(&registry, whole).unwrap();
    wait_for_metric(&site, WARNING, 0.0);
    assert_eq!(details(&site, "registry_rejected").len(), 1);
    assert_eq!(running.interrupt(), 0);
}

#[test]
fn check_shows_lists_authorities_and_what_tls_agrees_on_without_and_with_a_running_broker() {
    let site = Site::new("mtls", "");
    site.succeed(&["certs", "init"]);
    let said = site.succeed(&["check"]);
    for text in [
        "Tidegate CA",
        "list 1 of",
        "0 revoked",
        "enrolment",
        "TLS 1.3, TLS_AES_256_GCM_SHA384, X25519MLKEM768; with the server's files",
    ] {
        assert!(said.contains(text), "no `{text}` in {said}");
    }
    let running = site.start(&["up"]);
    site.succeed(&["certs", "revoke", "device-001"]);
    let said = site.succeed(&["check"]);
    for text in [
        "list 2 of",
        "1 revoked",
        "device-001 is revoked",
        "X25519MLKEM768; with the broker on",
    ] {
        assert!(said.contains(text), "no `{text}` in {said}");
    }
    // What the running broker refuses is found out by asking it.
    site.succeed(&["certs", "revoke", "gateway"]);
    wait_for("the list to be in use", || {
        let output = site.run(&["check"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.contains("no handshake with what listens") && output.status.code() == Some(1)
    });
    drop(running);
    fs::write(site.path("certs/crl.pem"), "").unwrap();
    let output = site.run(&["check"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("crl.pem holds no revocation list"), "{said}");
    assert_eq!(output.status.code(), Some(1));
}

/// A moment in which nothing should happen: two looks and some more.
fn a_few_looks() {
    std::thread::park_timeout(Duration::from_millis(900));
}
