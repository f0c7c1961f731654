//! Every role, action and kind of topic of `testdata/access.txt`, on the embedded broker and on a
//! stock Mosquitto with the access control list that is generated from the same rules.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{
    Connect, ConnectAckReason, Disconnect, DisconnectReasonCode, LastWill, Packet, PublishAckReason,
    SubscribeAckReason, SubscriptionOptions,
};
use tidegate_broker::mosquitto::access_control_list;
use tidegate_broker::{Access, Limits, TopicPattern, TopicRules, Transport};
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::principal::Role;
use tidegate_envelope::reason::Reason;
use tidegate_pki::profile::Profile;
use tokio::net::{TcpSocket, TcpStream};

use crate::client::{Client, connect, publish, tls, tls_over, will};
use crate::identities::{Identities, device, topic_rules};
use crate::serve::Server;
use crate::stock::Stock;
use crate::table::{Action, Answer, Case, cases};

/// What the registered devices' topic segments are.
#[derive(Clone, Copy)]
enum Segments {
    /// Words of their own.
    Named,
    /// The ids.
    Ids,
}

impl Segments {
    fn of(self, id: &str) -> Option<String> {
        match (self, id) {
            (Self::Named, "device-001") => Some("one".to_owned()),
            (Self::Named, "device-002") => Some("two".to_owned()),
            (Self::Ids, "device-001" | "device-002") => Some(id.to_owned()),
            _ => None,
        }
    }

    fn rules(self) -> TopicRules {
        topic_rules(move |id| self.of(id.as_str()))
    }

    /// A cell's topic or filter for the client that has this certificate.
    fn fill(self, topic: &str, name: &str) -> String {
        let own = self.of(name).unwrap_or_else(|| name.to_owned());
        let other = self.of("device-002").unwrap_or_default();
        topic.replace("OWN", &own).replace("OTHER", &other)
    }
}

/// Whose certificate stands for a role.
fn certificate(role: &str) -> &str {
    match role {
        "device" => "device-001",
        "stranger" => "device-009",
        other => other,
    }
}

/// A topic that a filter brings, and that nothing narrower would.
fn sample(filter: &str) -> &'static str {
    filter.replace('+', "any").replace('#', "any/any").leak()
}

/// What a client was told.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Connect(ConnectAckReason),
    Publish(PublishAckReason),
    Subscribe(SubscribeAckReason),
}

/// A socket from an address of its own: events are counted by address, and beyond some of a kind
/// in a second only their number is told.
async fn dial_from(number: usize, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    let last = u8::try_from(number % 250).unwrap() + 2;
    socket.bind(([127, 0, 0, last], 0).into()).unwrap();
    socket.connect(address).await.unwrap()
}

/// Does what a cell is about. The client is left over where it is still connected.
async fn act(
    identities: &Identities,
    address: SocketAddr,
    case: &Case,
    topic: &'static str,
) -> (Told, Option<Client>) {
    let name = certificate(case.role);
    let last_will = match case.action {
        Action::Will { retain } => Some(LastWill {
            retain,
            ..will(topic, "marker")
        }),
        _ => None,
    };
    let hello = Connect {
        last_will,
        // Its own, since the last one's session may still be on its way out.
        ..connect(format!("actor-{}", case.number).leak())
    };
    let socket = tls_over(
        dial_from(case.number, address).await,
        identities.client_tls(Some(name)),
    )
    .await
    .unwrap();
    let (mut client, answer) = Client::over(socket, hello).await;
    if answer.reason_code != ConnectAckReason::Success {
        return (Told::Connect(answer.reason_code), None);
    }
    match case.action {
        Action::Publish { retain } => {
            let mut message = publish(topic, "marker", QoS::AtLeastOnce, 1);
            message.retain = retain;
            client.send(message).await;
            let told = Told::Publish(client.acknowledged().await.reason_code);
            (told, Some(client))
        }
        Action::Will { .. } => {
            let leave = Disconnect::new(DisconnectReasonCode::DisconnectWithWillMessage);
            client.send(Packet::Disconnect(leave)).await;
            client.ended().await;
            (Told::Connect(answer.reason_code), None)
        }
        Action::Subscribe => {
            let told = client.subscribe(topic, QoS::AtMostOnce).await;
            (Told::Subscribe(told), Some(client))
        }
        Action::Share => {
            let filter = format!("$share/group/{topic}").leak();
            let told = client.subscribe(filter, QoS::AtMostOnce).await;
            (Told::Subscribe(told), Some(client))
        }
    }
}

/// Everything that is on its way to a client.
async fn received(client: &mut Client) -> Vec<Publish> {
    let mut messages = Vec::new();
    client.send(Packet::PingRequest).await;
    loop {
        match client.receive().await {
            Packet::Publish(message) => messages.push(*message),
            Packet::PingResponse => return messages,
            other => panic!("{other:?} instead of a message"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_cell_of_the_table_is_true_of_the_embedded_broker() {
    let identities = Identities::new();
    let segments = Segments::Named;
    let server = Server::start(
        Transport::Tls,
        Access::Certificates(Arc::new(segments.rules())),
        Some(identities.server_tls(true)),
        Limits {
            connect_burst_per_principal: 1_000,
            ..Limits::default()
        },
    );
    for case in cases() {
        let topic: &'static str = segments.fill(case.topic, certificate(case.role)).leak();
        let (told, client) = act(&identities, server.address, &case, topic).await;
        let refusal = match case.tidegate {
            Answer::Yes => None,
            Answer::No => Some(Reason::AclDenied),
            Answer::Retained => Some(Reason::Retained),
        };
        let yes = refusal.is_none();
        let expected = match case.action {
            Action::Publish { .. } if yes => Told::Publish(PublishAckReason::Success),
            Action::Publish { .. } => Told::Publish(PublishAckReason::NotAuthorized),
            Action::Will { .. } if yes => Told::Connect(ConnectAckReason::Success),
            Action::Will { .. } => Told::Connect(ConnectAckReason::NotAuthorized),
            _ if yes => Told::Subscribe(SubscribeAckReason::GrantedQos0),
            _ => Told::Subscribe(SubscribeAckReason::NotAuthorized),
        };
        assert_eq!(told, expected, "{case:?}");
        if let Some(reason) = refusal {
            let event = server.event().await;
            assert_eq!(event.reason, reason, "{case:?}");
            assert!(event.topic.unwrap().ends_with(topic), "{case:?}");
        }
        match (case.action, client) {
            (Action::Subscribe | Action::Share, Some(mut client)) => {
                server.handle.publish(sample(topic), "sample".into()).unwrap();
                let seen = received(&mut client).await;
                let seen = seen.iter().any(|message| message.payload == "sample");
                assert_eq!(seen, yes, "{case:?}");
            }
            _ if yes => assert_eq!(server.admitted().await.topic, *topic, "{case:?}"),
            _ => {}
        }
        assert!(server.pending_admitted().await.is_none(), "{case:?}");
    }
}

/// A client of Mosquitto's that the test's own line in the list lets do everything.
async fn observer(identities: &Identities, stock: &Stock) -> Client {
    let socket = tls(stock.address, identities.client_tls(Some("observer")))
        .await
        .unwrap();
    let (mut observer, _) = Client::over(socket, connect("observer")).await;
    let others = SubscriptionOptions {
        no_local: true,
        ..SubscriptionOptions::default()
    };
    observer.subscribe_with("#", others).await;
    observer
}

async fn check_mosquitto(segments: Segments, expected: fn(&Case) -> Answer) {
    let identities = Identities::new();
    identities.issue("observer", &Profile::client(Role::Operator, device("observer")));
    let registered: Vec<DeviceId> = ["device-001", "device-002"].map(device).into();
    let list = access_control_list(&segments.rules(), registered).unwrap();
    assert_eq!(list.contains("%u"), matches!(segments, Segments::Ids));
    let list = format!("{list}\nuser observer\ntopic readwrite #\ntopic readwrite $SYS/#\n");
    let mut stock = Stock::start(&identities, &list).await;
    let mut observer = observer(&identities, &stock).await;
    let address = stock.address;
    let work = async {
        // What the cells about $SYS count on: it is there for whoever may read it.
        observer.subscribe("$SYS/broker/version", QoS::AtMostOnce).await;
        assert_eq!(received(&mut observer).await.len(), 1);
        for case in cases() {
            let topic: &'static str = segments.fill(case.topic, certificate(case.role)).leak();
            let (told, client) = act(&identities, address, &case, topic).await;
            let seen = match (case.action, client) {
                (Action::Subscribe | Action::Share, Some(mut client)) => {
                    if !topic.starts_with('$') {
                        observer.publish(sample(topic), "sample").await;
                    }
                    let seen = received(&mut client).await;
                    received(&mut observer).await;
                    // What Mosquitto says of itself in $SYS waits there for every new subscriber.
                    seen.iter()
                        .any(|message| message.payload == "sample" || topic.starts_with('$'))
                }
                _ => {
                    let seen = received(&mut observer).await;
                    seen.iter().any(|message| message.payload == "marker")
                }
            };
            assert_eq!(seen, expected(&case) == Answer::Yes, "{case:?} {told:?}");
        }
    };
    stock.while_it_logs(work).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_cell_of_the_table_is_true_of_mosquitto_with_lines_for_each_device() {
    check_mosquitto(Segments::Named, |case| case.by_lines).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_cell_of_the_table_is_true_of_mosquitto_with_a_pattern_for_all_devices() {
    check_mosquitto(Segments::Ids, |case| case.by_pattern).await;
}

#[tokio::test]
async fn device_registered_while_it_is_connected_gets_its_topics_and_one_that_is_not_does_not() {
    let identities = Identities::new();
    let registry = Arc::new(Mutex::new(vec!["device-001"]));
    let known = Arc::clone(&registry);
    let rules = topic_rules(move |id| {
        let known = known.lock().unwrap();
        known.contains(&id.as_str()).then(|| id.to_string())
    });
    let server = Server::start(
        Transport::Tls,
        Access::Certificates(Arc::new(rules)),
        Some(identities.server_tls(true)),
        Limits::default(),
    );
    let mut clients = Vec::new();
    for name in ["device-009", "device-002"] {
        let socket = tls(server.address, identities.client_tls(Some(name)))
            .await
            .unwrap();
        clients.push(Client::over(socket, connect(name)).await.0);
    }
    let (mut late, mut never) = (clients.remove(0), clients.remove(0));
    let (readings, commands) = ("site/device-009/sensors", "site/device-009/commands");
    let denied = (PublishAckReason::NotAuthorized, SubscribeAckReason::NotAuthorized);
    assert_eq!(late.publish(readings, "early").await, denied.0);
    assert_eq!(late.subscribe(commands, QoS::AtLeastOnce).await, denied.1);

    registry.lock().unwrap().push("device-009");

    assert_eq!(late.publish(readings, "m").await, PublishAckReason::Success);
    assert_eq!(
        late.subscribe(commands, QoS::AtLeastOnce).await,
        SubscribeAckReason::GrantedQos1
    );
    assert_eq!(late.publish("site/device-002/sensors", "m").await, denied.0);
    assert_eq!(never.publish("site/device-002/sensors", "m").await, denied.0);
    assert_eq!(never.publish(readings, "m").await, denied.0);
    server.handle.publish(commands, "open".into()).unwrap();
    assert_eq!(late.payload().await, "open");
}

#[test]
fn the_table_is_about_the_topics_that_the_rules_name() {
    let rules = Segments::Named.rules();
    let named: Vec<String> = [&rules.telemetry, &rules.time, &rules.commands]
        .map(|pattern: &TopicPattern| pattern.topic("OWN"))
        .into();
    let cases = cases();
    for topic in named {
        assert!(cases.iter().any(|case| case.topic == topic), "{topic}");
    }
}
