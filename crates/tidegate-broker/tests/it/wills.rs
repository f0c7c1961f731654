//! Last wills: published for those who are lost, not for those who leave.

use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::{Connect, ConnectAckReason, Disconnect, DisconnectReasonCode, LastWill};
use tidegate_broker::MAX_USER_PROPERTIES;
use tidegate_envelope::reason::Reason;

use crate::client::{Client, connect, lasting, tcp, will};
use crate::serve::Server;

fn with_will(client_id: &'static str, message: &'static str) -> Connect {
    Connect {
        last_will: Some(will("wills", message)),
        ..connect(client_id)
    }
}

#[tokio::test]
async fn a_lost_client_leaves_its_will_and_a_leaving_one_does_not() {
    let server = Server::open();
    let mut reader = Client::open(server.address, "reader").await;
    reader.subscribe("wills", QoS::AtLeastOnce).await;

    let (mut leaving, _) = Client::with(server.address, with_will("leaving", "unwanted")).await;
    leaving.send(Disconnect::default()).await;
    assert_eq!(leaving.ended().await, None);

    let (lost, _) = Client::with(server.address, with_will("lost", "lost")).await;
    drop(lost);
    assert_eq!(reader.payload().await, "lost");

    let (mut asking, _) = Client::with(server.address, with_will("asking", "asked for")).await;
    asking
        .send(Disconnect::new(DisconnectReasonCode::DisconnectWithWillMessage))
        .await;
    assert_eq!(reader.payload().await, "asked for");
    reader.assert_quiet().await;
}

#[tokio::test]
async fn a_will_goes_through_the_gate() {
    let server = Server::open();
    let mut reader = Client::open(server.address, "reader").await;
    reader.subscribe("wills", QoS::AtLeastOnce).await;
    drop(Client::with(server.address, with_will("c", "refuse:bad_mac")).await);
    let seen = server.admitted().await;
    assert_eq!((&*seen.topic, &*seen.client_id), ("wills", "c"));
    reader.assert_quiet().await;
}

#[tokio::test]
async fn a_delayed_will_is_dropped_when_the_client_comes_back() {
    let server = Server::open();
    let delayed = || {
        let will = LastWill {
            will_delay_interval_sec: Some(1),
            ..will("wills", "late")
        };
        Connect {
            last_will: Some(will),
            ..lasting("c")
        }
    };
    let mut reader = Client::open(server.address, "reader").await;
    reader.subscribe("wills", QoS::AtLeastOnce).await;
    drop(Client::with(server.address, delayed()).await);
    let (back, answer) = Client::with(server.address, delayed()).await;
    assert!(answer.session_present);
    drop(back);
    // The will of the second connection comes, that of the first does not.
    assert_eq!(reader.payload().await, "late");
    reader.assert_quiet().await;
}

#[tokio::test]
async fn a_clean_start_brings_a_delayed_will_forward() {
    let server = Server::open();
    let mut reader = Client::open(server.address, "reader").await;
    reader.subscribe("wills", QoS::AtLeastOnce).await;
    let late = LastWill {
        will_delay_interval_sec: Some(500),
        ..will("wills", "late")
    };
    drop(
        Client::with(
            server.address,
            Connect {
                last_will: Some(late),
                ..lasting("c")
            },
        )
        .await,
    );
    while server.handle.stats().connections > 1 {
        tokio::task::yield_now().await;
    }
    Client::open(server.address, "c").await;
    assert_eq!(reader.payload().await, "late");
}

#[tokio::test]
async fn wills_that_could_not_be_published_are_refused_at_connect() {
    let server = Server::open();
    let cases = [
        ("$SYS/x", ConnectAckReason::NotAuthorized, Reason::AclDenied),
        ("a/#", ConnectAckReason::TopicNameInvalid, Reason::MqttMalformed),
        ("", ConnectAckReason::TopicNameInvalid, Reason::MqttMalformed),
    ];
    for (topic, code, reason) in cases {
        let connect = Connect {
            last_will: Some(will(topic, "m")),
            ..connect("c")
        };
        let (_, answer) = Client::over(tcp(server.address).await, connect).await;
        assert_eq!(answer.reason_code, code, "{topic}");
        assert_eq!(server.event().await.reason, reason, "{topic}");
    }
}

#[tokio::test]
async fn will_brings_its_user_properties_to_the_gate_and_too_many_are_refused() {
    let server = Server::open();
    let with = |count| {
        let mut will = will("wills", "w");
        will.user_properties = vec![("n".into(), "v".into()); count];
        Connect {
            last_will: Some(will),
            ..lasting("c")
        }
    };
    let fits = Client::with(server.address, with(MAX_USER_PROPERTIES)).await.0;
    drop(fits);
    // A will is not part of what a resumed session repeats.
    let seen = server.admitted().await;
    assert_eq!(
        (seen.user_properties.len(), seen.resumed),
        (MAX_USER_PROPERTIES, false)
    );
    let (_, answer) = Client::over(tcp(server.address).await, with(MAX_USER_PROPERTIES + 1)).await;
    assert_eq!(answer.reason_code, ConnectAckReason::PacketTooLarge);
    assert_eq!(server.event().await.reason, Reason::Oversize);
}
