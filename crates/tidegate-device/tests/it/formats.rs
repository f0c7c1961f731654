//! What each message format sends, read by the code that verifiers read it with.

use crate::embedded::Embedded;
use crate::rig::{EPOCH, Rig, TIME, TOPIC, key};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use compact_str::CompactString;
use std::sync::Arc;
use std::time::Duration;
use tidegate_broker::Incoming;
use tidegate_device::publisher::{MessageFormat, PublishError, PublisherConfig};
use tidegate_device::simulator::{
    FLOW_RATE, GATE_A_POSITION, GATE_B_POSITION, PRESSURE_DOWNSTREAM, PRESSURE_UPSTREAM,
};
use tidegate_envelope::cose_v1::{DETACHED_PROPERTY, Mac0, TagLength};
use tidegate_envelope::id::{Boot, Sequence};
use tidegate_envelope::json::Document;
use tidegate_envelope::key::MacKey;
use tidegate_envelope::reading::{Channels, MAX_CHANNELS};
use tidegate_envelope::time::Timestamp;

const TAGS: [TagLength; 2] = [TagLength::Full, TagLength::Short];

/// In no order of the alphabet, so that a mix-up shows.
fn order() -> Arc<[CompactString]> {
    [
        PRESSURE_UPSTREAM,
        GATE_B_POSITION,
        FLOW_RATE,
        PRESSURE_DOWNSTREAM,
        GATE_A_POSITION,
    ]
    .map(CompactString::from)
    .into()
}

fn attached(tag: TagLength) -> MessageFormat {
    let channels = order();
    MessageFormat::CoseV1 { channels, tag }
}

/// One reading, as it comes to the broker.
async fn sent(rig: &Rig, format: MessageFormat, time: Timestamp) -> Incoming {
    let mut broker = Embedded::start();
    let (mut publisher, _events) = rig.start(PublisherConfig {
        connector: Some(broker.connector()),
        format,
        ..rig.config(1883)
    });
    publisher.publish(time, "operational", &rig.readings).unwrap();
    broker.readings.recv().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn attached_cose_carries_the_reading_in_the_order_of_its_channels() {
    for tag in TAGS {
        let rig = Rig::new();
        let time = TIME.plus(Duration::from_micros(1_999));
        let message = sent(&rig, attached(tag), time).await;
        assert_eq!(message.user_properties, []);
        let mac0 = Mac0::parse(&message.payload).unwrap();
        assert!(mac0.verified(&key(), TOPIC).is_some());
        assert!(
            mac0.verified(&key(), "hydroficient/grandmarina/device-002/sensors")
                .is_none()
        );
        assert!(
            mac0.verified(&MacKey::from_bytes(b"another key"), TOPIC)
                .is_none()
        );
        assert_eq!((mac0.epoch(), mac0.tag_length()), (EPOCH, tag));
        let reading = mac0.reading(&order()).unwrap();
        assert_eq!(
            (reading.boot, reading.sequence),
            (Some(Boot(1)), Sequence::new(1))
        );
        assert_eq!(reading.status, "operational");
        assert_eq!(reading.timestamp, Some(TIME.plus(Duration::from_millis(1))));
        for ((name, value), (sent_name, sent)) in rig.readings.iter().zip(reading.channels.iter()) {
            assert_eq!(name, sent_name);
            assert!(
                (value - sent).abs() <= value.abs() * 1e-7,
                "{name}: {value} as {sent}"
            );
        }
        assert_eq!(reading.channels.len(), rig.readings.len());
    }
}

#[tokio::test(start_paused = true)]
async fn detached_cose_signs_a_payload_that_is_plain_json() {
    for tag in TAGS {
        let rig = Rig::new();
        let message = sent(&rig, MessageFormat::CoseDetached { tag }, TIME).await;
        let [(name, value)] = &message.user_properties[..] else {
            panic!("{:?}", message.user_properties)
        };
        assert_eq!(name, DETACHED_PROPERTY);
        let structure = URL_SAFE_NO_PAD.decode(value.as_bytes()).unwrap();
        let mac0 = Mac0::parse_detached(&structure, &message.payload).unwrap();
        assert!(mac0.verified(&key(), TOPIC).is_some());
        assert_eq!((mac0.epoch(), mac0.tag_length()), (EPOCH, tag));
        let fresh = mac0.freshness();
        assert_eq!(
            (fresh.boot, fresh.sequence.get(), fresh.timestamp),
            (Boot(1), 1, TIME)
        );
        let changed = [&message.payload[..], b" "].concat();
        let moved = Mac0::parse_detached(&structure, &changed).unwrap();
        assert!(moved.verified(&key(), TOPIC).is_none());
        let document = Document::parse(&message.payload).unwrap();
        assert_eq!(document.hmac(), None);
        let reading = tidegate_envelope::json_v1::reading(&document).unwrap();
        assert_eq!(reading.channels, rig.readings, "no bit of a value is lost");
    }
}

#[tokio::test(start_paused = true)]
async fn reading_that_cose_cannot_carry_is_refused_and_uses_no_number() {
    let (rig, mut broker) = (Rig::new(), Embedded::start());
    let (mut publisher, _events) = rig.start(PublisherConfig {
        connector: Some(broker.connector()),
        format: attached(TagLength::Full),
        ..rig.config(1883)
    });
    let with = |name: &str, value: Option<f64>| {
        let mut values: Vec<(CompactString, f64)> = rig
            .readings
            .iter()
            .filter(|(other, _)| *other != name)
            .map(|(other, value)| (other.into(), value))
            .collect();
        values.extend(value.map(|value| (name.into(), value)));
        Channels::new(values).unwrap()
    };
    let mut refused = |time: Timestamp, status: &str, channels: &Channels| {
        publisher.publish(time, status, channels).unwrap_err().to_string()
    };
    let said = refused(TIME, "operational", &with(FLOW_RATE, None));
    assert!(said.contains("`flow_rate`"), "{said}");
    let said = refused(TIME, "operational", &with("ph", Some(7.0)));
    assert!(said.contains("`ph`"), "{said}");
    let said = refused(TIME, "operational", &with(FLOW_RATE, Some(1e39)));
    assert!(said.contains("`flow_rate`"), "{said}");
    let said = refused(TIME, "on fire", &rig.readings);
    assert!(said.contains("`on fire`"), "{said}");
    let before_1970 = Timestamp::from_micros(-1);
    let said = refused(before_1970, "operational", &rig.readings);
    assert!(said.contains("before 1970"), "{said}");
    let largest = with(FLOW_RATE, Some(3e38));
    let number = publisher.publish(TIME, "operational", &largest).unwrap();
    assert_eq!(number.get(), 1);
    let message = broker.readings.recv().await.unwrap();
    let reading = Mac0::parse(&message.payload).unwrap().reading(&order()).unwrap();
    assert_eq!(reading.sequence, Sequence::new(1));
}

#[tokio::test(start_paused = true)]
async fn cose_without_a_key_or_with_no_channel_does_not_start() {
    let rig = Rig::new();
    let detached = MessageFormat::CoseDetached { tag: TagLength::Full };
    for format in [attached(TagLength::Full), detached] {
        let refused = rig.refused(PublisherConfig {
            format,
            signing: None,
            ..rig.config(1)
        });
        assert!(matches!(refused, PublishError::NoKey(_)), "{refused}");
    }
    for count in [0, MAX_CHANNELS + 1] {
        let channels = (0..count)
            .map(|number| CompactString::from(number.to_string()))
            .collect();
        let refused = rig.refused(PublisherConfig {
            format: MessageFormat::CoseV1 {
                channels,
                tag: TagLength::Full,
            },
            ..rig.config(1)
        });
        assert!(
            matches!(refused, PublishError::ChannelCount(refused) if refused == count),
            "{refused}"
        );
    }
}
