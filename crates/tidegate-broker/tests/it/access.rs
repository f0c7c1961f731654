//! Certificates, and what they entitle to.

use std::time::Duration;

use rmqtt_codec::types::QoS;
use rmqtt_codec::v3;
use rmqtt_codec::v5::{
    Connect, ConnectAck, ConnectAckReason, DisconnectReasonCode, PublishAckReason, SubscribeAckReason,
};
use rustls::SupportedProtocolVersion;
use tidegate_envelope::principal::{Principal, Role};
use tidegate_envelope::reason::Reason;
use tidegate_pki::profile::Profile;
use tokio::io::AsyncReadExt;

use crate::client::{Client, OldClient, connect, id, lasting, publish, tls, will};
use crate::identities::{Identities, device, now};
use crate::serve::Server;

async fn open(
    identities: &Identities,
    server: &Server,
    name: &str,
    connect: Connect,
) -> (Client, ConnectAck) {
    let socket = tls(server.address, identities.client_tls(Some(name)))
        .await
        .unwrap();
    Client::over(socket, connect).await
}

async fn admitted(identities: &Identities, server: &Server, name: &'static str) -> Client {
    let (client, answer) = open(identities, server, name, connect(name)).await;
    assert_eq!(answer.reason_code, ConnectAckReason::Success);
    client
}

#[tokio::test]
async fn a_device_writes_its_own_telemetry_and_nothing_else() {
    let (identities, denied) = (Identities::new(), PublishAckReason::NotAuthorized);
    let server = identities.serve();
    let mut client = admitted(&identities, &server, "device-001").await;
    assert_eq!(
        client.publish("site/one/sensors", "m").await,
        PublishAckReason::Success
    );
    let seen = server.admitted().await;
    assert_eq!(
        *seen.principal,
        Principal::Certificate {
            id: device("device-001"),
            role: Role::Device
        }
    );
    for topic in [
        "site/two/sensors",
        "site/one/commands",
        "site/device-001/sensors",
        "elsewhere",
    ] {
        assert_eq!(client.publish(topic, "m").await, denied, "{topic}");
        let event = server.event().await;
        assert_eq!(
            (event.reason, event.topic.as_deref()),
            (Reason::AclDenied, Some(topic))
        );
        assert_eq!(event.principal.as_ref(), Some(&*seen.principal));
    }
    assert!(server.pending_admitted().await.is_none());
    let mut unregistered = admitted(&identities, &server, "device-009").await;
    assert_eq!(unregistered.publish("site/device-009/sensors", "m").await, denied);
}

#[tokio::test]
async fn a_denied_publish_of_mqtt_3_is_acknowledged_and_dropped() {
    let identities = Identities::new();
    let server = identities.serve();
    let socket = tls(server.address, identities.client_tls(Some("device-001")))
        .await
        .unwrap();
    let hello = v3::Connect {
        clean_session: true,
        ..v3::Connect::default().client_id("old")
    };
    let (mut client, _) = OldClient::over(socket, hello).await;
    client
        .send(publish("site/two/sensors", "m", QoS::AtLeastOnce, 1))
        .await;
    assert_eq!(
        client.next().await,
        Some(v3::Packet::PublishAck { packet_id: id(1) })
    );
    assert_eq!(server.event().await.reason, Reason::AclDenied);
    assert!(server.pending_admitted().await.is_none());
}

#[tokio::test]
async fn a_retained_reading_is_refused_for_certificates_and_taken_from_anybody_without() {
    let identities = Identities::new();
    let server = identities.serve();
    let mut client = admitted(&identities, &server, "device-001").await;
    let mut message = publish("site/one/sensors", "m", QoS::AtLeastOnce, 1);
    message.retain = true;
    client.send(message.clone()).await;
    let answer = client.acknowledged().await;
    assert_eq!(
        (answer.reason_code, answer.reason_string.as_deref()),
        (PublishAckReason::NotAuthorized, Some("retained"))
    );
    assert_eq!(server.event().await.reason, Reason::Retained);
    assert_eq!(server.handle.stats().retained, 0);

    let open = Server::open();
    let mut client = Client::open(open.address, "anybody").await;
    client.send(message).await;
    assert_eq!(client.acknowledged().await.reason_code, PublishAckReason::Success);
    assert_eq!(open.handle.stats().retained, 1);
}

#[tokio::test]
async fn each_role_reads_only_what_it_may() {
    let identities = Identities::new();
    let server = identities.serve();
    let cases = [
        ("device-001", "site/one/commands", true),
        ("device-001", "site/two/commands", false),
        ("device-001", "site/one/sensors", false),
        ("device-001", "#", false),
        ("device-001", "$share/g/#", false),
        ("gateway", "site/+/sensors", true),
        ("gateway", "$share/g/site/+/sensors", true),
        ("gateway", "#", false),
        ("operator", "site/#", true),
    ];
    for (name, filter, allowed) in cases {
        let mut client = admitted(&identities, &server, name).await;
        let expected = if allowed {
            SubscribeAckReason::GrantedQos1
        } else {
            SubscribeAckReason::NotAuthorized
        };
        assert_eq!(
            client.subscribe(filter, QoS::AtLeastOnce).await,
            expected,
            "{name} {filter}"
        );
        if !allowed {
            let event = server.event_of(Reason::AclDenied).await;
            assert_eq!(event.topic.as_deref(), Some(filter));
        }
    }
}

#[tokio::test]
async fn an_operators_command_reaches_its_device_alone() {
    let identities = Identities::new();
    let server = identities.serve();
    let mut one = admitted(&identities, &server, "device-001").await;
    one.subscribe("site/one/commands", QoS::AtLeastOnce).await;
    let mut two = admitted(&identities, &server, "device-002").await;
    two.subscribe("site/two/commands", QoS::AtLeastOnce).await;
    let mut operator = admitted(&identities, &server, "operator").await;
    assert_eq!(
        operator.publish("site/one/commands", "close").await,
        PublishAckReason::Success
    );
    assert_eq!(one.payload().await, "close");
    two.assert_quiet().await;
}

#[tokio::test]
async fn wills_are_checked_like_publishes() {
    let identities = Identities::new();
    let server = identities.serve();
    let retained = rmqtt_codec::v5::LastWill {
        retain: true,
        ..will("site/one/sensors", "w")
    };
    let cases = [
        (will("site/two/sensors", "w"), Some(Reason::AclDenied)),
        (retained, Some(Reason::Retained)),
        (will("site/one/sensors", "w"), None),
    ];
    for (last_will, refused) in cases {
        let hello = Connect {
            last_will: Some(last_will),
            ..connect("c")
        };
        let (_client, answer) = open(&identities, &server, "device-001", hello).await;
        match refused {
            Some(reason) => {
                assert_eq!(answer.reason_code, ConnectAckReason::NotAuthorized);
                assert_eq!(server.event().await.reason, reason);
            }
            None => assert_eq!(answer.reason_code, ConnectAckReason::Success),
        }
    }
}

#[tokio::test]
async fn client_id_of_another_identity_is_neither_taken_over_nor_kept_from_it() {
    let identities = Identities::new();
    let server = identities.serve();
    let (mut first, _) = open(&identities, &server, "device-001", lasting("c")).await;
    let commands = "site/one/commands";
    first.subscribe(commands, QoS::AtLeastOnce).await;
    // Another device with the same client id is another client, also while the first is away.
    let (mut squatter, answer) = open(&identities, &server, "device-002", lasting("c")).await;
    assert_eq!(
        (answer.reason_code, answer.session_present),
        (ConnectAckReason::Success, false)
    );
    first.assert_quiet().await;
    drop(first);
    server.handle.publish(commands, "open".into()).unwrap();
    squatter.assert_quiet().await;
    let (mut back, answer) = open(&identities, &server, "device-001", lasting("c")).await;
    assert_eq!(
        (answer.reason_code, answer.session_present),
        (ConnectAckReason::Success, true)
    );
    assert_eq!(back.payload().await, "open");
    squatter.assert_quiet().await;
    let (_same, answer) = open(&identities, &server, "device-001", lasting("c")).await;
    assert!(answer.session_present);
    assert_eq!(back.ended().await, Some(DisconnectReasonCode::SessionTakenOver));
    assert_eq!(server.event().await.reason, Reason::SessionTakeover);
}

/// Whether the broker takes this client; TLS 1.3 tells a client of its refusal only when it reads.
pub(crate) async fn is_let_in(server: &Server, config: std::sync::Arc<rustls::ClientConfig>) -> bool {
    match tls(server.address, config).await {
        Err(_) => false,
        Ok(mut socket) => {
            let mut codec = rmqtt_codec::v5::Codec::default();
            let mut hello = bytes::BytesMut::new();
            tokio_util::codec::Encoder::encode(&mut codec, connect("c").into(), &mut hello).unwrap();
            let _ = tokio::io::AsyncWriteExt::write_all(&mut socket, &hello).await;
            let mut answer = [0; 4];
            socket.read_exact(&mut answer).await.is_ok() && answer[3] == 0
        }
    }
}

#[tokio::test]
async fn failed_handshakes_are_reported_by_their_cause() {
    let (identities, foreign) = (Identities::new(), Identities::new());
    let hour = Duration::from_secs(3_600);
    let expired =
        Profile::client(Role::Device, device("old")).between(now().minus(hour * 2), now().minus(hour));
    identities.issue("old", &expired);
    identities.revoke(2, &["device-002"]);
    let server = identities.serve();
    std::fs::copy(identities.path("ca.pem"), foreign.path("ca.pem")).unwrap();
    let cases = [
        (identities.client_tls(Some("device-001")), None),
        (identities.client_tls(None), Some(Reason::TlsNoCertificate)),
        (identities.client_tls(Some("old")), Some(Reason::TlsExpired)),
        (
            identities.client_tls(Some("device-002")),
            Some(Reason::TlsRevoked),
        ),
        (
            foreign.client_tls(Some("device-001")),
            Some(Reason::TlsBadCertificate),
        ),
        (
            Identities::new().client_tls(None),
            Some(Reason::TlsServerRejected),
        ),
    ];
    for (config, refused) in cases {
        assert_eq!(is_let_in(&server, config).await, refused.is_none(), "{refused:?}");
        if let Some(reason) = refused {
            assert_eq!(server.event().await.reason, reason);
        }
    }
}

#[tokio::test]
async fn a_plain_client_at_a_tls_port_is_reported() {
    let identities = Identities::new();
    let server = identities.serve_open();
    let mut socket = crate::client::tcp(server.address).await;
    tokio::io::AsyncWriteExt::write_all(&mut socket, b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a")
        .await
        .unwrap();
    let mut rest = Vec::new();
    let _ = socket.read_to_end(&mut rest).await;
    assert_eq!(server.event().await.reason, Reason::TlsHandshake);
}

#[tokio::test]
async fn a_revoked_device_is_cut_off_live_and_kept_out_in_resumption_while_others_stay() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        revoke_live(version).await;
    }
}

async fn revoke_live(version: &'static SupportedProtocolVersion) {
    let identities = Identities::new();
    let server = identities.serve();
    let config = only(version, &identities, "device-001");
    // The first session brings the ticket, the second shows that it is taken.
    for _ in 0..2 {
        assert!(is_let_in(&server, config.clone()).await);
    }
    let mut revoked = Client::over(
        tls(server.address, config.clone()).await.unwrap(),
        lasting("revoked"),
    )
    .await
    .0;
    let mut other = admitted(&identities, &server, "device-002").await;

    identities.revoke(2, &["device-001"]);
    let serial = identities.serial("device-001");
    server.handle.reload_tls(identities.server_tls(true));
    server.handle.disconnect_revoked(move |one| one == serial);

    assert_eq!(revoked.ended().await, Some(DisconnectReasonCode::NotAuthorized));
    assert_eq!(
        server
            .event_of(Reason::SessionClosedRevoked)
            .await
            .client_id
            .as_deref(),
        Some("revoked")
    );
    assert!(!is_let_in(&server, config).await);
    assert_eq!(server.event().await.reason, Reason::TlsRevoked);
    other.assert_quiet().await;
    // With a new certificate the device finds its session again.
    identities.issue("device-001", &Profile::client(Role::Device, device("device-001")));
    let (_, answer) = open(&identities, &server, "device-001", lasting("revoked")).await;
    assert!(answer.session_present);
}

fn only(
    version: &'static SupportedProtocolVersion,
    identities: &Identities,
    name: &str,
) -> std::sync::Arc<rustls::ClientConfig> {
    let model = identities.client_tls(Some(name));
    let mut roots = rustls::RootCertStore::empty();
    let ca = tidegate_pki::files::read_certificates(&identities.path("ca.pem")).unwrap();
    roots.add(ca[0].clone()).unwrap();
    let chain = tidegate_pki::files::read_certificates(&identities.path(&format!("{name}.pem"))).unwrap();
    let key = tidegate_pki::files::read_key(&identities.path(&format!("{name}-key.pem"))).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(model.crypto_provider().clone())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    std::sync::Arc::new(config)
}

#[tokio::test]
async fn an_identity_that_is_shut_out_loses_connection_and_session() {
    let identities = Identities::new();
    let server = identities.serve();
    let last_will = Some(will("site/one/sensors", "w"));
    let (mut client, _) = open(
        &identities,
        &server,
        "device-001",
        Connect {
            last_will,
            ..lasting("c")
        },
    )
    .await;
    server
        .handle
        .disconnect(&device("device-002"), Reason::DeviceDisabled);
    client.assert_quiet().await;
    server
        .handle
        .disconnect(&device("device-001"), Reason::DeviceDisabled);
    assert_eq!(
        client.ended().await,
        Some(DisconnectReasonCode::AdministrativeAction)
    );
    assert_eq!(server.event().await.reason, Reason::DeviceDisabled);
    assert!(
        !open(&identities, &server, "device-001", lasting("c"))
            .await
            .1
            .session_present
    );
    assert!(
        server.pending_admitted().await.is_none(),
        "the will is not published"
    );
}

#[tokio::test]
async fn a_live_session_ends_with_its_certificate() {
    let identities = Identities::new();
    let brief = Profile::client(Role::Device, device("device-001")).lasting(Duration::from_secs(3));
    identities.issue("brief", &brief);
    let server = identities.serve();
    let mut client = admitted(&identities, &server, "brief").await;
    assert_eq!(client.ended().await, Some(DisconnectReasonCode::NotAuthorized));
    assert_eq!(server.event().await.reason, Reason::TlsExpired);
}
