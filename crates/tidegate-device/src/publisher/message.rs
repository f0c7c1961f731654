//! A reading becomes the bytes that are sent: json-v1, or cose-v1 attached or detached.

use super::config::{MessageFormat, PublisherConfig, Signing};
use super::{MAX_PAYLOAD_BYTES, PublishError};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use compact_str::CompactString;
use tidegate_envelope::cose_v1::{self, Freshness, TagLength};
use tidegate_envelope::id::{Boot, KeyEpoch, MessageDeviceId, Sequence};
use tidegate_envelope::json_v1;
use tidegate_envelope::reading::{Channels, MAX_CHANNELS};
use tidegate_envelope::time::Timestamp;

/// What one PUBLISH carries.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) payload: Bytes,
    /// A detached COSE_Mac0 for the user property, in base64url.
    pub(super) mac0: Option<String>,
}

/// Writes the messages of one device.
#[derive(Debug)]
pub(super) struct Messages {
    device: MessageDeviceId,
    topic: String,
    signing: Option<Signing>,
    format: MessageFormat,
}

/// A reading that can be written; all that is missing is its number.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    timestamp: Timestamp,
    status: &'a str,
    channels: &'a Channels,
    form: Form<'a>,
}

#[derive(Debug)]
enum Form<'a> {
    Unsigned,
    Json(&'a Signing),
    Cose {
        signing: &'a Signing,
        tag: TagLength,
        status: u8,
        values: Vec<f32>,
    },
    Detached(&'a Signing, TagLength),
}

impl Messages {
    /// Refuses a topic that has wildcards, and a format that cannot work.
    pub(super) fn new(config: &PublisherConfig) -> Result<Self, PublishError> {
        if config.topic.is_empty() || !rumqttc::valid_topic(&config.topic) {
            return Err(PublishError::Topic(config.topic.clone()));
        }
        if config.signing.is_none() && !matches!(config.format, MessageFormat::JsonV1) {
            return Err(PublishError::NoKey("cose-v1"));
        }
        if let MessageFormat::CoseV1 { channels, .. } = &config.format
            && !(1..=MAX_CHANNELS).contains(&channels.len())
        {
            return Err(PublishError::ChannelCount(channels.len()));
        }
        Ok(Self {
            device: config.message_id.clone(),
            topic: config.topic.clone(),
            signing: config.signing.clone(),
            format: config.format.clone(),
        })
    }

    /// Refuses a reading that the format cannot carry, before it costs a sequence number.
    pub(super) fn draft<'a>(
        &'a self,
        timestamp: Timestamp,
        status: &'a str,
        channels: &'a Channels,
    ) -> Result<Draft<'a>, PublishError> {
        let form = match (&self.signing, &self.format) {
            (None, _) => Form::Unsigned,
            (Some(signing), MessageFormat::JsonV1) => Form::Json(signing),
            (Some(signing), MessageFormat::CoseV1 { channels: order, tag }) => Form::Cose {
                signing,
                tag: *tag,
                status: cose_v1::status_byte(status)
                    .ok_or_else(|| PublishError::Status(status.to_owned()))?,
                values: values(order, channels)?,
            },
            (Some(signing), MessageFormat::CoseDetached { tag }) => Form::Detached(signing, *tag),
        };
        let is_cose = matches!(form, Form::Cose { .. } | Form::Detached(..));
        if is_cose && timestamp < Timestamp::from_micros(0) {
            return Err(PublishError::BeforeEpoch(timestamp));
        }
        Ok(Draft {
            timestamp,
            status,
            channels,
            form,
        })
    }

    /// Signs a reading as message number `sequence` of this start.
    pub(super) fn sign(
        &self,
        draft: Draft<'_>,
        boot: Boot,
        sequence: Sequence,
    ) -> Result<Message, PublishError> {
        let Draft { timestamp, .. } = draft;
        let json = |epoch: Option<KeyEpoch>| json_v1::Draft {
            device: &self.device,
            timestamp,
            sequence,
            boot: Some(boot),
            epoch: epoch.filter(|epoch| *epoch != KeyEpoch::default()),
            status: draft.status,
            channels: draft.channels,
        };
        let mut mac0 = None;
        let payload = match &draft.form {
            Form::Unsigned => unsigned(&json(None)),
            Form::Json(signing) => json_v1::sign(&json(Some(signing.epoch)), &signing.key),
            Form::Cose {
                signing,
                tag,
                status,
                values,
            } => {
                let cose = cose_v1::Draft {
                    epoch: signing.epoch,
                    boot,
                    sequence,
                    timestamp,
                    status: *status,
                    values,
                };
                let mut out = [0; cose_v1::MAX_MESSAGE_BYTES];
                let length = cose_v1::sign_into(&cose, *tag, &signing.key, &self.topic, &mut out)
                    .expect("values are finite, few, and of a time since 1970");
                out[..length].to_vec()
            }
            Form::Detached(signing, tag) => {
                let payload = unsigned(&json(None));
                let freshness = Freshness {
                    boot,
                    sequence,
                    timestamp,
                };
                let (epoch, key, topic) = (signing.epoch, &signing.key, &self.topic);
                let mut out = [0; cose_v1::MAX_DETACHED_BYTES];
                let length =
                    cose_v1::sign_detached_into(freshness, epoch, *tag, key, topic, &payload, &mut out)
                        .expect("the time is since 1970");
                mac0 = Some(URL_SAFE_NO_PAD.encode(&out[..length]));
                payload
            }
        };
        if payload.len() > MAX_PAYLOAD_BYTES {
            return Err(PublishError::TooLarge(payload.len()));
        }
        Ok(Message {
            payload: Bytes::from(payload),
            mac0,
        })
    }
}

/// The values in the order of the registry entry.
fn values(order: &[CompactString], channels: &Channels) -> Result<Vec<f32>, PublishError> {
    let odd = |name: &str| PublishError::Channels(name.to_owned());
    if let Some((extra, _)) = channels
        .iter()
        .find(|(name, _)| !order.iter().any(|known| known == name))
    {
        return Err(odd(extra));
    }
    order
        .iter()
        .map(|name| {
            let value = channels.get(name).ok_or_else(|| odd(name))?;
            // Rounds to the nearest 32-bit float, and to infinity beyond the largest.
            #[expect(clippy::cast_possible_truncation, reason = "the format has 32 bits")]
            let short = value as f32;
            if short.is_finite() {
                Ok(short)
            } else {
                Err(PublishError::Range {
                    channel: name.to_string(),
                    value,
                })
            }
        })
        .collect()
}

/// json-v1 without `hmac`.
fn unsigned(draft: &json_v1::Draft<'_>) -> Vec<u8> {
    let readings: serde_json::Map<_, _> = draft
        .channels
        .iter()
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    let message = serde_json::json!({
        "boot": draft.boot.map(|boot| boot.0),
        "device_id": draft.device.as_str(),
        "readings": readings,
        "sequence": draft.sequence.get(),
        "status": draft.status,
        "timestamp": draft.timestamp.to_string(),
    });
    message.to_string().into_bytes()
}
