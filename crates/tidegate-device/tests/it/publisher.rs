//! What the publisher sends, and what it does when the broker refuses, vanishes or is not ours.

use crate::broker::{Broker, Packet};
use crate::rig::{PATIENCE, Rig, TIME, TOPIC, device, next, sequence, verified};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;
use tidegate_device::publisher::{BrokerAddress, Event, PublishError, Publisher, PublisherConfig};
use tidegate_device::sequence::SequenceFile;
use tidegate_envelope::id::{Boot, KeyEpoch, Sequence};
use tidegate_envelope::json::Document;
use tidegate_envelope::json_v1;
use tidegate_envelope::reason::Reason;
use tidegate_envelope::time::Timestamp;
use tidegate_pki::authority::Authority;
use tidegate_pki::profile::Profile;
use tidegate_pki::tls::{ClientAuth, ClientTls, ServerTls, client_config};

#[tokio::test]
async fn signed_readings_arrive_in_order_and_are_acknowledged() {
    let (rig, broker) = (Rig::new(), Broker::plain().await);
    let (mut publisher, mut events) = rig.start(rig.config(broker.port()));
    for _ in 0..3 {
        rig.publish(&mut publisher);
    }
    let mut connection = broker.accept(false).await.unwrap();
    assert_eq!(connection.client_id, "device-001");
    assert!(connection.clean_start);
    assert_eq!(next(&mut events).await, Event::Connected { resumed: false });
    for number in 1..=3 {
        let Packet::Publish {
            topic,
            id,
            dup,
            payload,
        } = connection.next().await
        else {
            panic!("no PUBLISH")
        };
        assert_eq!((topic.as_str(), dup), (TOPIC, false));
        let reading = verified(&payload);
        assert_eq!(reading.sequence, Sequence::new(number));
        assert_eq!((reading.boot, reading.epoch), (Some(Boot(1)), Some(KeyEpoch(3))));
        assert_eq!(
            (reading.timestamp, &reading.channels),
            (Some(TIME), &rig.readings)
        );
        connection.answer(id, 0).await;
        let event = next(&mut events).await;
        assert!(
            matches!(event, Event::Acknowledged { sequence, .. } if sequence.get() == number),
            "{event:?}"
        );
    }
    let closing = tokio::spawn(publisher.close(PATIENCE));
    assert_eq!(connection.next().await, Packet::Disconnect);
    assert_eq!(closing.await.unwrap(), 0);
}

#[tokio::test]
async fn refused_message_is_reported_with_its_code_and_not_sent_again() {
    let (rig, broker) = (Rig::new(), Broker::plain().await);
    let (mut publisher, mut events) = rig.start(rig.config(broker.port()));
    let mut connection = broker.accept(false).await.unwrap();
    assert_eq!(next(&mut events).await, Event::Connected { resumed: false });
    for code in [0x87, 0x97, 0x99] {
        let refused = rig.publish(&mut publisher);
        let (id, _) = connection.published().await;
        connection.answer(id, code).await;
        assert_eq!(
            next(&mut events).await,
            Event::Refused {
                sequence: refused,
                code
            }
        );
    }
    let taken = rig.publish(&mut publisher);
    let (id, payload) = connection.published().await;
    assert_eq!(sequence(&payload), taken.get());
    connection.answer(id, 0x10).await;
    assert!(matches!(next(&mut events).await, Event::Acknowledged { .. }));
    assert_eq!(
        (publisher.counts().refused, publisher.counts().acknowledged),
        (3, 1)
    );
}

#[tokio::test]
async fn messages_that_could_not_be_stored_are_sent_again_in_order_once_all_are_answered() {
    let (rig, broker) = (Rig::new(), Broker::plain().await);
    let (mut publisher, mut events) = rig.start(rig.config(broker.port()));
    let mut connection = broker.accept(false).await.unwrap();
    assert_eq!(next(&mut events).await, Event::Connected { resumed: false });
    let sequences = [(); 3].map(|()| rig.publish(&mut publisher));
    let mut sent = Vec::new();
    for _ in 0..3 {
        sent.push(connection.published().await.0);
    }
    for (id, postponed) in sent.iter().zip(&sequences) {
        connection.answer(*id, 0x83).await;
        let event = next(&mut events).await;
        assert!(
            matches!(event, Event::Postponed { sequence, retry_in }
                if sequence == *postponed && retry_in <= Duration::from_millis(250)),
            "{event:?}"
        );
    }
    let later = rig.publish(&mut publisher);
    for expected in sequences.iter().chain([&later]) {
        let (id, payload) = connection.published().await;
        assert_eq!(sequence(&payload), expected.get());
        connection.answer(id, 0).await;
        assert!(matches!(next(&mut events).await, Event::Acknowledged { .. }));
    }
    let counts = publisher.counts();
    assert_eq!((counts.postponed, counts.acknowledged, counts.refused), (3, 4, 0));
}

/// Three messages are sent and one is acknowledged; then the connection is cut and made again.
async fn cut(session_present: bool) {
    let (rig, broker) = (Rig::new(), Broker::plain().await);
    let (mut publisher, mut events) = rig.start(rig.config(broker.port()));
    let mut connection = broker.accept(false).await.unwrap();
    for _ in 0..3 {
        rig.publish(&mut publisher);
    }
    let mut sent = Vec::new();
    for _ in 0..3 {
        sent.push(connection.published().await);
    }
    connection.answer(sent[0].0, 0).await;
    assert_eq!(next(&mut events).await, Event::Connected { resumed: false });
    assert!(matches!(next(&mut events).await, Event::Acknowledged { .. }));
    drop(connection);
    assert!(matches!(
        next(&mut events).await,
        Event::Disconnected { reason: None, .. }
    ));
    rig.publish(&mut publisher);
    let mut connection = broker.accept(session_present).await.unwrap();
    assert!(!connection.clean_start);
    assert_eq!(
        next(&mut events).await,
        Event::Connected {
            resumed: session_present
        }
    );
    for earlier in &sent[1..] {
        let Packet::Publish { id, dup, payload, .. } = connection.next().await else {
            panic!("no PUBLISH")
        };
        assert_eq!(payload, earlier.1, "byte for byte the same");
        assert_eq!(dup, session_present);
        connection.answer(id, 0).await;
    }
    let (id, payload) = connection.published().await;
    assert_eq!(sequence(&payload), 4);
    connection.answer(id, 0).await;
    let closing = tokio::spawn(publisher.close(PATIENCE));
    assert_eq!(connection.next().await, Packet::Disconnect);
    assert_eq!(closing.await.unwrap(), 0);
}

#[tokio::test]
async fn unacknowledged_messages_are_sent_again_in_order_when_the_session_is_resumed() {
    cut(true).await;
}

#[tokio::test]
async fn unacknowledged_messages_are_sent_again_in_order_when_the_session_is_lost() {
    cut(false).await;
}

#[tokio::test]
async fn no_more_than_the_limit_is_in_flight() {
    let (rig, broker) = (Rig::new(), Broker::plain().await);
    let (mut publisher, _events) = rig.start(PublisherConfig {
        in_flight: 2,
        ..rig.config(broker.port())
    });
    for _ in 0..5 {
        rig.publish(&mut publisher);
    }
    let mut connection = broker.accept(false).await.unwrap();
    let (mut open, mut seen) = (Vec::new(), Vec::new());
    while seen.len() < 5 {
        let (id, payload) = connection.published().await;
        seen.push(sequence(&payload));
        open.push(id);
        assert_eq!(publisher.queued(), 5 - seen.len().max(2));
        if open.len() == 2 {
            connection.answer(open.remove(0), 0).await;
        }
    }
    assert_eq!(seen, [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn close_gives_up_at_its_deadline_and_counts_what_is_left() {
    let (rig, broker) = (Rig::new(), Broker::plain().await);
    let port = broker.port();
    let (mut publisher, mut events) = rig.start(rig.config(port));
    let mut connection = broker.accept(false).await.unwrap();
    rig.publish(&mut publisher);
    connection.published().await;
    assert_eq!(publisher.close(Duration::from_millis(50)).await, 1);
    assert_eq!(next(&mut events).await, Event::Connected { resumed: false });
    drop((broker, connection));
    let (mut publisher, mut events) = rig.start(rig.config(port));
    rig.publish(&mut publisher);
    assert!(matches!(
        next(&mut events).await,
        Event::Disconnected { reason: None, .. }
    ));
    assert_eq!(publisher.close(Duration::from_millis(50)).await, 1);
}

#[tokio::test]
async fn restarted_publisher_goes_on_above_every_number_with_the_next_boot() {
    let (rig, broker) = (Rig::new(), Broker::plain().await);
    let mut numbers = Vec::new();
    for _ in 0..2 {
        let (mut publisher, _events) = rig.start(rig.config(broker.port()));
        rig.publish(&mut publisher);
        let mut connection = broker.accept(false).await.unwrap();
        let reading = verified(&connection.published().await.1);
        numbers.push((reading.boot.unwrap().0, reading.sequence.unwrap().get()));
        drop(publisher);
    }
    assert_eq!(numbers, [(1, 1), (2, 1_025)]);
}

#[tokio::test]
async fn unsigned_publisher_sends_json_v1_without_a_mac() {
    let (rig, broker) = (Rig::new(), Broker::plain().await);
    let (mut publisher, _events) = rig.start(PublisherConfig {
        signing: None,
        ..rig.config(broker.port())
    });
    rig.publish(&mut publisher);
    let mut connection = broker.accept(false).await.unwrap();
    let (_, payload) = connection.published().await;
    let document = Document::parse(&payload).unwrap();
    assert_eq!(document.hmac(), None);
    let reading = json_v1::reading(&document).unwrap();
    assert_eq!((reading.channels, reading.timestamp), (rig.readings, Some(TIME)));
}

/// A CA with a server and a device, in a folder.
struct Site(TempDir);

impl Site {
    fn new() -> Self {
        let micros = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
        let now = Timestamp::from_micros(i64::try_from(micros).unwrap());
        let site = Self(tempfile::tempdir().unwrap());
        let authority = Authority::create(&site.at("ca.pem"), &site.at("ca-key.pem"), now).unwrap();
        let issue = |name: &str, profile: Profile| {
            authority
                .issue(&profile, now)
                .unwrap()
                .write(site.0.path(), name, false)
                .unwrap();
        };
        issue("server", Profile::server(&[""; 0]).unwrap());
        issue("device-001", Profile::device(device()));
        site
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn server(&self) -> ServerTls {
        let client_auth = Some(ClientAuth {
            ca: self.at("ca.pem"),
            crl: None,
        });
        ServerTls {
            certificate: self.at("server.pem"),
            key: self.at("server-key.pem"),
            client_auth,
        }
    }

    fn address(&self, port: u16, with_identity: bool) -> BrokerAddress {
        let identity = with_identity.then(|| (self.at("device-001.pem"), self.at("device-001-key.pem")));
        let tls = client_config(&ClientTls {
            ca: self.at("ca.pem"),
            identity,
        })
        .unwrap();
        BrokerAddress {
            host: "localhost".into(),
            port,
            tls: Some(tls),
        }
    }
}

#[tokio::test]
async fn topic_with_wildcards_is_refused_at_the_start() {
    let rig = Rig::new();
    for (number, topic) in ["", "hydroficient/#", "hydroficient/+/sensors"]
        .into_iter()
        .enumerate()
    {
        let path = rig.folder.path().join(number.to_string());
        let sequence = SequenceFile::open(&path, &device()).unwrap();
        let refused = Publisher::start(
            PublisherConfig {
                topic: topic.into(),
                ..rig.config(1)
            },
            sequence,
        );
        assert!(matches!(refused, Err(PublishError::Topic(_))), "{topic:?}");
    }
}

#[tokio::test]
async fn mutual_tls_carries_readings() {
    let (rig, site) = (Rig::new(), Site::new());
    let broker = Broker::tls(&site.server()).await;
    let address = site.address(broker.port(), true);
    let (mut publisher, _events) = rig.start(PublisherConfig {
        broker: address,
        ..rig.config(0)
    });
    rig.publish(&mut publisher);
    let mut connection = broker.accept(false).await.unwrap();
    assert_eq!(sequence(&connection.published().await.1), 1);
}

#[tokio::test]
async fn broker_of_another_ca_is_refused_and_gets_no_reading() {
    let (rig, site, rogue) = (Rig::new(), Site::new(), Site::new());
    let broker = Broker::tls(&rogue.server()).await;
    let address = site.address(broker.port(), true);
    let (mut publisher, mut events) = rig.start(PublisherConfig {
        broker: address,
        ..rig.config(0)
    });
    rig.publish(&mut publisher);
    assert!(broker.accept(false).await.is_err());
    let event = next(&mut events).await;
    let Event::Disconnected { reason, detail, .. } = event else {
        panic!("{event:?}")
    };
    assert_eq!(reason, Some(Reason::TlsServerRejected), "{detail}");
    assert_eq!(publisher.queued(), 1);
}

#[tokio::test]
async fn publisher_without_certificate_learns_that_the_broker_wants_one() {
    let (rig, site) = (Rig::new(), Site::new());
    let broker = Broker::tls(&site.server()).await;
    let address = site.address(broker.port(), false);
    let (_publisher, mut events) = rig.start(PublisherConfig {
        broker: address,
        ..rig.config(0)
    });
    assert!(broker.accept(false).await.is_err());
    let event = next(&mut events).await;
    let Event::Disconnected { reason, detail, .. } = event else {
        panic!("{event:?}")
    };
    assert_eq!(reason, Some(Reason::TlsNoCertificate), "{detail}");
}
