//! Sessions that outlive connections, and client ids that change hands.

use std::time::Duration;

use rmqtt_codec::types::QoS;
use rmqtt_codec::v3;
use rmqtt_codec::v5::{Connect, ConnectAckReason, Disconnect, DisconnectReasonCode, Packet, PublishAck};
use tidegate_broker::Limits;
use tidegate_envelope::reason::Reason;

use crate::client::{Client, OldClient, connect, id, lasting, publish, second, tcp};
use crate::serve::Server;

#[tokio::test]
async fn what_was_not_acknowledged_comes_again_and_the_rest_follows() {
    let server = Server::open();
    let (mut reader, answer) = Client::with(server.address, lasting("reader")).await;
    assert!(!answer.session_present);
    reader.subscribe("t/#", QoS::ExactlyOnce).await;
    let mut sender = Client::open(server.address, "sender").await;
    sender.publish("t/1", "first").await;
    sender.send(publish("t/2", "second", QoS::ExactlyOnce, 1)).await;
    sender.acknowledged().await;
    let first = reader.message().await;
    let exactly = reader.message().await.packet_id.unwrap();
    reader
        .send(Packet::PublishReceived(PublishAck {
            packet_id: exactly,
            ..PublishAck::default()
        }))
        .await;
    assert_eq!(
        reader.receive().await,
        Packet::PublishRelease(second(exactly.get()))
    );
    drop(reader);
    // Neither of these reaches a connection; only the first of them is owed.
    sender.publish("t/3", "third").await;
    sender.send(publish("t/4", "gone", QoS::AtMostOnce, 0)).await;

    let (mut reader, answer) = Client::with(server.address, lasting("reader")).await;
    assert!(answer.session_present);
    let again = reader.message().await;
    assert_eq!(
        (&*again.payload, again.dup, again.packet_id),
        (&b"first"[..], true, first.packet_id)
    );
    assert_eq!(
        reader.receive().await,
        Packet::PublishRelease(second(exactly.get()))
    );
    let third = reader.message().await;
    assert_eq!((&*third.payload, third.dup), (&b"third"[..], false));
    reader.assert_quiet().await;
}

#[tokio::test]
async fn a_clean_start_forgets_subscriptions_and_messages() {
    let server = Server::open();
    let (mut reader, _) = Client::with(server.address, lasting("reader")).await;
    reader.subscribe("t", QoS::AtLeastOnce).await;
    drop(reader);
    let mut sender = Client::open(server.address, "sender").await;
    sender.publish("t", "m").await;
    let (mut reader, answer) = Client::with(server.address, connect("reader")).await;
    assert!(!answer.session_present);
    sender.publish("t", "m").await;
    reader.assert_quiet().await;
}

#[tokio::test]
async fn mqtt_3_sessions_last_too() {
    let server = Server::open();
    let lasting = || v3::Connect {
        keep_alive: 60,
        ..v3::Connect::default().client_id("old")
    };
    let (mut reader, answer) = OldClient::over(tcp(server.address).await, lasting()).await;
    assert!(!answer.session_present);
    let topic_filters = vec![("t".into(), QoS::AtLeastOnce)];
    reader
        .send(v3::Packet::Subscribe {
            packet_id: id(1),
            topic_filters,
        })
        .await;
    reader.next().await;
    reader.send(v3::Packet::Disconnect).await;
    assert_eq!(reader.next().await, None);
    Client::open(server.address, "sender")
        .await
        .publish("t", "m")
        .await;
    let (mut reader, answer) = OldClient::over(tcp(server.address).await, lasting()).await;
    assert!(answer.session_present);
    let Some(v3::Packet::Publish(message)) = reader.next().await else {
        panic!("no message")
    };
    assert_eq!(message.payload, "m");
}

#[tokio::test]
async fn the_session_expiry_of_a_disconnect_counts() {
    let server = Server::open();
    let (mut client, _) = Client::with(server.address, lasting("c")).await;
    let end_now = Disconnect {
        session_expiry_interval_secs: Some(0),
        ..Disconnect::default()
    };
    client.send(end_now).await;
    assert_eq!(client.ended().await, None);
    assert!(!Client::with(server.address, lasting("c")).await.1.session_present);

    let (mut client, _) = Client::with(server.address, connect("d")).await;
    let keep_after_all = Disconnect {
        session_expiry_interval_secs: Some(60),
        ..Disconnect::default()
    };
    client.send(keep_after_all).await;
    assert_eq!(client.ended().await, Some(DisconnectReasonCode::ProtocolError));
}

#[tokio::test]
async fn session_expiry_is_capped_and_the_client_told() {
    let server = Server::limited(Limits {
        max_session_expiry: Duration::from_secs(100),
        ..Limits::default()
    });
    let long = Connect {
        session_expiry_interval_secs: 101,
        ..connect("c")
    };
    assert_eq!(
        Client::with(server.address, long)
            .await
            .1
            .session_expiry_interval_secs,
        Some(100)
    );
    let short = Connect {
        session_expiry_interval_secs: 99,
        ..connect("d")
    };
    assert_eq!(
        Client::with(server.address, short)
            .await
            .1
            .session_expiry_interval_secs,
        None
    );
}

#[tokio::test]
async fn a_second_connection_takes_the_client_id_over_and_is_reported() {
    let server = Server::open();
    let (mut first, _) = Client::with(server.address, lasting("c")).await;
    first.subscribe("t", QoS::AtLeastOnce).await;
    let (mut newcomer, answer) = Client::with(server.address, lasting("c")).await;
    assert!(answer.session_present);
    assert_eq!(first.ended().await, Some(DisconnectReasonCode::SessionTakenOver));
    let event = server.event().await;
    assert_eq!(
        (event.reason, event.client_id.as_deref()),
        (Reason::SessionTakeover, Some("c"))
    );
    newcomer.publish("t", "m").await;
    assert_eq!(newcomer.payload().await, "m");
}

#[tokio::test]
async fn many_connections_with_one_client_id_leave_one() {
    let server = Server::open();
    let mut clients = Vec::new();
    for _ in 0..20 {
        let address = server.address;
        clients.push(tokio::spawn(async move {
            Client::over(tcp(address).await, lasting("c")).await
        }));
    }
    let mut winners = 0;
    for client in clients {
        let (mut client, answer) = client.await.unwrap();
        if answer.reason_code == ConnectAckReason::Success && client.answers().await {
            winners += 1;
        }
    }
    assert!(winners <= 1, "{winners}");
    let mut last = Client::with(server.address, lasting("c")).await.0;
    last.assert_quiet().await;
    assert_eq!(server.handle.stats().sessions, 1);
}

#[tokio::test]
async fn a_client_without_id_is_given_one() {
    let server = Server::open();
    let (_first, answer) = Client::with(server.address, connect("")).await;
    let (_second, other) = Client::with(server.address, connect("")).await;
    assert!(answer.assigned_client_id.is_some());
    assert_ne!(answer.assigned_client_id, other.assigned_client_id);
    let (_third, answer) = Client::with(server.address, connect("own")).await;
    assert_eq!(answer.assigned_client_id, None);
}

#[tokio::test]
async fn sessions_are_bounded() {
    let server = Server::limited(Limits {
        max_sessions: 1,
        ..Limits::default()
    });
    let (client, _) = Client::with(server.address, lasting("a")).await;
    let (_, answer) = Client::over(tcp(server.address).await, lasting("b")).await;
    assert_eq!(answer.reason_code, ConnectAckReason::QuotaExceeded);
    assert_eq!(server.event().await.reason, Reason::ConnectionLimit);
    drop(client);
    assert!(Client::with(server.address, lasting("a")).await.1.session_present);
}

#[tokio::test]
async fn gate_is_told_whether_the_session_was_resumed() {
    let server = Server::open();
    for (resumes, connect) in [
        (false, lasting("c")),
        (true, lasting("c")),
        (false, connect("c")),
        (false, lasting("c")),
        (true, lasting("c")),
        (false, lasting("d")),
    ] {
        let (mut client, answer) = Client::with(server.address, connect).await;
        client.publish("t", "m").await;
        let seen = server.admitted().await;
        assert_eq!((seen.resumed, answer.session_present), (resumes, resumes));
    }
}
