//! A question that the gate answers itself: acknowledged, shown to nobody, and answered.

use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::{PublishAckReason, SubscribeAckReason, SubscriptionOptions};
use tidegate_envelope::reason::Reason;

use crate::client::{Client, connect, publish, tls, will};
use crate::identities::Identities;
use crate::serve::Server;

async fn open(identities: &Identities, server: &Server, name: &'static str) -> Client {
    let socket = tls(server.address, identities.client_tls(Some(name)))
        .await
        .unwrap();
    Client::over(socket, connect(name)).await.0
}

#[tokio::test]
async fn device_that_asks_is_answered_on_its_command_topic_and_nobody_else_hears_of_it() {
    let identities = Identities::new();
    let server = identities.serve();
    let mut asking = open(&identities, &server, "device-001").await;
    let mut other = open(&identities, &server, "device-002").await;
    let mut gateway = open(&identities, &server, "gateway").await;
    for (client, topic) in [
        (&mut asking, "site/one/commands"),
        (&mut other, "site/two/commands"),
        (&mut gateway, "site/+/time"),
    ] {
        let granted = client.subscribe(topic, QoS::AtLeastOnce).await;
        assert_eq!(granted, SubscribeAckReason::GrantedQos1);
    }
    let question = "answer:site/one/commands=now";
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        asking.send(publish("site/one/time", question, qos, 1)).await;
        if qos != QoS::AtMostOnce {
            assert_eq!(asking.acknowledged().await.reason_code, PublishAckReason::Success);
        }
        assert_eq!(asking.payload().await, "now");
    }
    other.assert_quiet().await;
    gateway.assert_quiet().await;
    assert_eq!(server.handle.stats().refused, 0);
}

#[tokio::test]
async fn device_cannot_ask_in_the_name_of_another() {
    let identities = Identities::new();
    let server = identities.serve();
    let mut victim = open(&identities, &server, "device-001").await;
    victim.subscribe("site/one/commands", QoS::AtLeastOnce).await;
    let mut other = open(&identities, &server, "device-002").await;
    let asked = other
        .publish("site/one/time", "answer:site/one/commands=never")
        .await;
    assert_eq!(asked, PublishAckReason::NotAuthorized);
    server.event_of(Reason::AclDenied).await;
    assert!(server.pending_admitted().await.is_none());
    victim.assert_quiet().await;
}

#[tokio::test]
async fn answer_reaches_an_asker_that_wants_none_of_its_own_messages() {
    let server = Server::open();
    let mut client = Client::open(server.address, "c").await;
    let options = SubscriptionOptions {
        qos: QoS::AtLeastOnce,
        no_local: true,
        ..SubscriptionOptions::default()
    };
    client.subscribe_with("answers", options).await;
    client
        .send(publish("questions", "answer:answers=yes", QoS::AtMostOnce, 0))
        .await;
    assert_eq!(client.payload().await, "yes");
}

#[tokio::test]
async fn answer_to_no_topic_is_dropped_and_a_will_is_not_answered() {
    let server = Server::open();
    let mut reader = Client::open(server.address, "reader").await;
    reader.subscribe("#", QoS::AtLeastOnce).await;
    assert_eq!(
        reader.publish("t", "answer:a/+=x").await,
        PublishAckReason::Success
    );
    server.admitted().await;
    let mut dying = connect("dying");
    dying.last_will = Some(will("wills", "answer:a=x"));
    drop(Client::with(server.address, dying).await);
    assert_eq!(&*server.admitted().await.topic, "wills");
    reader.assert_quiet().await;
}
