//! Access control: which topics an identity may write and read.

use std::fmt;
use std::sync::Arc;

use tidegate_envelope::id::DeviceId;
use tidegate_envelope::principal::{Principal, Role};
use tidegate_envelope::reason::Reason;

use crate::filter::{covers, is_filter};

/// How a listener decides about topics.
#[derive(Debug, Clone)]
pub enum Access {
    /// Everybody may use every topic that does not begin with `$`: levels `plain` and `tls`.
    Open,
    /// Only certificates are let in, each to the topics of its role.
    Certificates(Arc<TopicRules>),
}

/// A topic with one level that stands for a device, such as `site/{device}/sensors`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPattern {
    prefix: String,
    suffix: String,
}

/// A pattern is refused when it has no level `{device}`, or when its other levels are not a topic name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{pattern}` is not a topic pattern: one level must be {{device}}, and there must be no + or #")]
pub struct PatternError {
    pattern: String,
}

const DEVICE_LEVEL: &str = "{device}";

impl TopicPattern {
    /// Reads a pattern; see [`PatternError`] for what is refused.
    pub fn new(pattern: &str) -> Result<Self, PatternError> {
        let refused = || PatternError {
            pattern: pattern.to_owned(),
        };
        let (prefix, suffix) = pattern.split_once(DEVICE_LEVEL).ok_or_else(refused)?;
        let whole_level = (prefix.is_empty() || prefix.ends_with('/'))
            && (suffix.is_empty() || suffix.starts_with('/'))
            && !suffix.contains(DEVICE_LEVEL);
        let legal = is_filter(&format!("{prefix}+{suffix}")) && !pattern.contains(['+', '#']);
        if !whole_level || !legal || prefix.starts_with('$') {
            return Err(refused());
        }
        Ok(Self {
            prefix: prefix.to_owned(),
            suffix: suffix.to_owned(),
        })
    }

    /// The topic of the device with this topic segment.
    #[must_use]
    pub fn topic(&self, segment: &str) -> String {
        format!("{}{segment}{}", self.prefix, self.suffix)
    }

    /// The filter that matches this topic of every device.
    #[must_use]
    pub fn filter(&self) -> String {
        self.topic("+")
    }

    fn matches(&self, topic: &str) -> bool {
        topic
            .strip_prefix(&*self.prefix)
            .and_then(|rest| rest.strip_suffix(&*self.suffix))
            .is_some_and(|segment| !segment.is_empty() && !segment.contains('/'))
    }
}

/// Topic segment of a device, `None` for one that the registry does not know.
pub type SegmentLookup = dyn Fn(&DeviceId) -> Option<String> + Send + Sync;

/// Topics of devices, and who reads them.
pub struct TopicRules {
    /// Where each device publishes its readings.
    pub telemetry: TopicPattern,
    /// Where each device gets its commands.
    pub commands: TopicPattern,
    /// Where each device asks for the time; the answer comes as a command.
    pub time: TopicPattern,
    /// Filters that gateways and operators may read; narrower ones are allowed too.
    pub readable: Vec<String>,
    /// From the identity in a certificate to the topic segment. Asked at each CONNECT, and again at
    /// each request of a device that was unknown so far: the registry may grow meanwhile.
    pub segment: Box<SegmentLookup>,
}

impl fmt::Debug for TopicRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicRules")
            .field("telemetry", &self.telemetry)
            .field("commands", &self.commands)
            .field("time", &self.time)
            .field("readable", &self.readable)
            .finish_non_exhaustive()
    }
}

/// What one connection may do, worked out at its CONNECT.
#[derive(Debug)]
pub(crate) enum Rights {
    /// Everything outside `$`.
    Open,
    /// A device: readings and questions to write, commands to read.
    Device {
        telemetry: String,
        commands: String,
        time: String,
    },
    /// Reads what is readable, writes commands: answers to devices that ask.
    Gateway(Arc<TopicRules>),
    /// Reads what is readable, writes commands.
    Operator(Arc<TopicRules>),
    /// A certificate of ours whose device is not registered: nothing, until it is.
    Unregistered(Arc<TopicRules>, DeviceId),
}

impl Rights {
    /// `None` when the listener wants a certificate and the connection has none.
    pub(crate) fn of(access: &Access, principal: &Principal) -> Option<Self> {
        let rules = match access {
            Access::Open => return Some(Self::Open),
            Access::Certificates(rules) => rules,
        };
        let Principal::Certificate { id, role } = principal else {
            return None;
        };
        Some(match role {
            Role::Gateway => Self::Gateway(Arc::clone(rules)),
            Role::Operator => Self::Operator(Arc::clone(rules)),
            Role::Device => Self::of_device(rules, id)
                .unwrap_or_else(|| Self::Unregistered(Arc::clone(rules), id.clone())),
        })
    }

    fn of_device(rules: &TopicRules, id: &DeviceId) -> Option<Self> {
        (rules.segment)(id).map(|segment| Self::Device {
            telemetry: rules.telemetry.topic(&segment),
            commands: rules.commands.topic(&segment),
            time: rules.time.topic(&segment),
        })
    }

    /// Gives a device its rights that was registered since it connected.
    pub(crate) fn look_again(&mut self) {
        if let Self::Unregistered(rules, id) = self
            && let Some(registered) = Self::of_device(rules, id)
        {
            *self = registered;
        }
    }

    /// Decides about a publish or a will: `acl_denied`, or `retained` where a retained message
    /// would let a later subscriber take an old reading for a new one.
    pub(crate) fn publish(&self, topic: &str, retain: bool) -> Result<(), Reason> {
        let (allowed, retainable) = match self {
            Self::Open => (!topic.starts_with('$'), true),
            // Neither a reading nor a question says anything about later.
            Self::Device { telemetry, time, .. } => (topic == telemetry || topic == time, false),
            Self::Gateway(rules) | Self::Operator(rules) => {
                (rules.commands.matches(topic), !rules.telemetry.matches(topic))
            }
            Self::Unregistered(..) => (false, false),
        };
        match (allowed, retain && !retainable) {
            (false, _) => Err(Reason::AclDenied),
            (true, true) => Err(Reason::Retained),
            (true, false) => Ok(()),
        }
    }

    /// Whether a filter, without its share, may be subscribed to.
    pub(crate) fn subscribe(&self, path: &str) -> bool {
        match self {
            Self::Open => !path.starts_with('$'),
            Self::Device { commands, .. } => path == commands,
            Self::Gateway(rules) | Self::Operator(rules) => {
                rules.readable.iter().any(|wide| covers(wide, path))
            }
            Self::Unregistered(..) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        Access::Certificates(Arc::new(TopicRules {
            telemetry: TopicPattern::new("site/{device}/sensors").unwrap(),
            commands: TopicPattern::new("site/{device}/commands").unwrap(),
            time: TopicPattern::new("site/{device}/time").unwrap(),
            readable: vec!["site/+/sensors".to_owned()],
            segment: Box::new(|id| id.as_str().strip_prefix("id-").map(str::to_owned)),
        }))
    }

    fn rights(id: &str, role: Role) -> Rights {
        let id = DeviceId::new(id).unwrap();
        Rights::of(&access(), &Principal::Certificate { id, role }).unwrap()
    }

    #[test]
    fn each_role_writes_only_its_topics() {
        let denied = Err(Reason::AclDenied);
        let cases = [
            (rights("id-001", Role::Device), "site/001/sensors", false, Ok(())),
            (
                rights("id-001", Role::Device),
                "site/001/sensors",
                true,
                Err(Reason::Retained),
            ),
            (rights("id-001", Role::Device), "site/002/sensors", false, denied),
            (
                rights("id-001", Role::Device),
                "site/id-001/sensors",
                false,
                denied,
            ),
            (rights("id-001", Role::Device), "site/001/commands", false, denied),
            (
                rights("id-001", Role::Device),
                "site/001/sensors/x",
                false,
                denied,
            ),
            (
                rights("stranger", Role::Device),
                "site/stranger/sensors",
                false,
                denied,
            ),
            (rights("gw", Role::Gateway), "site/001/sensors", false, denied),
            (rights("gw", Role::Gateway), "site/001/commands", false, Ok(())),
            (rights("gw", Role::Gateway), "site/001/time", false, denied),
            (rights("gw", Role::Gateway), "site/a/b/commands", false, denied),
            (rights("id-001", Role::Device), "site/001/time", false, Ok(())),
            (
                rights("id-001", Role::Device),
                "site/001/time",
                true,
                Err(Reason::Retained),
            ),
            (rights("id-001", Role::Device), "site/002/time", false, denied),
            (rights("id-001", Role::Device), "site/001/time/x", false, denied),
            (rights("op", Role::Operator), "site/001/time", false, denied),
            (rights("op", Role::Operator), "site/001/commands", false, Ok(())),
            (rights("op", Role::Operator), "site/001/commands", true, Ok(())),
            (rights("op", Role::Operator), "site/001/sensors", false, denied),
            (rights("op", Role::Operator), "site/a/b/commands", false, denied),
            (Rights::Open, "anything/at/all", true, Ok(())),
            (Rights::Open, "$SYS/broker", false, denied),
        ];
        for (rights, topic, retain, expected) in cases {
            assert_eq!(
                rights.publish(topic, retain),
                expected,
                "{rights:?} {topic} retain={retain}"
            );
        }
    }

    #[test]
    fn each_role_reads_only_its_filters() {
        let cases = [
            (rights("id-001", Role::Device), "site/001/commands", true),
            (rights("id-001", Role::Device), "site/002/commands", false),
            (rights("id-001", Role::Device), "site/+/commands", false),
            (rights("id-001", Role::Device), "site/001/sensors", false),
            (rights("id-001", Role::Device), "site/001/time", false),
            (rights("id-001", Role::Device), "#", false),
            (rights("stranger", Role::Device), "site/stranger/commands", false),
            (rights("gw", Role::Gateway), "site/+/sensors", true),
            (rights("gw", Role::Gateway), "site/001/sensors", true),
            (rights("gw", Role::Gateway), "site/#", false),
            (rights("gw", Role::Gateway), "#", false),
            (rights("op", Role::Operator), "site/+/sensors", true),
            (Rights::Open, "#", true),
            (Rights::Open, "$SYS/#", false),
        ];
        for (rights, filter, expected) in cases {
            assert_eq!(rights.subscribe(filter), expected, "{rights:?} {filter}");
        }
    }

    #[test]
    fn a_listener_for_certificates_lets_nobody_else_in() {
        assert!(Rights::of(&access(), &Principal::Anonymous).is_none());
        assert!(Rights::of(&access(), &Principal::Broker).is_none());
        assert!(Rights::of(&Access::Open, &Principal::Anonymous).is_some());
    }

    #[test]
    fn patterns_without_exactly_one_device_level_are_refused() {
        for bad in [
            "site/sensors",
            "site/x{device}/s",
            "a/{device}/{device}",
            "a/+/{device}",
            "{device}#",
            "$a/{device}",
        ] {
            assert!(TopicPattern::new(bad).is_err(), "{bad}");
        }
        assert_eq!(TopicPattern::new("{device}").unwrap().filter(), "+");
    }
}
