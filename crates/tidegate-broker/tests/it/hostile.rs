//! Clients that mean harm: mute, slow, endless, broken. A good client must not notice them.

use std::time::Duration;

use bytes::BytesMut;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::{self, Connect, DisconnectReasonCode, Packet, PublishAck, PublishProperties};
use tidegate_broker::Limits;
use tidegate_envelope::reason::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::codec::Encoder;

use crate::client::{Client, connect, id, lasting, publish, tcp, will};
use crate::serve::{PATIENCE, Server};

/// Long enough for an honest client on a busy machine, short enough for a test.
const SHORT: Duration = Duration::from_millis(1_500);

/// Reads until the broker closes the connection.
async fn closed(socket: &mut TcpStream) {
    let mut rest = Vec::new();
    // A reset says the same as an orderly end.
    let _ = timeout(PATIENCE, socket.read_to_end(&mut rest))
        .await
        .expect("closed in time");
}

#[tokio::test]
async fn mute_and_half_spoken_connections_are_closed_and_good_ones_served_meanwhile() {
    let server = Server::limited(Limits {
        connect_within: SHORT,
        ..Limits::default()
    });
    let mut bad = Vec::new();
    for number in 0..300 {
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        if number % 2 == 0 {
            socket.write_all(b"\x10\x20\x00\x04MQTT\x05").await.unwrap();
        }
        bad.push(socket);
    }
    let mut good = Client::open(server.address, "good").await;
    good.publish("t", "m").await;
    for socket in &mut bad {
        closed(socket).await;
    }
    assert_eq!(server.event().await.reason, Reason::ConnectTimeout);
    good.assert_quiet().await;
}

#[tokio::test]
async fn connections_are_bounded_and_places_are_given_back() {
    let server = Server::limited(Limits {
        max_connections_per_address: 2,
        ..Limits::default()
    });
    let one = Client::open(server.address, "one").await;
    let _two = Client::open(server.address, "two").await;
    closed(&mut TcpStream::connect(server.address).await.unwrap()).await;
    assert_eq!(server.event().await.reason, Reason::ConnectionLimit);
    drop(one);
    while server.handle.stats().connections > 1 {
        tokio::task::yield_now().await;
    }
    Client::open(server.address, "three").await;
}

#[tokio::test]
async fn a_client_that_breaks_its_keep_alive_is_closed() {
    let server = Server::open();
    let brief = Connect {
        keep_alive: 1,
        ..connect("brief")
    };
    let (mut client, _) = Client::with(server.address, brief).await;
    assert_eq!(client.ended().await, Some(DisconnectReasonCode::KeepAliveTimeout));
}

#[tokio::test]
async fn a_gate_that_takes_long_is_not_held_against_the_client() {
    let server = Server::limited(Limits {
        max_incoming_in_flight: 1,
        ..Limits::default()
    });
    let brief = Connect {
        keep_alive: 1,
        ..connect("brief")
    };
    let (mut client, _) = Client::with(server.address, brief).await;
    client.send(publish("t", "hold", QoS::AtLeastOnce, 1)).await;
    for _ in 0..64 {
        client.send(publish("t", "hold", QoS::AtMostOnce, 0)).await;
    }
    // Another client's silence takes as long as this one's patience is tested.
    let (mut clock, _) = Client::with(
        server.address,
        Connect {
            keep_alive: 2,
            ..connect("clock")
        },
    )
    .await;
    clock.ended().await;
    server.let_go(100);
    assert_eq!(client.acknowledged().await.packet_id, id(1));
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_is_cut_off_and_hinders_nobody() {
    let limits = Limits {
        max_queued_messages: 100,
        write_stall: SHORT,
        ..Limits::default()
    };
    let server = Server::limited(limits);
    let mut slow = Client::open(server.address, "slow").await;
    slow.subscribe("t", QoS::AtLeastOnce).await;
    let mut reader = Client::open(server.address, "reader").await;
    reader.subscribe("t", QoS::AtLeastOnce).await;
    let mut sender = Client::open(server.address, "sender").await;
    let payload = vec![b'x'; 50_000];
    for _ in 0..300 {
        sender.publish("t", payload.clone()).await;
        assert_eq!(reader.payload().await.len(), payload.len());
    }
    while server.handle.stats().sessions > 2 {
        tokio::task::yield_now().await;
    }
    reader.assert_quiet().await;
}

#[tokio::test]
async fn a_client_that_sends_without_reading_is_held_back_and_cut_off() {
    let server = Server::limited(Limits {
        write_stall: SHORT,
        ..Limits::default()
    });
    let (client, _) = Client::with(server.address, connect("deaf")).await;
    let (_unread, mut speak) = tokio::io::split(client.framed.into_inner());
    let pings = [0xc0, 0].repeat(1 << 20);
    let flood = async { while speak.write_all(&pings).await.is_ok() {} };
    timeout(PATIENCE, flood).await.expect("cut off in time");
    while server.handle.stats().sessions > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn forbidden_packets_end_the_connection_with_their_code() {
    let server = Server::open();
    let with = |properties| {
        let mut message = publish("t", "m", QoS::AtLeastOnce, 1);
        message.properties = Some(properties);
        Packet::from(message)
    };
    let alias = PublishProperties {
        topic_alias: Some(id(1)),
        ..PublishProperties::default()
    };
    let subscription = PublishProperties {
        subscription_ids: vec![std::num::NonZeroU32::MIN],
        ..Default::default()
    };
    let cases = [
        (with(alias), DisconnectReasonCode::TopicAliasInvalid),
        (with(subscription), DisconnectReasonCode::ProtocolError),
        (
            publish("a/#", "m", QoS::AtMostOnce, 0).into(),
            DisconnectReasonCode::TopicNameInvalid,
        ),
        (
            publish("", "m", QoS::AtMostOnce, 0).into(),
            DisconnectReasonCode::TopicNameInvalid,
        ),
        (connect("again").into(), DisconnectReasonCode::ProtocolError),
        (
            Packet::Auth(v5::Auth::default()),
            DisconnectReasonCode::ProtocolError,
        ),
        (Packet::PingResponse, DisconnectReasonCode::ProtocolError),
    ];
    for (packet, code) in cases {
        let mut client = Client::open(server.address, "c").await;
        client.send(packet.clone()).await;
        assert_eq!(client.ended().await, Some(code), "{packet:?}");
        assert_eq!(
            server.event_of(Reason::MqttMalformed).await.client_id.as_deref(),
            Some("c")
        );
    }
}

#[tokio::test]
async fn connects_that_are_none_are_refused_and_reported() {
    let server = Server::open();
    let openings: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x30\x03\x00\x01a",
        b"\x10\x0c\x00\x04MQTT\x09\x02\x00\x3c\x00\x00",
        b"\x10\x0c\x00\x04MQTX\x04\x02\x00\x3c\x00\x00",
        b"\x10\xff\xff\xff\xff\x01",
        b"\x10\x00",
    ];
    for opening in openings {
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        socket.write_all(opening).await.unwrap();
        closed(&mut socket).await;
        assert_eq!(server.event().await.reason, Reason::MqttMalformed, "{opening:x?}");
    }
}

#[tokio::test]
async fn a_flood_of_broken_connections_is_reported_in_few_events_that_count_the_rest() {
    let server = Server::open();
    for _ in 0..500 {
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        socket.write_all(b"junk").await.unwrap();
        closed(&mut socket).await;
    }
    let (mut events, mut told) = (0, 0);
    while told < 500 {
        let event = server.event().await;
        assert_eq!(event.reason, Reason::MqttMalformed);
        events += 1;
        told += 1 + event.left_out;
    }
    assert_eq!(told, 500);
    assert!(events < 300, "{events} events");
}

/// Valid packets of every kind that a client sends.
fn packets() -> Vec<Packet> {
    let mut message = publish("a/b", "payload", QoS::ExactlyOnce, 3);
    message.properties = Some(PublishProperties {
        correlation_data: Some("id".into()),
        user_properties: vec![("k".into(), "v".into())],
        ..PublishProperties::default()
    });
    let acknowledgement = PublishAck {
        packet_id: id(1),
        ..PublishAck::default()
    };
    let subscribe = v5::Subscribe {
        packet_id: id(2),
        id: None,
        user_properties: Vec::new(),
        topic_filters: vec![
            ("a/#".into(), v5::SubscriptionOptions::default()),
            ("$share/g/b".into(), Default::default()),
        ],
    };
    let unsubscribe = v5::Unsubscribe {
        packet_id: id(3),
        user_properties: Vec::new(),
        topic_filters: vec!["a/#".into()],
    };
    vec![
        Connect {
            last_will: Some(will("wills", "w")),
            ..lasting("mutant")
        }
        .into(),
        publish("a/b", "payload", QoS::AtMostOnce, 0).into(),
        message.into(),
        subscribe.into(),
        Packet::Unsubscribe(unsubscribe),
        Packet::PublishAck(acknowledgement.clone()),
        Packet::PublishReceived(acknowledgement),
        Packet::PublishRelease(crate::client::second(3)),
        Packet::PublishComplete(crate::client::second(1)),
        Packet::PingRequest,
        Packet::Disconnect(v5::Disconnect::new(
            DisconnectReasonCode::DisconnectWithWillMessage,
        )),
    ]
}

/// One to four bytes changed, or a cut, or a repetition.
fn mutate(random: &mut StdRng, bytes: &mut Vec<u8>) {
    for _ in 0..random.random_range(1..=4) {
        let at = random.random_range(0..bytes.len());
        match random.random_range(0..4) {
            0 => bytes[at] = random.random(),
            1 => bytes[at] ^= 1 << random.random_range(0..8),
            2 if bytes.len() > 1 => bytes.truncate(at.max(1)),
            _ => bytes.insert(at, random.random()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mutated_packets_and_random_bytes_break_nothing() {
    let limits = Limits {
        connect_within: Duration::from_millis(200),
        ..Limits::default()
    };
    let server = Server::limited(limits);
    let mut good = Client::open(server.address, "good").await;
    good.subscribe("good", QoS::AtLeastOnce).await;
    let packets = packets();
    let mut encoded = BytesMut::new();
    v5::Codec::default()
        .encode(packets[0].clone(), &mut encoded)
        .unwrap();
    let opening = encoded.to_vec();
    for seed in 0..600 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut bytes = Vec::new();
        for _ in 0..random.random_range(1..6) {
            let mut encoded = BytesMut::new();
            let packet = packets[random.random_range(0..packets.len())].clone();
            v5::Codec::default().encode(packet, &mut encoded).unwrap();
            bytes.extend_from_slice(&encoded);
        }
        match seed % 3 {
            0 => bytes.iter_mut().for_each(|byte| *byte = random.random()),
            _ => mutate(&mut random, &mut bytes),
        }
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        if seed % 2 == 0 {
            // The broker may close while this is being written.
            let _ = socket.write_all(&opening).await;
        }
        let _ = socket.write_all(&bytes).await;
        let _ = socket.shutdown().await;
        closed(&mut socket).await;
        if seed % 100 == 0 {
            good.publish("good", "m").await;
            assert_eq!(good.payload().await, "m");
        }
    }
    let mut fresh = Client::over(tcp(server.address).await, connect("fresh")).await.0;
    fresh.publish("good", "still here").await;
    assert_eq!(good.payload().await, "still here");
}
