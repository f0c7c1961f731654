//! The CA is exchanged, something is revoked, or the service stops, while connections are open.

use crate::client::{Curl, enroll, simple_request};
use crate::connect::{ask, config, connect, end};
use crate::server::{Server, now};
use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};
use tidegate_pki::authority::Authority;
use tidegate_pki::est;

#[tokio::test(flavor = "multi_thread")]
async fn after_an_exchange_the_new_ca_signs_and_certificates_of_the_old_are_renewed() {
    let server = Server::start().await;
    enroll(&server, "device-001", "first").await;
    let new = Authority::generate(now()).unwrap();
    server.exchange(&[&new, server.authority()]);
    let authorities = Curl::new(&server, "cacerts", "ca").get().await;
    assert_eq!(est::read_certs_only(&authorities.body).unwrap().len(), 2);
    let body = simple_request(&server, "second").await;
    let curl = Curl::new(&server, "simplereenroll", "second").identity(&server, "first");
    curl.post(body.as_bytes()).await.certificate();
    let signers: Vec<String> = server
        .records()
        .into_iter()
        .map(|record| record.authority)
        .collect();
    assert_eq!(signers, [server.authority().key_id(), new.key_id()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_made_under_old_material_is_ended_by_an_exchange() {
    let server = Server::start().await;
    let mut stream = connect(&server, &config(&server, None, &TLS13)).await.unwrap();
    assert_eq!(ask(&mut stream).await.unwrap(), "HTTP/1.1 200 OK");
    server.reload();
    end(&mut stream).await;
    let mut stream = connect(&server, &config(&server, None, &TLS13)).await.unwrap();
    assert_eq!(ask(&mut stream).await.unwrap(), "HTTP/1.1 200 OK");
}

#[tokio::test(flavor = "multi_thread")]
async fn session_is_resumed_until_its_certificate_is_revoked() {
    for version in [&TLS12, &TLS13] {
        let server = Server::start().await;
        let certificate = enroll(&server, "device-001", "first").await;
        let config = config(&server, Some("first"), version);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut stream = connect(&server, &config).await.unwrap();
            assert_eq!(ask(&mut stream).await.unwrap(), "HTTP/1.1 200 OK");
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(kind), "{version:?}");
        }
        server.ledger.revoke(&certificate.serial, now(), None).unwrap();
        server.reload();
        // A TLS 1.3 client has shaken hands before it is told that its certificate is refused.
        let refused = match connect(&server, &config).await {
            Ok(mut stream) => ask(&mut stream).await.unwrap_err(),
            Err(error) => error,
        };
        assert!(refused.to_string().contains("CertificateRevoked"), "{refused}");
        assert_eq!(server.refusal(None).await.reason().as_str(), "tls_revoked");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_ends_idle_connections_and_frees_the_port() {
    let server = Server::start().await;
    let mut stream = connect(&server, &config(&server, None, &TLS13)).await.unwrap();
    assert_eq!(ask(&mut stream).await.unwrap(), "HTTP/1.1 200 OK");
    let address = server.address;
    server.stop().await;
    end(&mut stream).await;
    tokio::net::TcpListener::bind(address).await.unwrap();
}
