//! What subscribers get.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;
use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::{
    Connect, DisconnectReasonCode, Packet, PublishAck, PublishProperties, RetainHandling, Subscribe,
    SubscribeAckReason, SubscriptionOptions, Unsubscribe, UnsubscribeAckReason,
};
use tidegate_broker::Limits;

use crate::client::{Client, connect, id, publish, second};
use crate::serve::Server;

#[tokio::test]
async fn the_lower_of_both_qos_levels_is_used() {
    let server = Server::open();
    let levels = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
    let mut sender = Client::open(server.address, "sender").await;
    for wanted in levels {
        let mut reader = Client::open(server.address, "reader").await;
        reader.subscribe("a/+", wanted).await;
        for sent in levels {
            sender.send(publish("a/b", "m", sent, 1)).await;
            if sent != QoS::AtMostOnce {
                sender.acknowledged().await;
            }
            if sent == QoS::ExactlyOnce {
                sender.send_release(1).await;
                sender.completed().await;
            }
            let message = reader.message().await;
            assert_eq!(message.qos, sent.min(wanted));
            match message.qos {
                QoS::AtMostOnce => assert_eq!(message.packet_id, None),
                QoS::AtLeastOnce => {
                    let packet_id = message.packet_id.unwrap();
                    reader
                        .send(PublishAck {
                            packet_id,
                            ..PublishAck::default()
                        })
                        .await;
                }
                QoS::ExactlyOnce => {
                    let packet_id = message.packet_id.unwrap();
                    reader
                        .send(Packet::PublishReceived(PublishAck {
                            packet_id,
                            ..PublishAck::default()
                        }))
                        .await;
                    assert_eq!(
                        reader.receive().await,
                        Packet::PublishRelease(second(packet_id.get()))
                    );
                    reader
                        .send(Packet::PublishComplete(second(packet_id.get())))
                        .await;
                }
            }
        }
        reader.assert_quiet().await;
    }
}

#[tokio::test]
async fn the_clients_receive_maximum_is_kept() {
    let server = Server::open();
    let small = Connect {
        receive_max: NonZeroU16::new(2),
        ..connect("reader")
    };
    let (mut reader, _) = Client::with(server.address, small).await;
    reader.subscribe("t", QoS::AtLeastOnce).await;
    let mut sender = Client::open(server.address, "sender").await;
    for _ in 0..5 {
        sender.publish("t", "m").await;
    }
    let first = reader.message().await;
    reader.message().await;
    reader.assert_quiet().await;
    reader
        .send(PublishAck {
            packet_id: first.packet_id.unwrap(),
            ..PublishAck::default()
        })
        .await;
    reader.message().await;
    reader.assert_quiet().await;
}

#[tokio::test]
async fn retained_messages_come_with_a_subscription_and_leave_with_an_empty_payload() {
    let server = Server::open();
    let mut sender = Client::open(server.address, "sender").await;
    for (topic, payload) in [("a/1", "one"), ("a/2", "two"), ("a/2", "")] {
        let mut message = publish(topic, payload, QoS::AtLeastOnce, 1);
        message.retain = true;
        sender.send(message).await;
        sender.acknowledged().await;
    }
    let mut reader = Client::open(server.address, "reader").await;
    reader.subscribe("a/+", QoS::AtLeastOnce).await;
    let message = reader.message().await;
    assert_eq!((message.payload, message.retain), (Bytes::from("one"), true));
    reader.assert_quiet().await;
    let handling = |retain_handling| SubscriptionOptions {
        retain_handling,
        ..SubscriptionOptions::default()
    };
    reader
        .subscribe_with("a/+", handling(RetainHandling::AtSubscribeNew))
        .await;
    reader.assert_quiet().await;
    reader
        .subscribe_with("a/+", handling(RetainHandling::AtSubscribe))
        .await;
    assert_eq!(reader.message().await.payload, "one");
    reader
        .subscribe_with("a/1", handling(RetainHandling::NoAtSubscribe))
        .await;
    reader.assert_quiet().await;
    reader.subscribe("$share/g/a/1", QoS::AtLeastOnce).await;
    reader.assert_quiet().await;
}

#[tokio::test]
async fn the_retain_flag_is_passed_on_only_where_wanted() {
    let server = Server::open();
    let mut plain = Client::open(server.address, "plain").await;
    plain.subscribe("t", QoS::AtMostOnce).await;
    let mut keeping = Client::open(server.address, "keeping").await;
    let options = SubscriptionOptions {
        retain_as_published: true,
        ..SubscriptionOptions::default()
    };
    keeping.subscribe_with("t", options).await;
    let mut sender = Client::open(server.address, "sender").await;
    let mut message = publish("t", "m", QoS::AtMostOnce, 0);
    message.retain = true;
    sender.send(message).await;
    assert!(!plain.message().await.retain);
    assert!(keeping.message().await.retain);
}

#[tokio::test]
async fn no_local_keeps_own_messages_away() {
    let server = Server::open();
    let mut client = Client::open(server.address, "c").await;
    let options = SubscriptionOptions {
        no_local: true,
        ..SubscriptionOptions::default()
    };
    client.subscribe_with("t", options).await;
    client.publish("t", "own").await;
    client.assert_quiet().await;
    let mut other = Client::open(server.address, "other").await;
    other.publish("t", "foreign").await;
    assert_eq!(client.payload().await, "foreign");
}

#[tokio::test]
async fn no_local_on_a_shared_subscription_ends_the_connection() {
    let server = Server::open();
    let mut client = Client::open(server.address, "c").await;
    let options = SubscriptionOptions {
        no_local: true,
        ..SubscriptionOptions::default()
    };
    client
        .send(Subscribe {
            packet_id: id(1),
            id: None,
            user_properties: Vec::new(),
            topic_filters: vec![("$share/g/t".into(), options)],
        })
        .await;
    assert_eq!(client.ended().await, Some(DisconnectReasonCode::ProtocolError));
}

#[tokio::test]
async fn a_shared_subscription_gives_each_message_to_one_member() {
    let server = Server::open();
    let mut members = [
        Client::open(server.address, "one").await,
        Client::open(server.address, "two").await,
    ];
    for member in &mut members {
        member.subscribe("$share/g/a/#", QoS::AtLeastOnce).await;
    }
    let mut sender = Client::open(server.address, "sender").await;
    for _ in 0..4 {
        sender.publish("a/b", "m").await;
    }
    for member in &mut members {
        assert_eq!(member.payload().await, "m");
        assert_eq!(member.payload().await, "m");
        member.assert_quiet().await;
    }
}

#[tokio::test]
async fn properties_travel_with_a_message_and_subscription_ids_are_added() {
    let server = Server::open();
    let mut reader = Client::open(server.address, "reader").await;
    for (filter, number) in [("a/+", 5), ("a/#", 6)] {
        let subscribe = Subscribe {
            packet_id: id(1),
            id: NonZeroU32::new(number),
            user_properties: Vec::new(),
            topic_filters: vec![(filter.into(), SubscriptionOptions::default())],
        };
        reader.send(subscribe).await;
        reader.receive().await;
    }
    let mut sender = Client::open(server.address, "sender").await;
    let mut message = publish("a/b", "m", QoS::AtMostOnce, 0);
    let sent = PublishProperties {
        correlation_data: Some("id".into()),
        message_expiry_interval: NonZeroU32::new(100),
        content_type: Some("json".into()),
        user_properties: vec![("k".into(), "v".into()), ("k".into(), "w".into())],
        is_utf8_payload: true,
        response_topic: Some("answer".into()),
        ..PublishProperties::default()
    };
    message.properties = Some(sent.clone());
    sender.send(message).await;
    let mut got = reader.message().await.properties.unwrap();
    got.subscription_ids.sort_unstable();
    let ids = [5, 6].map(|number| NonZeroU32::new(number).unwrap());
    assert_eq!(
        got,
        PublishProperties {
            subscription_ids: ids.to_vec(),
            ..sent
        }
    );
}

#[tokio::test]
async fn illegal_filters_are_refused_one_by_one_and_bounds_are_kept() {
    let server = Server::limited(Limits {
        max_subscriptions: 2,
        ..Limits::default()
    });
    let mut client = Client::open(server.address, "c").await;
    let filters = ["a/#/b", "a", "$SYS/#", "b", "c", "a"];
    let topic_filters = filters
        .map(|filter| (filter.into(), SubscriptionOptions::default()))
        .to_vec();
    client
        .send(Subscribe {
            packet_id: id(1),
            id: None,
            user_properties: Vec::new(),
            topic_filters,
        })
        .await;
    let Packet::SubscribeAck(ack) = client.receive().await else {
        panic!("no SUBACK")
    };
    let expected = [
        SubscribeAckReason::TopicFilterInvalid,
        SubscribeAckReason::GrantedQos0,
        SubscribeAckReason::NotAuthorized,
        SubscribeAckReason::GrantedQos0,
        SubscribeAckReason::QuotaExceeded,
        SubscribeAckReason::GrantedQos0,
    ];
    assert_eq!(ack.status, expected);
    let topic_filters = ["a", "nothing"].map(Into::into).to_vec();
    client
        .send(Packet::Unsubscribe(Unsubscribe {
            packet_id: id(2),
            user_properties: Vec::new(),
            topic_filters,
        }))
        .await;
    let Packet::UnsubscribeAck(ack) = client.receive().await else {
        panic!("no UNSUBACK")
    };
    assert_eq!(
        ack.status,
        [
            UnsubscribeAckReason::Success,
            UnsubscribeAckReason::NoSubscriptionExisted
        ]
    );
    client.publish("a", "m").await;
    client.assert_quiet().await;
}

#[tokio::test]
async fn messages_longer_than_a_client_takes_are_left_out() {
    let server = Server::open();
    let small = Connect {
        max_packet_size: NonZeroU32::new(40),
        ..connect("reader")
    };
    let (mut reader, _) = Client::with(server.address, small).await;
    reader.subscribe("t", QoS::AtLeastOnce).await;
    let mut sender = Client::open(server.address, "sender").await;
    sender.publish("t", vec![b'x'; 100]).await;
    sender.publish("t", "short").await;
    assert_eq!(reader.payload().await, "short");
}

#[tokio::test]
async fn the_process_itself_can_publish() {
    let server = Server::open();
    let mut reader = Client::open(server.address, "reader").await;
    reader.subscribe("a/commands", QoS::AtLeastOnce).await;
    assert_eq!(server.handle.publish("a/commands", "close".into()).unwrap(), 1);
    assert_eq!(reader.payload().await, "close");
    assert_eq!(server.handle.publish("b", "x".into()).unwrap(), 0);
    assert!(server.handle.publish("a/#", "x".into()).is_err());
}

#[tokio::test]
async fn thousands_of_messages_arrive_in_order() {
    const COUNT: u16 = 5_000;
    let server = Server::open();
    let mut reader = Client::open(server.address, "reader").await;
    reader.subscribe("t", QoS::AtLeastOnce).await;
    let mut sender = Client::open(server.address, "sender").await;
    let send = async {
        let mut acknowledged = 0;
        for number in 1..=COUNT {
            sender
                .send(publish(
                    "t",
                    number.to_be_bytes().to_vec(),
                    QoS::AtLeastOnce,
                    number,
                ))
                .await;
            if number - acknowledged >= 200 {
                acknowledged = sender.acknowledged().await.packet_id.get();
            }
        }
    };
    let receive = async {
        for number in 1..=COUNT {
            assert_eq!(*reader.payload().await, number.to_be_bytes());
        }
    };
    tokio::join!(send, receive);
    assert_eq!(server.handle.stats().delivered, u64::from(COUNT));
}
