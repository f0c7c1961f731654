//! What a sender hears about its publishes.

use rmqtt_codec::types::QoS;
use rmqtt_codec::v3;
use rmqtt_codec::v5::{DisconnectReasonCode, Packet, PublishAck2Reason, PublishAckReason, PublishProperties};
use tidegate_broker::{Limits, MAX_USER_PROPERTIES, MAX_USER_PROPERTY_BYTES};
use tidegate_envelope::principal::Principal;
use tidegate_envelope::reason::Reason;

use crate::client::{Client, OldClient, id, lasting, publish};
use crate::serve::Server;

#[tokio::test]
async fn each_disposition_has_its_reason_code_in_mqtt_5() {
    let server = Server::open();
    let mut client = Client::open(server.address, "c").await;
    let cases = [
        ("fine", PublishAckReason::Success),
        ("refuse:duplicate", PublishAckReason::Success),
        ("refuse:identity_mismatch", PublishAckReason::NotAuthorized),
        ("refuse:bad_mac", PublishAckReason::NotAuthorized),
        ("refuse:replay", PublishAckReason::NotAuthorized),
        ("refuse:stale", PublishAckReason::NotAuthorized),
        ("refuse:malformed", PublishAckReason::PayloadFormatInvalid),
        ("refuse:bad_schema", PublishAckReason::PayloadFormatInvalid),
        ("refuse:rate_limited", PublishAckReason::QuotaExceeded),
        ("unavailable", PublishAckReason::ImplementationSpecificError),
        ("fine again", PublishAckReason::Success),
    ];
    for (payload, expected) in cases {
        assert_eq!(client.publish("t", payload).await, expected, "{payload}");
    }
}

#[tokio::test]
async fn a_refusal_names_its_reason_unless_the_client_wants_none() {
    let server = Server::open();
    let mut client = Client::open(server.address, "c").await;
    client
        .send(publish("t", "refuse:bad_mac", QoS::AtLeastOnce, 1))
        .await;
    assert_eq!(
        client.acknowledged().await.reason_string.as_deref(),
        Some("bad_mac")
    );
    let mut quiet = lasting("quiet");
    quiet.request_problem_info = false;
    let (mut client, _) = Client::with(server.address, quiet).await;
    client
        .send(publish("t", "refuse:bad_mac", QoS::AtLeastOnce, 1))
        .await;
    assert_eq!(client.acknowledged().await.reason_string, None);
}

#[tokio::test]
async fn refused_messages_reach_nobody_and_delivered_ones_do() {
    let server = Server::open();
    let mut reader = Client::open(server.address, "reader").await;
    reader.subscribe("t", QoS::AtLeastOnce).await;
    let mut sender = Client::open(server.address, "sender").await;
    for payload in ["refuse:bad_mac", "unavailable", "refuse:duplicate", "good"] {
        sender.publish("t", payload).await;
    }
    assert_eq!(reader.payload().await, "good");
    reader.assert_quiet().await;
}

#[tokio::test]
async fn mqtt_3_gets_a_plain_puback_for_a_refusal_and_no_answer_when_nothing_is_durable() {
    let server = Server::open();
    let mut client = OldClient::open(server.address, "c").await;
    client
        .send(publish("t", "refuse:replay", QoS::AtLeastOnce, 1))
        .await;
    assert_eq!(
        client.next().await,
        Some(v3::Packet::PublishAck { packet_id: id(1) })
    );
    client
        .send(publish("t", "unavailable", QoS::AtLeastOnce, 2))
        .await;
    assert_eq!(client.next().await, None);
}

#[tokio::test]
async fn acknowledgements_keep_the_order_of_the_publishes() {
    let server = Server::open();
    let mut client = Client::open(server.address, "c").await;
    client.send(publish("t", "hold", QoS::AtLeastOnce, 1)).await;
    client.send(publish("t", "quick", QoS::AtLeastOnce, 2)).await;
    client.send(publish("t", "hold", QoS::ExactlyOnce, 3)).await;
    client
        .send(publish("$not/allowed", "x", QoS::AtLeastOnce, 4))
        .await;
    // The gate has all of them at once, though the first is not decided.
    for expected in ["hold", "quick", "hold"] {
        assert_eq!(server.admitted().await.payload, expected);
    }
    client.assert_quiet().await;
    server.let_go(2);
    let mut order = Vec::new();
    for _ in 0..4 {
        order.push(client.acknowledged().await.packet_id.get());
    }
    assert_eq!(order, [1, 2, 3, 4]);
}

#[tokio::test]
async fn qos_2_is_admitted_once_however_often_it_is_sent() {
    let server = Server::open();
    let mut client = Client::open(server.address, "c").await;
    let mut message = publish("t", "m", QoS::ExactlyOnce, 7);
    client.send(message.clone()).await;
    assert_eq!(client.acknowledged().await.reason_code, PublishAckReason::Success);
    message.dup = true;
    client.send(message.clone()).await;
    assert_eq!(client.acknowledged().await.packet_id, id(7));
    client.send_release(7).await;
    assert_eq!(client.completed().await.reason_code, PublishAck2Reason::Success);
    client.send_release(7).await;
    assert_eq!(
        client.completed().await.reason_code,
        PublishAck2Reason::PacketIdNotFound
    );
    assert_eq!(server.admitted().await.payload, "m");
    assert!(server.pending_admitted().await.is_none());
    // The id is free again, so the same packet is another message now.
    client.send(message).await;
    client.acknowledged().await;
    assert_eq!(server.admitted().await.payload, "m");
}

#[tokio::test]
async fn a_refused_qos_2_publish_frees_its_id_in_mqtt_5_and_is_released_in_mqtt_3() {
    let server = Server::open();
    let mut client = Client::open(server.address, "c").await;
    client
        .send(publish("t", "refuse:bad_mac", QoS::ExactlyOnce, 7))
        .await;
    assert_eq!(
        client.acknowledged().await.reason_code,
        PublishAckReason::NotAuthorized
    );
    client.send(publish("t", "good", QoS::ExactlyOnce, 7)).await;
    assert_eq!(client.acknowledged().await.reason_code, PublishAckReason::Success);

    let mut old = OldClient::open(server.address, "old").await;
    old.send(publish("t", "refuse:bad_mac", QoS::ExactlyOnce, 7))
        .await;
    assert_eq!(
        old.next().await,
        Some(v3::Packet::PublishReceived { packet_id: id(7) })
    );
    old.send(v3::Packet::PublishRelease { packet_id: id(7) }).await;
    assert_eq!(
        old.next().await,
        Some(v3::Packet::PublishComplete { packet_id: id(7) })
    );
}

#[tokio::test]
async fn qos_2_is_remembered_over_a_reconnect() {
    let server = Server::open();
    let (mut client, _) = Client::with(server.address, lasting("c")).await;
    let mut message = publish("t", "m", QoS::ExactlyOnce, 9);
    client.send(message.clone()).await;
    client.acknowledged().await;
    server.admitted().await;
    drop(client);
    let (mut client, answer) = Client::with(server.address, lasting("c")).await;
    assert!(answer.session_present);
    message.dup = true;
    client.send(message).await;
    client.acknowledged().await;
    assert!(server.pending_admitted().await.is_none());
}

#[tokio::test]
async fn more_publishes_than_the_receive_maximum_end_an_mqtt_5_connection() {
    let server = Server::limited(Limits {
        max_incoming_in_flight: 3,
        ..Limits::default()
    });
    let mut client = Client::open(server.address, "c").await;
    for number in 1..=3 {
        client.send(publish("t", "hold", QoS::AtLeastOnce, number)).await;
    }
    client.assert_quiet().await;
    client.send(publish("t", "hold", QoS::AtLeastOnce, 4)).await;
    assert_eq!(server.event().await.reason, Reason::MqttMalformed);
    server.let_go(3);
    assert_eq!(
        client.ended().await,
        Some(DisconnectReasonCode::ReceiveMaximumExceeded)
    );
}

#[tokio::test]
async fn an_mqtt_3_client_is_held_back_instead() {
    let server = Server::limited(Limits {
        max_incoming_in_flight: 3,
        ..Limits::default()
    });
    let mut client = OldClient::open(server.address, "c").await;
    for number in 1..=200 {
        client.send(publish("t", "hold", QoS::AtLeastOnce, number)).await;
    }
    server.let_go(200);
    for number in 1..=200 {
        assert_eq!(
            client.next().await,
            Some(v3::Packet::PublishAck {
                packet_id: id(number)
            })
        );
    }
}

#[tokio::test]
async fn the_gate_sees_who_sent_what() {
    let server = Server::open();
    let mut client = Client::open(server.address, "the client").await;
    let mut message = publish("a/b", "payload", QoS::AtLeastOnce, 1);
    message.retain = true;
    message.dup = true;
    message.properties = Some(PublishProperties::default());
    client.send(message.clone()).await;
    let first = server.admitted().await;
    assert_eq!(
        (&*first.topic, &*first.payload, first.qos),
        ("a/b", &b"payload"[..], 1)
    );
    assert!(first.retain && first.dup);
    assert_eq!(*first.principal, Principal::Anonymous);
    assert_eq!(first.client_id, "the client");
    drop(client);
    let mut again = Client::open(server.address, "the client").await;
    again.publish("a/b", "x").await;
    let mut other = Client::open(server.address, "another").await;
    other.publish("a/b", "x").await;
    assert_eq!(server.admitted().await.session, first.session);
    assert_ne!(server.admitted().await.session, first.session);
}

#[tokio::test]
async fn publishes_sent_just_before_the_end_of_a_connection_are_still_delivered() {
    let server = Server::open();
    let mut reader = Client::open(server.address, "reader").await;
    reader.subscribe("t", QoS::AtLeastOnce).await;
    let mut sender = Client::open(server.address, "sender").await;
    sender.send(publish("t", "hold", QoS::AtMostOnce, 0)).await;
    sender.send(publish("t", "last", QoS::AtMostOnce, 0)).await;
    sender
        .send(Packet::Disconnect(rmqtt_codec::v5::Disconnect::default()))
        .await;
    drop(sender);
    server.admitted().await;
    server.let_go(1);
    assert_eq!(reader.payload().await, "hold");
    assert_eq!(reader.payload().await, "last");
}

#[tokio::test]
async fn an_oversize_payload_is_refused_and_an_oversize_packet_ends_the_connection() {
    let limits = Limits {
        max_payload_bytes: 1_000,
        ..Limits::default()
    };
    let (most, packet) = (limits.max_payload_bytes, limits.max_packet_bytes());
    let server = Server::limited(limits);
    let mut client = Client::open(server.address, "c").await;
    assert_eq!(
        client.publish("t", vec![b'x'; most]).await,
        PublishAckReason::Success
    );
    assert_eq!(
        client.publish("t", vec![b'x'; most + 1]).await,
        PublishAckReason::QuotaExceeded
    );
    assert_eq!(server.event().await.reason.as_str(), "oversize");
    client
        .send(publish("t", vec![b'x'; packet], QoS::AtLeastOnce, 1))
        .await;
    assert_eq!(client.ended().await, Some(DisconnectReasonCode::PacketTooLarge));
    assert_eq!(server.event().await.reason.as_str(), "oversize");
}

fn with_properties(count: usize, bytes: usize) -> rmqtt_codec::types::Publish {
    let mut pairs = vec![("n".into(), "".into()); count];
    // The first one makes up the length of all.
    if let Some((_, value)) = pairs.first_mut() {
        *value = "v".repeat(bytes - count).into();
    }
    let mut publish = publish("t", "m", QoS::AtLeastOnce, 1);
    publish.properties = Some(PublishProperties {
        user_properties: pairs,
        ..PublishProperties::default()
    });
    publish
}

#[tokio::test]
async fn user_properties_reach_the_gate_in_order_and_are_bounded_in_number_and_bytes() {
    let server = Server::open();
    let mut client = Client::open(server.address, "c").await;
    let mut signed = with_properties(0, 0);
    let pairs = [("b", "1"), ("a", "2"), ("b", "3")].map(|(name, value)| (name.into(), value.into()));
    signed.properties.as_mut().unwrap().user_properties = pairs.to_vec();
    client.send(signed).await;
    assert_eq!(client.acknowledged().await.reason_code, PublishAckReason::Success);
    assert_eq!(server.admitted().await.user_properties, pairs);
    let (most, longest) = (MAX_USER_PROPERTIES, MAX_USER_PROPERTY_BYTES);
    for (count, bytes, expected) in [
        (most, most, PublishAckReason::Success),
        (most + 1, most + 1, PublishAckReason::QuotaExceeded),
        (1, longest, PublishAckReason::Success),
        (1, longest + 1, PublishAckReason::QuotaExceeded),
        (2, longest + 1, PublishAckReason::QuotaExceeded),
    ] {
        client.send(with_properties(count, bytes)).await;
        assert_eq!(
            client.acknowledged().await.reason_code,
            expected,
            "{count}, {bytes}"
        );
        if expected == PublishAckReason::Success {
            assert_eq!(server.admitted().await.user_properties.len(), count);
        } else {
            assert_eq!(server.event().await.reason, Reason::Oversize);
        }
    }
    assert!(server.pending_admitted().await.is_none());
}
