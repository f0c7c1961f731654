//! A message on its way to subscribers, shared by all of them.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::PublishProperties;
use tokio::time::Instant;

use crate::gate::{MAX_USER_PROPERTIES, MAX_USER_PROPERTY_BYTES};

/// What a queued message costs beside its topic and payload, in bytes; deliberately generous.
const BOOKKEEPING_BYTES: usize = 128;

/// An application message that the gate let through.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) topic: ByteString,
    pub(crate) payload: Bytes,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// MQTT 5 properties that are passed on; `None` when there are none.
    pub(crate) properties: Option<PublishProperties>,
    pub(crate) expires_at: Option<Instant>,
    /// [`Session::key`](crate::session::Session::key) of the sender, for No Local.
    pub(crate) sender: u64,
}

impl Message {
    /// Takes a publish over, copying what it holds.
    ///
    /// The payload of a publish is a slice of the connection's read buffer; a slice that waits in
    /// a queue would keep all of that buffer in memory.
    pub(crate) fn new(publish: &Publish, sender: u64) -> Self {
        let properties = publish
            .properties
            .as_ref()
            .map(passed_on)
            .filter(|kept| *kept != PublishProperties::default());
        let expiry = publish
            .properties
            .as_ref()
            .and_then(|given| given.message_expiry_interval);
        Self {
            topic: owned(&publish.topic),
            payload: Bytes::copy_from_slice(&publish.payload),
            qos: publish.qos,
            retain: publish.retain,
            properties,
            expires_at: expiry.map(|s| Instant::now() + Duration::from_secs(u64::from(s.get()))),
            sender,
        }
    }

    /// Bytes that the message is counted with against limits.
    pub(crate) fn cost_bytes(&self) -> usize {
        let properties = self.properties.as_ref().map_or(0, |given| {
            let text = |text: &Option<ByteString>| text.as_ref().map_or(0, |text| text.len());
            let pairs: usize = given
                .user_properties
                .iter()
                .map(|(k, v)| k.len() + v.len() + BOOKKEEPING_BYTES)
                .sum();
            let data = given.correlation_data.as_ref().map_or(0, Bytes::len);
            pairs + data + text(&given.content_type) + text(&given.response_topic) + BOOKKEEPING_BYTES
        });
        self.topic.len() + self.payload.len() + properties + BOOKKEEPING_BYTES
    }

    /// Time left, in whole seconds rounded up; `None` once the message has expired (MQTT 5 §3.3.2.3.3).
    pub(crate) fn seconds_left(&self, now: Instant) -> Option<Option<NonZeroU32>> {
        let Some(end) = self.expires_at else {
            return Some(None);
        };
        let left = end.checked_duration_since(now)?;
        let seconds = u32::try_from(left.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX);
        NonZeroU32::new(seconds).map(Some)
    }
}

/// The user properties of a publish, as the client sent them.
pub(crate) fn user_properties(publish: &Publish) -> Vec<(ByteString, ByteString)> {
    publish
        .properties
        .as_ref()
        .map_or_else(Vec::new, |given| given.user_properties.clone())
}

/// What is wrong with the number or the length of a publish's user properties, for people.
pub(crate) fn too_many_user_properties(publish: &Publish) -> Option<String> {
    let given = &publish.properties.as_ref()?.user_properties;
    if given.len() > MAX_USER_PROPERTIES {
        let count = given.len();
        return Some(format!(
            "{count} user properties are more than {MAX_USER_PROPERTIES}"
        ));
    }
    let bytes: usize = given.iter().map(|(name, value)| name.len() + value.len()).sum();
    (bytes > MAX_USER_PROPERTY_BYTES)
        .then(|| format!("user properties of {bytes} bytes are longer than {MAX_USER_PROPERTY_BYTES}"))
}

/// The properties that belong to the message and not to one hop of it.
fn passed_on(given: &PublishProperties) -> PublishProperties {
    PublishProperties {
        topic_alias: None,
        subscription_ids: Vec::new(),
        message_expiry_interval: None,
        correlation_data: given
            .correlation_data
            .as_ref()
            .map(|data| Bytes::copy_from_slice(data)),
        content_type: given.content_type.as_ref().map(owned),
        response_topic: given.response_topic.as_ref().map(owned),
        user_properties: given
            .user_properties
            .iter()
            .map(|(k, v)| (owned(k), owned(v)))
            .collect(),
        is_utf8_payload: given.is_utf8_payload,
    }
}

/// A copy that shares no buffer with the original.
pub(crate) fn owned(text: &ByteString) -> ByteString {
    ByteString::from(String::from(&**text))
}

/// Subscription identifiers that a delivery carries; most carry none.
pub(crate) type SubscriptionIds = Option<Arc<[NonZeroU32]>>;

/// A message for one client.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) message: Arc<Message>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) ids: SubscriptionIds,
}
