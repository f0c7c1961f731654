//! One device of the registry file.

use super::keys::Keys;
use crate::config::Config;
use crate::setup::{GATEWAY, OPERATOR};
use anyhow::{Result, bail};
use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use tidegate_envelope::id::{DeviceId, MessageDeviceId, ZoneId};
use tidegate_envelope::reading::{MAX_CHANNEL_BYTES, MAX_CHANNELS};
use tidegate_pki::files;
use tidegate_verify::registry::{Device, Format, Window};

/// How a device writes its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
pub(crate) enum MessageFormat {
    /// One JSON object with its MAC inside
    #[default]
    #[serde(rename = "json-v1")]
    #[value(name = "json-v1")]
    JsonV1,
    /// COSE_Mac0 around numbers, for constrained links
    #[serde(rename = "cose-v1")]
    #[value(name = "cose-v1")]
    CoseV1,
    /// COSE_Mac0 in an MQTT 5 user property, beside a payload that stays as it is
    #[serde(rename = "cose-v1-detached")]
    #[value(name = "cose-v1-detached")]
    CoseV1Detached,
}

impl MessageFormat {
    /// The name in files and on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::JsonV1 => "json-v1",
            Self::CoseV1 => "cose-v1",
            Self::CoseV1Detached => "cose-v1-detached",
        }
    }
}

/// One device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeviceEntry {
    pub(crate) id: String,
    pub(crate) topic: String,
    pub(crate) message_id: String,
    pub(crate) zone: String,
    #[serde(default = "default_class")]
    pub(crate) class: String,
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub(crate) enabled: bool,
    /// The newest key epoch, which the device signs with.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) key_epoch: u16,
    /// The oldest key epoch that is still accepted.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) lowest_key_epoch: u16,
    /// A file whose bytes are the newest key, for a device provisioned elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key_file: Option<PathBuf>,
    /// The file of the key before it, accepted until the newest has been seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) previous_key_file: Option<PathBuf>,
    /// How it writes its messages.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) format: MessageFormat,
    /// What the numbers of its messages are, in their order: only with cose-v1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) channels: Vec<String>,
    /// Refuse a sequence that starts again, even from a publisher without a boot counter.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) strict_sequence: bool,
    /// How far behind the newest sequence an unseen one may be: 0 or 64.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) window: u8,
    /// Messages per second, where it differs from the configuration's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) quota_per_s: Option<u32>,
}

fn default_class() -> String {
    "water-inlet".into()
}

fn yes() -> bool {
    true
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's signature for skip_serializing_if"
)]
fn is_true(value: &bool) -> bool {
    *value
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl DeviceEntry {
    /// A device by the default naming: `device-001` carries `HYDROLOGIC-Device-001` in its messages.
    pub(crate) fn new(id: &str, zone: &str) -> Self {
        let message_id = id
            .strip_prefix("device-")
            .map_or_else(|| id.to_owned(), |number| format!("HYDROLOGIC-Device-{number}"));
        Self {
            id: id.into(),
            topic: id.into(),
            message_id,
            zone: zone.into(),
            class: default_class(),
            enabled: true,
            key_epoch: 0,
            lowest_key_epoch: 0,
            key_file: None,
            previous_key_file: None,
            format: MessageFormat::default(),
            channels: Vec::new(),
            strict_sequence: false,
            window: 0,
            quota_per_s: None,
        }
    }

    /// The entry, checked, with its keys.
    pub(super) fn device(&self, keys: &Keys, config: &Config) -> Result<Device> {
        if files::is_reserved(&self.id) || [GATEWAY, OPERATOR].contains(&self.id.as_str()) {
            bail!(
                "a device cannot be named `{}`: files in certs/ have that name",
                self.id
            );
        }
        if self.lowest_key_epoch > self.key_epoch {
            bail!(
                "lowest_key_epoch {} is above key_epoch {}",
                self.lowest_key_epoch,
                self.key_epoch
            );
        }
        if self.previous_key_file.is_some() && (self.key_file.is_none() || self.key_epoch == 0) {
            bail!("previous_key_file needs key_file, and a key_epoch of at least 1");
        }
        Ok(Device {
            id: DeviceId::new(&self.id)?,
            message_id: MessageDeviceId::new(&self.message_id)?,
            topic_segment: DeviceId::new(&self.topic)?.to_string(),
            zone: ZoneId::new(&self.zone)?,
            class: self.class.clone(),
            enabled: self.enabled,
            keys: keys.of(self)?,
            strict_sequence: self.strict_sequence,
            window: match self.window {
                0 => Window::None,
                64 => Window::SixtyFour,
                other => bail!("window {other} is neither 0 nor 64"),
            },
            quota_per_s: self.quota_per_s.unwrap_or(config.verify.quota_per_s),
            format: self.message_format()?,
        })
    }

    fn message_format(&self) -> Result<Format> {
        if self.format == MessageFormat::CoseV1 {
            let channels = channels(&self.channels)?;
            return Ok(Format::CoseV1 { channels });
        }
        if !self.channels.is_empty() {
            bail!("channels are only for format = \"cose-v1\"; messages in the other formats name theirs");
        }
        Ok(match self.format {
            MessageFormat::CoseV1Detached => Format::CoseDetached,
            MessageFormat::JsonV1 | MessageFormat::CoseV1 => Format::JsonV1,
        })
    }
}

/// The names of a message's numbers, by the rule of all names.
fn channels(names: &[String]) -> Result<Arc<[CompactString]>> {
    if names.is_empty() {
        bail!(
            "format = \"cose-v1\" needs channels: what its numbers are, in their order, \
             as in channels = [\"pressure_upstream\", \"flow_rate\"]"
        );
    }
    if names.len() > MAX_CHANNELS {
        bail!("{} channels; a message has at most {MAX_CHANNELS}", names.len());
    }
    for (position, name) in names.iter().enumerate() {
        if name.len() > MAX_CHANNEL_BYTES || DeviceId::new(name).is_err() {
            bail!(
                "`{}` is not a channel's name: 1 to {MAX_CHANNEL_BYTES} characters of A-Z a-z 0-9 . _ - are allowed",
                name.chars()
                    .take(MAX_CHANNEL_BYTES)
                    .flat_map(char::escape_default)
                    .collect::<String>()
            );
        }
        if names[..position].contains(name) {
            bail!("the channel `{name}` stands twice");
        }
    }
    Ok(names.iter().map(CompactString::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::DevicesFile;
    use std::path::Path;
    use tidegate_verify::registry::Registry;

    const ZONE: &str = "[[zone]]\nid = \"kitchen\"\nname = \"Kitchen\"\n";

    /// What is wrong with a device that has these lines besides its names.
    fn check(lines: &str) -> Result<Registry, String> {
        let device = "[[device]]\nid = \"d\"\ntopic = \"d\"\nmessage_id = \"d\"\nzone = \"kitchen\"\n";
        let config = Config::parse("", Path::new(".")).unwrap();
        DevicesFile::parse(&format!("{ZONE}{device}{lines}"))
            .and_then(|file| file.registry_without_secrets(&config))
            .map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn device_cannot_have_the_name_of_another_file() {
        let named = |id: &str| {
            let config = Config::parse("", Path::new(".")).unwrap();
            let device =
                format!("[[device]]\nid = \"{id}\"\ntopic = \"d\"\nmessage_id = \"d\"\nzone = \"kitchen\"\n");
            DevicesFile::parse(&format!("{ZONE}{device}"))?.registry_without_secrets(&config)
        };
        for name in ["ca", "crl", "server", "gateway", "operator", "device-1-key"] {
            let error = format!("{:#}", named(name).unwrap_err());
            assert!(error.contains("cannot be named"), "{error}");
        }
        for name in ["gateway-1", "key", "ca2"] {
            assert!(named(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn each_format_is_read_with_the_channels_that_it_needs() {
        let format = |lines| check(lines).unwrap().devices()[0].format.clone();
        assert_eq!(format(""), Format::JsonV1);
        assert_eq!(format("format = \"json-v1\""), Format::JsonV1);
        assert_eq!(format("format = \"cose-v1-detached\""), Format::CoseDetached);
        let channels = ["flow_rate", "pressure_upstream"].map(CompactString::from);
        assert_eq!(
            format("format = \"cose-v1\"\nchannels = [\"flow_rate\", \"pressure_upstream\"]"),
            Format::CoseV1 {
                channels: channels.into()
            }
        );
        let most: Vec<_> = (0..MAX_CHANNELS).map(|number| format!("c{number}")).collect();
        assert!(check(&format!("format = \"cose-v1\"\nchannels = {most:?}")).is_ok());
    }

    #[test]
    fn channels_that_are_missing_unfit_or_not_asked_for_are_refused() {
        let too_many: Vec<_> = (0..=MAX_CHANNELS).map(|number| format!("c{number}")).collect();
        let too_long = "c".repeat(MAX_CHANNEL_BYTES + 1);
        for (lines, said) in [
            ("format = \"cose-v1\"".to_owned(), "needs channels"),
            ("format = \"cose-v1\"\nchannels = []".to_owned(), "needs channels"),
            ("channels = [\"a\"]".to_owned(), "only for format"),
            (
                "format = \"cose-v1-detached\"\nchannels = [\"a\"]".to_owned(),
                "only for format",
            ),
            (
                "format = \"cose-v1\"\nchannels = [\"a\", \"b\", \"a\"]".to_owned(),
                "`a` stands twice",
            ),
            (
                "format = \"cose-v1\"\nchannels = [\"a b\"]".to_owned(),
                "`a b` is not",
            ),
            ("format = \"cose-v1\"\nchannels = [\"\"]".to_owned(), "`` is not"),
            (
                format!("format = \"cose-v1\"\nchannels = [\"{too_long}\"]"),
                "is not a channel's name",
            ),
            (
                format!("format = \"cose-v1\"\nchannels = {too_many:?}"),
                "at most 32",
            ),
            ("format = \"cose\"".to_owned(), "unknown variant `cose`"),
        ] {
            let error = check(&lines).unwrap_err();
            assert!(error.contains(said), "{lines}: {error}");
        }
    }

    #[test]
    fn epochs_and_key_files_that_contradict_each_other_are_refused() {
        assert!(check("key_epoch = 3\nlowest_key_epoch = 3").is_ok());
        assert!(check("key_epoch = 1\nkey_file = \"a\"\nprevious_key_file = \"b\"").is_ok());
        for lines in [
            "key_epoch = 3\nlowest_key_epoch = 4",
            "key_epoch = 65536",
            "key_epoch = 1\nprevious_key_file = \"b\"",
            "key_file = \"a\"\nprevious_key_file = \"b\"",
        ] {
            assert!(check(lines).is_err(), "{lines}");
        }
    }

    #[test]
    fn two_epochs_are_accepted_at_most_and_one_without_the_file_of_the_other() {
        let oldest = |key_epoch, lowest_key_epoch, key_file: Option<&str>, previous: Option<&str>| {
            let device = DeviceEntry {
                key_epoch,
                lowest_key_epoch,
                key_file: key_file.map(PathBuf::from),
                previous_key_file: previous.map(PathBuf::from),
                ..DeviceEntry::new("d", "kitchen")
            };
            let keys = Keys::of_zeros().of(&device).unwrap();
            let epochs: Vec<u16> = keys.iter().map(|(epoch, _)| epoch.0).collect();
            assert_eq!(epochs, (device.oldest_accepted()..=key_epoch).collect::<Vec<_>>());
            device.oldest_accepted()
        };
        assert_eq!(oldest(0, 0, None, None), 0);
        assert_eq!(oldest(5, 0, None, None), 4);
        assert_eq!(oldest(5, 5, None, None), 5);
        assert_eq!(oldest(65_535, 0, None, None), 65_534);
        assert_eq!(oldest(5, 0, Some("a"), None), 5);
        assert_eq!(oldest(5, 0, Some("a"), Some("b")), 4);
        assert_eq!(oldest(5, 5, Some("a"), Some("b")), 5);
    }
}
