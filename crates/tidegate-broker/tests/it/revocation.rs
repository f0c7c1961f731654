//! Revocation on a running broker: every way in, every session, and those who are not concerned.

use std::path::PathBuf;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::{Connect, ConnectAckReason, DisconnectReasonCode, LastWill};
use tidegate_broker::{Limits, SessionInfo, Transport};
use tidegate_envelope::principal::{Principal, Role};
use tidegate_envelope::reason::Reason;
use tidegate_pki::crl::Accepted;
use tidegate_pki::tls::load_server;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::client::{Client, connect, lasting, publish, tls, will};
use crate::identities::{Identities, device, now, rules};
use crate::openssl::dial;
use crate::serve::{PATIENCE, Server};

const VERSIONS: [(&str, &str); 2] = [("-tls1_2", "1.2"), ("-tls1_3", "1.3")];

/// Revokes in the order that `reload_tls` asks for: new configuration, then live sessions.
fn revoke(server: &Server, identities: &Identities, number: u64, names: &[&str]) {
    identities.revoke(number, names);
    server.handle.reload_tls(identities.server_tls(true));
    disconnect(server, identities, names);
}

fn disconnect(server: &Server, identities: &Identities, names: &[&str]) {
    let serials: Vec<Vec<u8>> = names.iter().map(|name| identities.serial(name)).collect();
    server
        .handle
        .disconnect_revoked(move |serial| serials.iter().any(|revoked| revoked == serial));
}

fn principal(name: &str) -> Principal {
    Principal::Certificate {
        id: device(name),
        role: Role::Device,
    }
}

/// The session of a device, if it is connected.
fn session(server: &Server, name: &str) -> Option<SessionInfo> {
    let sessions = server.handle.sessions();
    sessions.into_iter().find(|one| *one.principal == principal(name))
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let wait = async {
        while !done() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, wait)
        .await
        .unwrap_or_else(|_| panic!("{what}, in time"));
}

/// A full handshake, and then a resumed one: what the resumption of others is measured against.
async fn resume_once(server: &Server, identities: &Identities, name: &str, version: (&str, &str)) -> PathBuf {
    let file = identities.path(&format!("{name}{}.session", version.0));
    for resumed in [false, true] {
        let dialled = dial(server.address, identities, name, version.0, &file).await;
        assert!(dialled.is_in(), "{name} {version:?} resumed={resumed}");
        let tls = session(server, name).unwrap().tls.unwrap();
        assert_eq!((tls.version, tls.resumed), (version.1, resumed), "{name}");
        drop(dialled);
        until("the session ends", || session(server, name).is_none()).await;
    }
    file
}

#[tokio::test]
async fn revoked_client_cannot_resume_and_another_one_proves_itself_anew() {
    for version in VERSIONS {
        let identities = Identities::new();
        let server = identities.serve();
        let revoked = resume_once(&server, &identities, "device-001", version).await;
        let other = resume_once(&server, &identities, "device-002", version).await;

        revoke(&server, &identities, 2, &["device-001"]);

        let refused = dial(server.address, &identities, "device-001", version.0, &revoked).await;
        assert_eq!(refused.answer, None, "{version:?}");
        assert_eq!(server.event().await.reason, Reason::TlsRevoked);
        let welcome = dial(server.address, &identities, "device-002", version.0, &other).await;
        assert!(welcome.is_in(), "{version:?}");
        let tls = session(&server, "device-002").unwrap().tls.unwrap();
        assert!(
            !tls.resumed,
            "{version:?}: sessions of the old configuration are gone"
        );
    }
}

/// What would happen with a verifier swapped inside one configuration: TLS itself resumes.
#[tokio::test]
async fn resumption_of_a_revoked_certificate_is_refused_even_where_tls_resumes_it() {
    for version in VERSIONS {
        let identities = Identities::new();
        let server = identities.serve();
        let revoked = resume_once(&server, &identities, "device-001", version).await;
        let other = resume_once(&server, &identities, "device-002", version).await;

        disconnect(&server, &identities, &["device-001"]);

        let refused = dial(server.address, &identities, "device-001", version.0, &revoked).await;
        assert_eq!(refused.answer, Some(5), "{version:?}: not authorized");
        let event = server.event().await;
        assert_eq!(event.reason, Reason::TlsRevoked);
        assert_eq!(event.principal, Some(principal("device-001")));
        let welcome = dial(server.address, &identities, "device-002", version.0, &other).await;
        assert!(welcome.is_in());
        assert!(session(&server, "device-002").unwrap().tls.unwrap().resumed);
    }
}

/// A stock client with a certificate.
fn stock(server: &Server, identities: &Identities, tool: &str, name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(tool);
    command
        .args([
            "-h",
            "localhost",
            "-p",
            &server.address.port().to_string(),
            "-i",
            name,
        ])
        .arg("--cafile")
        .arg(identities.path("ca.pem"))
        .arg("--cert")
        .arg(identities.path(&format!("{name}.pem")))
        .arg("--key")
        .arg(identities.path(&format!("{name}-key.pem")))
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn publishes(server: &Server, identities: &Identities, name: &str, topic: &str) -> bool {
    let mut command = stock(
        server,
        identities,
        "mosquitto_pub",
        name,
        &["-t", topic, "-m", "m", "-q", "1"],
    );
    let ended = timeout(PATIENCE, command.status())
        .await
        .expect("mosquitto_pub ends in time");
    ended.expect("mosquitto_pub is installed").success()
}

#[tokio::test]
async fn live_session_of_a_stock_client_is_closed_and_that_of_another_goes_on() {
    let identities = Identities::new();
    let server = identities.serve();
    let listen = |name, topic| -> Child {
        let arguments = ["-t", topic, "-q", "1", "-C", "1"];
        stock(&server, &identities, "mosquitto_sub", name, &arguments)
            .spawn()
            .expect("mosquitto_sub is installed")
    };
    let _revoked = listen("device-001", "site/one/commands");
    let other = listen("device-002", "site/two/commands");
    until("both are connected", || server.handle.sessions().len() == 2).await;
    let before = session(&server, "device-002").unwrap();

    revoke(&server, &identities, 2, &["device-001"]);

    let closed = server.event_of(Reason::SessionClosedRevoked).await;
    assert_eq!(closed.principal, Some(principal("device-001")));
    // It tries again by itself, and does not get in.
    assert_eq!(server.event().await.reason, Reason::TlsRevoked);
    assert!(session(&server, "device-001").is_none());
    let after = session(&server, "device-002").unwrap();
    assert_eq!(
        (after.peer, after.since),
        (before.peer, before.since),
        "the same connection"
    );
    assert!(!publishes(&server, &identities, "device-001", "site/one/sensors").await);
    // The subscription may have been under way when the connection was seen first.
    while server.handle.publish("site/two/commands", "open".into()).unwrap() == 0 {
        tokio::task::yield_now().await;
    }
    let said = timeout(PATIENCE, other.wait_with_output())
        .await
        .expect("the message in time");
    assert_eq!(said.unwrap().stdout, b"open\n");
    assert!(publishes(&server, &identities, "device-002", "site/two/sensors").await);
}

/// A socket that sends one piece, and the next ones only when it is told.
struct Halting {
    socket: TcpStream,
    sent_one: bool,
    halted: Option<oneshot::Sender<()>>,
    go: Option<oneshot::Receiver<()>>,
}

impl AsyncRead for Halting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, into)
    }
}

impl AsyncWrite for Halting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        if self.sent_one {
            if let Some(halted) = self.halted.take() {
                halted.send(()).unwrap();
            }
            if let Some(go) = &mut self.go {
                ready!(Pin::new(go).poll(cx)).unwrap();
                self.go = None;
            }
        }
        let written = ready!(Pin::new(&mut self.socket).poll_write(cx, bytes))?;
        self.sent_one = true;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn handshake_that_is_under_way_during_a_reload_does_not_slip_through() {
    for (name, told, event) in [
        (
            "device-001",
            ConnectAckReason::NotAuthorized,
            Some(Reason::TlsRevoked),
        ),
        // The other one is asked to try again: its certificate was checked under old lists too.
        ("device-002", ConnectAckReason::ServerUnavailable, None),
    ] {
        let identities = Identities::new();
        let server = identities.serve();
        let socket = TcpStream::connect(server.address).await.unwrap();
        let (halted, has_halted) = oneshot::channel();
        let (go, may_go) = oneshot::channel();
        let socket = Halting {
            socket,
            sent_one: false,
            halted: Some(halted),
            go: Some(may_go),
        };
        let config = identities.client_tls(Some(name));
        let connecting = tokio::spawn(async move {
            let server_name = "localhost".try_into().unwrap();
            let stream = TlsConnector::from(config).connect(server_name, socket).await;
            Client::over(Box::new(stream.unwrap()), connect("c")).await.1
        });
        // Its hello is answered; its certificate is still to come.
        has_halted.await.unwrap();

        revoke(&server, &identities, 2, &["device-001"]);
        go.send(()).unwrap();

        assert_eq!(connecting.await.unwrap().reason_code, told, "{name}");
        if let Some(reason) = event {
            assert_eq!(server.event().await.reason, reason);
        }
        assert!(server.handle.sessions().is_empty());
        let again = tls(server.address, identities.client_tls(Some("device-002")))
            .await
            .unwrap();
        let (_, answer) = Client::over(again, connect("c")).await;
        assert_eq!(answer.reason_code, ConnectAckReason::Success);
    }
}

#[tokio::test]
async fn client_between_handshake_and_connect_does_not_slip_through() {
    let identities = Identities::new();
    let server = identities.serve();
    let mut sockets = Vec::new();
    for name in ["device-001", "device-002"] {
        let socket = tls(server.address, identities.client_tls(Some(name)))
            .await
            .unwrap();
        sockets.push(socket);
    }

    revoke(&server, &identities, 2, &["device-001"]);

    let (revoked, other) = (sockets.remove(0), sockets.remove(0));
    let (_, answer) = Client::over(revoked, connect("c")).await;
    assert_eq!(answer.reason_code, ConnectAckReason::NotAuthorized);
    assert_eq!(server.event().await.reason, Reason::TlsRevoked);
    let (_, answer) = Client::over(other, connect("c")).await;
    assert_eq!(answer.reason_code, ConnectAckReason::ServerUnavailable);
}

/// A device that is connected with a session that lasts, and a will that comes after it is gone.
async fn with_late_will(server: &Server, identities: &Identities, name: &str, topic: &'static str) -> Client {
    let last_will = LastWill {
        will_delay_interval_sec: Some(2),
        ..will(topic, "w")
    };
    let hello = Connect {
        last_will: Some(last_will),
        ..lasting("late")
    };
    let socket = tls(server.address, identities.client_tls(Some(name)))
        .await
        .unwrap();
    Client::over(socket, hello).await.0
}

#[tokio::test]
async fn will_that_is_due_after_the_revocation_is_dropped_and_anothers_is_published() {
    let identities = Identities::new();
    let server = identities.serve();
    let one = with_late_will(&server, &identities, "device-001", "site/one/sensors").await;
    let two = with_late_will(&server, &identities, "device-002", "site/two/sensors").await;
    drop((one, two));
    until("both are gone", || server.handle.sessions().is_empty()).await;

    revoke(&server, &identities, 2, &["device-001"]);

    let event = server.event().await;
    assert_eq!(event.reason, Reason::TlsRevoked);
    assert_eq!(event.topic.as_deref(), Some("site/one/sensors"));
    assert_eq!(server.admitted().await.topic, "site/two/sensors");
    assert!(server.pending_admitted().await.is_none());
}

#[tokio::test]
async fn revoked_session_is_closed_before_the_gate_has_decided_about_its_last_messages() {
    let identities = Identities::new();
    let limits = Limits {
        drain_within: PATIENCE * 10,
        ..Limits::default()
    };
    let server = Server::start(Transport::Tls, rules(), Some(identities.server_tls(true)), limits);
    let open = |name| {
        let config = identities.client_tls(Some(name));
        async {
            let socket = tls(server.address, config).await.unwrap();
            Client::over(socket, connect("c")).await.0
        }
    };
    let mut gateway = open("gateway").await;
    gateway.subscribe("site/+/sensors", QoS::AtMostOnce).await;
    let mut client = open("device-001").await;
    client
        .send(publish("site/one/sensors", "hold", QoS::AtLeastOnce, 1))
        .await;
    server.admitted().await;

    revoke(&server, &identities, 2, &["device-001"]);

    assert_eq!(client.ended().await, Some(DisconnectReasonCode::NotAuthorized));
    // What came before may be durable: whoever waits for it gets it.
    server.let_go(1);
    assert_eq!(gateway.payload().await, "hold");
}

#[tokio::test]
async fn revoked_client_that_neither_reads_nor_leaves_is_gone_all_the_same() {
    let identities = Identities::new();
    let server = identities.serve();
    let mut silent = Vec::new();
    for name in ["device-001", "device-002"] {
        let socket = tls(server.address, identities.client_tls(Some(name)))
            .await
            .unwrap();
        silent.push(Client::over(socket, connect(name)).await.0);
    }
    revoke(&server, &identities, 2, &["device-001"]);
    until("its socket is closed", || server.handle.stats().connections == 1).await;
    assert!(session(&server, "device-002").is_some());
    drop(silent);
}

#[tokio::test]
async fn list_that_is_empty_junk_foreign_or_older_is_not_taken_and_the_last_one_stays_in_force() {
    let (identities, foreign) = (Identities::new(), Identities::new());
    let server = identities.serve();
    let mut accepted = Accepted::new();
    let older = std::fs::read(identities.path("crl.pem")).unwrap();
    identities.revoke(2, &["device-001"]);
    let first = load_server(&identities.server_files(), &mut accepted).unwrap();
    server.handle.reload_tls(first.config);
    let good = std::fs::read(identities.path("crl.pem")).unwrap();
    let bad: [(&str, Vec<u8>); 5] = [
        ("empty", Vec::new()),
        ("junk", b"no list at all\n".to_vec()),
        ("cut", good[..good.len() / 2].to_vec()),
        ("foreign", std::fs::read(foreign.path("crl.pem")).unwrap()),
        ("older", older),
    ];
    for (what, bytes) in bad {
        std::fs::write(identities.path("crl.pem"), bytes).unwrap();
        let loaded = load_server(&identities.server_files(), &mut accepted);
        assert!(loaded.is_err(), "{what}");
        // Nothing is handed to the broker, so this is what it does.
        for (name, welcome) in [("device-001", false), ("device-002", true)] {
            let session = identities.path("fresh.session");
            let dialled = dial(server.address, &identities, name, "-tls1_3", &session).await;
            assert_eq!(dialled.is_in(), welcome, "{what}: {name}");
            std::fs::remove_file(session).unwrap_or_default();
        }
        assert_eq!(server.event().await.reason, Reason::TlsRevoked, "{what}");
    }
    std::fs::write(identities.path("crl.pem"), good).unwrap();
    assert!(load_server(&identities.server_files(), &mut accepted).is_ok());
}

#[tokio::test]
async fn nobody_comes_in_by_resumption_or_otherwise_once_the_list_has_expired() {
    for version in VERSIONS {
        let identities = Identities::new();
        let (start, life) = (now(), Duration::from_secs(5));
        identities.write_list(2, &[], start, life);
        let server = identities.serve();
        let file = identities.path("expiring.session");
        for resumed in [false, true] {
            let dialled = dial(server.address, &identities, "device-001", version.0, &file).await;
            assert!(dialled.is_in(), "{version:?}: the list is in force");
            let tls = session(&server, "device-001").unwrap().tls.unwrap();
            assert_eq!(tls.resumed, resumed, "{version:?}");
            drop(dialled);
            until("the session ends", || session(&server, "device-001").is_none()).await;
        }
        // Lists have whole seconds.
        let over = start.plus(life + Duration::from_secs(1));
        until("the list is over", || now() > over).await;
        let dialled = dial(server.address, &identities, "device-001", version.0, &file).await;
        assert!(!dialled.is_in(), "{version:?}");
        let event = server.event().await;
        assert_eq!(event.reason, Reason::TlsHandshake);
        assert!(
            event.detail.contains("revocation list has expired"),
            "{}",
            event.detail
        );
    }
}
