//! Many sockets that mean harm or nothing, beside one client that works.

use std::sync::Arc;
use std::time::Duration;

use rmqtt_codec::v5::ConnectAckReason;
use rustls::ClientConnection;
use tidegate_broker::{Limits, Transport};
use tidegate_envelope::reason::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use crate::client::{BoxedSocket, Client, connect, lasting, tls};
use crate::identities::{Identities, rules};
use crate::serve::{PATIENCE, Server};

/// Sockets of each kind; thousands are a matter for a benchmark.
const EACH: usize = 60;

fn serve(identities: &Identities, limits: Limits) -> Server {
    Server::start(Transport::Tls, rules(), Some(identities.server_tls(true)), limits)
}

async fn open(
    server: &Server,
    identities: &Identities,
    name: &str,
    client_id: &'static str,
) -> ConnectAckReason {
    let socket = tls(server.address, identities.client_tls(Some(name)))
        .await
        .unwrap();
    Client::over(socket, lasting(client_id)).await.1.reason_code
}

async fn closed(socket: &mut (impl AsyncReadExt + Unpin)) {
    let mut rest = Vec::new();
    // A reset is an end as well.
    let _ = timeout(PATIENCE, socket.read_to_end(&mut rest))
        .await
        .expect("closed in time");
}

#[test]
fn by_default_a_mute_socket_is_gone_within_five_seconds() {
    assert!(Limits::default().connect_within < Duration::from_secs(5));
}

/// The first record of a TLS handshake.
fn hello(identities: &Identities) -> Vec<u8> {
    let config = identities.client_tls(None);
    let mut connection = ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}

async fn drip(mut socket: BoxedSocket) {
    let mut clock = interval(Duration::from_millis(20));
    // A CONNECT that says that it is long.
    let mut bytes = b"\x10\xff\x01\x00\x04MQTT\x05\x02\x00\x3c"
        .iter()
        .chain(std::iter::repeat(&0));
    let mut byte = [0];
    loop {
        tokio::select! {
            ended = socket.read(&mut byte) => {
                assert_eq!(ended.unwrap_or(0), 0, "nothing is said to it");
                return;
            }
            _ = clock.tick() => {
                let next = *bytes.next().expect("endless");
                if socket.write_all(&[next]).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mute_and_slow_sockets_of_every_kind_are_gone_in_time_and_a_working_client_stays() {
    let identities = Arc::new(Identities::new());
    let server = serve(
        &identities,
        Limits {
            connect_within: Duration::from_millis(1_500),
            ..Limits::default()
        },
    );
    let socket = tls(server.address, identities.client_tls(Some("device-001")))
        .await
        .unwrap();
    let (mut good, _) = Client::over(socket, connect("good")).await;
    let address = server.address;
    let hello = hello(&identities);
    let mut sockets = JoinSet::new();
    for number in 0..EACH * 5 {
        let (hello, config) = (hello.clone(), identities.client_tls(Some("device-002")));
        sockets.spawn(async move {
            match number % 5 {
                // TCP, and nothing more.
                0 => closed(&mut TcpStream::connect(address).await.unwrap()).await,
                // TLS that stops in the middle of its first message.
                1 => {
                    let mut socket = TcpStream::connect(address).await.unwrap();
                    socket.write_all(&hello[..hello.len() / 2]).await.unwrap();
                    closed(&mut socket).await;
                }
                // TLS that gets the server's answer, and says nothing to it.
                2 => {
                    let mut socket = TcpStream::connect(address).await.unwrap();
                    socket.write_all(&hello).await.unwrap();
                    closed(&mut socket).await;
                }
                // A CONNECT that never comes, or one byte at a time. On a busy machine the time may
                // be over before the handshake is.
                kind => {
                    if let Ok(mut socket) = tls(address, config).await {
                        if kind == 3 {
                            closed(&mut socket).await;
                        } else {
                            timeout(PATIENCE, drip(socket)).await.expect("closed in time");
                        }
                    }
                }
            }
        });
    }
    while let Some(ended) = sockets.join_next().await {
        ended.unwrap();
        assert!(good.answers().await);
    }
    let mut told = 0;
    while told < EACH as u64 * 5 {
        let event = server.event().await;
        assert_eq!(event.reason, Reason::ConnectTimeout);
        told += 1 + event.left_out;
    }
    assert_eq!(told, EACH as u64 * 5, "each is counted once");
    assert_eq!(server.handle.stats().connections, 1);
}

#[tokio::test]
async fn certificate_gets_its_share_of_sessions_and_leaves_places_for_others() {
    let identities = Identities::new();
    let server = serve(
        &identities,
        Limits {
            max_sessions_per_principal: 3,
            ..Limits::default()
        },
    );
    let mut answers = Vec::new();
    for number in 0..10 {
        let client_id = format!("client-{number}").leak();
        answers.push(open(&server, &identities, "device-001", client_id).await);
    }
    assert_eq!(answers[..3], [ConnectAckReason::Success; 3]);
    assert_eq!(answers[3..], [ConnectAckReason::QuotaExceeded; 7]);
    let event = server.event().await;
    assert_eq!(event.reason, Reason::ConnectionLimit);
    assert!(
        event.principal.is_some() && event.detail.contains("sessions"),
        "{event:?}"
    );
    // A session that is there already can always be resumed.
    let again = open(&server, &identities, "device-001", "client-0").await;
    assert_eq!(again, ConnectAckReason::Success);
    let other = open(&server, &identities, "device-002", "client-0").await;
    assert_eq!(other, ConnectAckReason::Success);
}

#[tokio::test]
async fn certificate_that_connects_too_often_is_held_back_and_another_is_not() {
    let identities = Identities::new();
    let server = serve(
        &identities,
        Limits {
            connects_per_second_per_principal: 1,
            connect_burst_per_principal: 100,
            ..Limits::default()
        },
    );
    let mut answers = Vec::new();
    let flood = async {
        while answers
            .last()
            .is_none_or(|last| *last == ConnectAckReason::Success)
        {
            answers.push(open(&server, &identities, "device-001", "c").await);
        }
    };
    timeout(PATIENCE * 3, flood).await.expect("held back in time");
    assert!(answers.len() > 100, "the burst passes");
    assert_eq!(answers.last(), Some(&ConnectAckReason::ConnectionRateExceeded));
    let event = server.event_of(Reason::ConnectionLimit).await;
    assert!(
        event.principal.is_some() && event.detail.contains("more often"),
        "{event:?}"
    );
    let other = open(&server, &identities, "device-002", "c").await;
    assert_eq!(other, ConnectAckReason::Success);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flood_of_connections_that_come_and_go_leaves_a_working_client_alone() {
    let identities = Arc::new(Identities::new());
    let server = serve(&identities, Limits::default());
    let socket = tls(server.address, identities.client_tls(Some("device-001")))
        .await
        .unwrap();
    let (mut good, _) = Client::over(socket, connect("good")).await;
    let address = server.address;
    let mut flood = JoinSet::new();
    for _ in 0..8 {
        flood.spawn(async move {
            for _ in 0..50 {
                let mut socket = TcpStream::connect(address).await.unwrap();
                socket.write_all(b"\x16\x03\x01\x00\x05junk!").await.unwrap();
            }
        });
    }
    while let Some(ended) = flood.join_next().await {
        ended.unwrap();
        assert!(good.answers().await);
    }
    let all_gone = async {
        while server.handle.stats().connections > 1 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, all_gone)
        .await
        .expect("the flood is over in time");
    assert!(good.answers().await);
}
