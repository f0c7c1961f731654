//! How the topics of devices are built and read.

use super::RegistryError;

/// The level that a device's own topics end in beside its telemetry.
const COMMANDS: &str = "/commands";
/// Where a device without a clock asks for the time.
const TIME: &str = "/time";
/// Longest pattern of a telemetry topic, in bytes.
const MAX_PATTERN_BYTES: usize = 256;

/// How telemetry topics are built: `prefix/{device}/suffix`.
///
/// Beside its telemetry topic a device has `prefix/{device}/commands`, which it reads, and
/// `prefix/{device}/time`, which it asks the time on. No telemetry topic is one of those.
#[derive(Debug, Clone)]
pub struct TopicShape {
    prefix: String,
    suffix: String,
}

impl TopicShape {
    /// A shape from a pattern such as `hydroficient/grandmarina/{device}/sensors`.
    ///
    /// # Errors
    /// [`RegistryError::Topic`] when `{device}` is no whole level with a level before and after it,
    /// when telemetry would be a command or time topic, when there is a wildcard, or when the
    /// pattern is longer than 256 bytes.
    pub fn new(pattern: &str) -> Result<Self, RegistryError> {
        let refused = || RegistryError::Topic(pattern.to_owned());
        let (prefix, suffix) = pattern.split_once("{device}").ok_or_else(refused)?;
        let whole_level = prefix.ends_with('/') && suffix.starts_with('/');
        let taken = [COMMANDS, TIME].contains(&suffix);
        let odd = |text: &str| text.contains(['+', '#', '$', '{', '}', '\0']);
        if !whole_level || taken || odd(prefix) || odd(suffix) || pattern.len() > MAX_PATTERN_BYTES {
            return Err(refused());
        }
        Ok(Self {
            prefix: prefix.into(),
            suffix: suffix.into(),
        })
    }

    /// The device's segment of a telemetry topic.
    #[must_use]
    pub fn segment<'t>(&self, topic: &'t str) -> Option<&'t str> {
        self.level(topic, &self.suffix)
    }

    /// The telemetry topic of a segment.
    #[must_use]
    pub fn telemetry(&self, segment: &str) -> String {
        format!("{}{segment}{}", self.prefix, self.suffix)
    }

    /// The command topic of a segment.
    #[must_use]
    pub fn command(&self, segment: &str) -> String {
        format!("{}{segment}{COMMANDS}", self.prefix)
    }

    /// Whether this is some device's command topic.
    #[must_use]
    pub fn is_command(&self, topic: &str) -> bool {
        self.level(topic, COMMANDS).is_some()
    }

    /// The topic on which the device of a segment asks for the time.
    #[must_use]
    pub fn time(&self, segment: &str) -> String {
        format!("{}{segment}{TIME}", self.prefix)
    }

    /// The device's segment of a topic on which it asks for the time.
    #[must_use]
    pub fn time_segment<'t>(&self, topic: &'t str) -> Option<&'t str> {
        self.level(topic, TIME)
    }

    /// The filter that covers telemetry, commands and time of all devices.
    #[must_use]
    pub fn filter(&self) -> String {
        format!("{}#", self.prefix)
    }

    /// The zone that a topic of the older unsigned forms names, in its own spelling:
    /// `…/sensors/<zone>/readings` or `grandmarina/sensors/<zone>/telemetry`.
    #[must_use]
    pub fn older_zone<'t>(&self, topic: &'t str) -> Option<&'t str> {
        let flat = || {
            topic
                .strip_prefix(self.prefix.as_str())?
                .strip_prefix("sensors/")?
                .strip_suffix("/readings")
        };
        let wrapped = || {
            topic
                .strip_prefix("grandmarina/sensors/")?
                .strip_suffix("/telemetry")
        };
        flat().or_else(wrapped).filter(|zone| is_one_level(zone))
    }

    /// The one level between the prefix and `suffix`.
    fn level<'t>(&self, topic: &'t str, suffix: &str) -> Option<&'t str> {
        let level = topic.strip_prefix(self.prefix.as_str())?.strip_suffix(suffix)?;
        is_one_level(level).then_some(level)
    }
}

fn is_one_level(text: &str) -> bool {
    !text.is_empty() && !text.contains('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> TopicShape {
        TopicShape::new("site/{device}/sensors").unwrap()
    }

    #[test]
    fn pattern_needs_one_whole_level_for_the_device_and_no_wildcard() {
        let longest = format!("site/{{device}}/{}", "s".repeat(MAX_PATTERN_BYTES - 14));
        assert_eq!(longest.len(), MAX_PATTERN_BYTES);
        for right in ["a/{device}/s", "a/{device}/s/t", "/{device}/s", &longest] {
            assert!(TopicShape::new(right).is_ok(), "{right}");
        }
        let longer = format!("{longest}s");
        for wrong in [
            "a/b",
            "a/x{device}/s",
            "a/{device}s/t",
            "{device}/s",
            "a/{device}",
            "+/{device}/s",
            "a/{device}/#",
            "$SYS/{device}/s",
            "a/{device}/{device}",
            "a/{device}/s}",
            "a/{device}/s\0",
            "a/{device}/commands",
            "a/{device}/time",
            &longer,
        ] {
            let error = TopicShape::new(wrong).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("`{wrong}` is not a telemetry topic")),
                "{error}"
            );
        }
    }

    #[test]
    fn every_topic_of_a_device_leads_back_to_its_segment_and_to_no_other_kind() {
        let shape = shape();
        let (telemetry, command, time) = (shape.telemetry("d1"), shape.command("d1"), shape.time("d1"));
        assert_eq!(
            [telemetry.as_str(), &command, &time, &shape.filter()],
            ["site/d1/sensors", "site/d1/commands", "site/d1/time", "site/#"]
        );
        assert_eq!(shape.segment(&telemetry), Some("d1"));
        assert_eq!(shape.time_segment(&time), Some("d1"));
        assert!(shape.is_command(&command));
        for other in [&command, &time] {
            assert_eq!(shape.segment(other), None);
        }
        for other in [&telemetry, &command] {
            assert_eq!(shape.time_segment(other), None);
        }
        for other in [&telemetry, &time] {
            assert!(!shape.is_command(other));
        }
    }

    #[test]
    fn segment_is_exactly_one_level() {
        let shape = shape();
        for wrong in [
            "",
            "site/",
            "site//sensors",
            "site/a/b/sensors",
            "sensors",
            "site/sensors",
        ] {
            assert_eq!(shape.segment(wrong), None, "{wrong}");
        }
        for wrong in [
            "site//time",
            "site/a/b/time",
            "site/time",
            "site/d1/time/",
            "other/d1/time",
        ] {
            assert_eq!(shape.time_segment(wrong), None, "{wrong}");
        }
        for wrong in ["site//commands", "site/a/b/commands", "other/d1/commands"] {
            assert!(!shape.is_command(wrong), "{wrong}");
        }
    }

    #[test]
    fn older_topics_name_their_zone() {
        let zone = |topic| shape().older_zone(topic).map(str::to_owned);
        assert_eq!(zone("site/sensors/pool/readings").as_deref(), Some("pool"));
        assert_eq!(
            zone("grandmarina/sensors/kitchen/telemetry").as_deref(),
            Some("kitchen")
        );
        for wrong in [
            "grandmarina/sensors/a/b/telemetry",
            "grandmarina/sensors//telemetry",
            "site/sensors//readings",
            "site/pool/readings",
            "site/sensors/pool/telemetry",
            "grandmarina/sensors/kitchen/readings",
        ] {
            assert_eq!(zone(wrong), None, "{wrong}");
        }
    }
}
