//! Bad input, too much of it, and clients that do not speak.

use crate::client::{Curl, simple_request};
use crate::connect::{ask, config, connect, end};
use crate::server::{PATIENCE, Server, now};
use rustls::version::TLS13;
use std::time::Duration;
use tidegate_enroll::limits::{Limits, MAX_BODY_BYTES, Rate};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Every hostile body is refused with this reason, and the token is good for an honest one after it.
async fn check_bodies(bodies: &[(&str, Vec<u8>, u16, &str)]) {
    let limits = Limits {
        address_rate: Rate::new(10_000, 10_000),
        ..Limits::default()
    };
    let server = Server::with(limits).await;
    let token = server.token("device-001");
    let enroll = |name: &str| Curl::new(&server, "simpleenroll", name).user("device-001", &token);
    for (name, body, status, reason) in bodies {
        let answer = enroll("hostile").post(body).await;
        assert_eq!(answer.status, *status, "{name}: {answer:?}");
        let refusal = server.event().await;
        let tidegate_enroll::event::What::Refused(refusal) = refusal.what else {
            panic!("{name} was taken: {refusal:?}");
        };
        assert_eq!(refusal.name(), *reason, "{name}: {refusal:?}");
    }
    assert!(server.records().is_empty());
    let body = simple_request(&server, "honest").await;
    enroll("honest").post(body.as_bytes()).await.certificate();
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_no_certificate_request_are_refused_and_do_not_cost_the_token() {
    let base64 = |bytes: &[u8]| tidegate_pki::est::encode(bytes).into_bytes();
    let server = Server::start().await;
    let honest = simple_request(&server, "h").await;
    let der = std::fs::read(server.path("h.der")).unwrap();
    drop(server);
    let mut other_signature = der.clone();
    *other_signature.last_mut().unwrap() ^= 1;
    let position = der.windows(8).position(|part| part == b"whatever").unwrap();
    let mut other_name = der.clone();
    other_name[position] ^= 1;
    let pem = format!("-----BEGIN CERTIFICATE REQUEST-----\n{honest}-----END CERTIFICATE REQUEST-----\n");
    check_bodies(&[
        ("empty", Vec::new(), 400, "body"),
        ("text", b"hello, world!".to_vec(), 400, "body"),
        ("PEM", pem.into_bytes(), 400, "body"),
        ("DER", der.clone(), 400, "body"),
        (
            "a line and a letter",
            honest.as_bytes()[..66].to_vec(),
            400,
            "body",
        ),
        (
            "half of the request",
            base64(&der[..der.len() / 2]),
            400,
            "request",
        ),
        ("a byte more", base64(&[&der[..], &[0]].concat()), 400, "request"),
        ("junk", base64(&[0x30; 300]), 400, "request"),
        ("nested", base64(&[0x30, 0x80].repeat(4_000)), 400, "request"),
        ("longest", base64(&[0x30; 9_000]), 400, "request"),
        (
            "other signature",
            base64(&other_signature),
            400,
            "request_not_signed_by_its_key",
        ),
        (
            "other name",
            base64(&other_name),
            400,
            "request_not_signed_by_its_key",
        ),
        ("as long as allowed", vec![b'A'; MAX_BODY_BYTES], 400, "request"),
        ("a byte too long", vec![b'A'; MAX_BODY_BYTES + 1], 413, "oversize"),
        ("far too long", vec![b'A'; 200_000], 413, "oversize"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_content_types_methods_and_paths_are_refused() {
    let server = Server::start().await;
    let body = simple_request(&server, "d").await;
    let token = server.token("device-001");
    let curl = Curl::new(&server, "simpleenroll", "type").user("device-001", &token);
    let answer = curl.post_plain(body.as_bytes()).await;
    server
        .check(&answer, 415, "content_type", Some("device-001"))
        .await;
    assert_eq!(
        Curl::new(&server, "simpleenroll", "method").get().await.status,
        405
    );
    assert_eq!(Curl::new(&server, "serverkeygen", "path").get().await.status, 404);
    assert_eq!(
        Curl::new(&server, "../../etc/passwd", "path").get().await.status,
        404
    );
    server.assert_no_event();
    let header = ["--header", "Content-Type: Application/PKCS10; charset=ascii"];
    let curl = Curl::new(&server, "simpleenroll", "type").user("device-001", &token);
    curl.arguments(&header)
        .post_plain(body.as_bytes())
        .await
        .certificate();
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_ends_after_a_few_attempts_and_does_not_keep_devices_from_renewing() {
    let server = Server::start().await;
    crate::client::enroll(&server, "device-002", "other").await;
    let body = simple_request(&server, "d").await;
    let mut attempts = 0;
    let refused = loop {
        let curl = Curl::new(&server, "simpleenroll", "guess").user("device-001", "guess");
        let answer = curl.post(body.as_bytes()).await;
        if answer.status == 429 {
            break answer;
        }
        server
            .check(&answer, 401, "token_unknown", Some("device-001"))
            .await;
        attempts += 1;
        assert!(attempts < 30, "guessing goes on");
    };
    assert!(attempts >= 3, "{attempts}");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=120).contains(&wait), "{wait}");
    assert_eq!(server.refusal(None).await.name(), "rate_limited");
    // From the same address, but proven.
    let curl = Curl::new(&server, "simplereenroll", "other").identity(&server, "other");
    curl.post(body.as_bytes()).await.certificate();
}

#[tokio::test(flavor = "multi_thread")]
async fn all_strangers_together_are_limited_and_devices_are_not_counted_among_them() {
    let limits = Limits {
        stranger_rate: Rate::new(3, 1),
        ..Limits::default()
    };
    let server = Server::with(limits).await;
    crate::client::enroll(&server, "device-001", "d").await;
    let ask = |name| Curl::new(&server, "csrattrs", name);
    assert_eq!(ask("a").get().await.status, 200);
    assert_eq!(ask("b").get().await.status, 200);
    assert_eq!(ask("c").get().await.status, 429);
    assert_eq!(ask("d").identity(&server, "d").get().await.status, 200);
}

const SHORT: Duration = Duration::from_millis(200);

#[tokio::test(flavor = "multi_thread")]
async fn socket_that_does_not_shake_hands_is_closed_in_time_and_told() {
    let limits = Limits {
        handshake_within: SHORT,
        ..Limits::default()
    };
    let server = Server::with(limits).await;
    let mut mute = TcpStream::connect(server.address).await.unwrap();
    let read = timeout(PATIENCE, mute.read(&mut [0; 8])).await.unwrap();
    assert_eq!(read.unwrap_or(0), 0);
    assert_eq!(server.refusal(None).await.name(), "handshake_timeout");
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_without_a_request_is_closed_in_time() {
    let limits = Limits {
        head_within: SHORT,
        ..Limits::default()
    };
    let server = Server::with(limits).await;
    let mut stream = connect(&server, &config(&server, None, &TLS13)).await.unwrap();
    assert!(end(&mut stream).await.is_empty());
    server.assert_no_event();
}

#[tokio::test(flavor = "multi_thread")]
async fn request_whose_body_does_not_come_is_answered_in_time_and_told() {
    let limits = Limits {
        body_within: SHORT,
        ..Limits::default()
    };
    let server = Server::with(limits).await;
    let mut stream = connect(&server, &config(&server, None, &TLS13)).await.unwrap();
    let head = "POST /.well-known/est/simpleenroll HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = String::from_utf8(end(&mut stream).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert_eq!(server.refusal(None).await.name(), "body_incomplete");
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_body_is_cut_off_long_before_its_end() {
    let server = Server::start().await;
    let mut stream = connect(&server, &config(&server, None, &TLS13)).await.unwrap();
    let head = "POST /.well-known/est/simpleenroll HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999999\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    // Endless as far as this test can tell: the socket's buffers hold far less.
    let sending = async { while stream.write_all(&[b'A'; 65_536]).await.is_ok() {} };
    timeout(PATIENCE, sending).await.expect("the connection ends");
    assert_eq!(server.refusal(None).await.name(), "oversize");
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_that_keeps_asking_ends_with_its_life() {
    let limits = Limits {
        connection_life: SHORT,
        address_rate: Rate::new(1_000_000, 1_000_000),
        stranger_rate: Rate::new(1_000_000, 1_000_000),
        ..Limits::default()
    };
    let server = Server::with(limits).await;
    let mut stream = connect(&server, &config(&server, None, &TLS13)).await.unwrap();
    assert_eq!(ask(&mut stream).await.unwrap(), "HTTP/1.1 200 OK");
    let asking = async { while ask(&mut stream).await.is_ok() {} };
    timeout(PATIENCE, asking).await.expect("the connection ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_those_of_one_address_are_closed_until_one_ends() {
    let limits = Limits {
        connections_per_address: 2,
        ..Limits::default()
    };
    let server = Server::with(limits).await;
    let first = TcpStream::connect(server.address).await.unwrap();
    let _second = TcpStream::connect(server.address).await.unwrap();
    let mut third = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(
        timeout(PATIENCE, third.read(&mut [0; 8]))
            .await
            .unwrap()
            .unwrap_or(0),
        0
    );
    assert_eq!(server.refusal(None).await.name(), "connection_limit");
    drop(first);
    // The handshake that was cut off is told when its place is free again.
    assert_eq!(server.refusal(None).await.name(), "handshake");
    assert_eq!(Curl::new(&server, "csrattrs", "a").get().await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn junk_instead_of_tls_is_told_as_a_failed_handshake() {
    let server = Server::start().await;
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    socket.write_all(b"POST / HTTP/1.1\r\n\r\n").await.unwrap();
    let refusal = server.refusal(None).await;
    assert_eq!(refusal.reason().as_str(), "tls_handshake", "{refusal}");
    assert!(server.tokens.pending(now()).unwrap().is_empty());
}
