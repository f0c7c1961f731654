//! Topic names and topic filters: which are legal, which match, and which contain another.

/// Longest accepted topic name or filter, in bytes. MQTT allows 65,535.
pub(crate) const MAX_TOPIC_BYTES: usize = 1_024;

/// Most levels of a topic name or filter; bounds the work of matching.
pub(crate) const MAX_LEVELS: usize = 32;

/// Whether `topic` may be published to (MQTT 5 §4.7: no wildcards, no U+0000, not empty).
pub(crate) fn is_topic_name(topic: &str) -> bool {
    is_bounded(topic) && !topic.contains(['+', '#'])
}

/// Whether `path` is a filter without a share (MQTT 5 §4.7.1).
pub(crate) fn is_filter(path: &str) -> bool {
    let whole_levels = |level: &str| level.len() == 1 || !level.contains(['+', '#']);
    let hash_last = path.find('#').is_none_or(|at| at + 1 == path.len());
    is_bounded(path) && hash_last && path.split('/').all(whole_levels)
}

fn is_bounded(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_TOPIC_BYTES
        && !text.contains('\0')
        && text.bytes().filter(|byte| *byte == b'/').count() < MAX_LEVELS
}

/// A filter of a SUBSCRIBE, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Filter<'a> {
    /// The group of `$share/<group>/<path>`.
    pub(crate) share: Option<&'a str>,
    /// What topics are matched with.
    pub(crate) path: &'a str,
}

impl<'a> Filter<'a> {
    /// `None` when the text is not a legal filter (MQTT 5 §4.7.1, §4.8.2).
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let Some(shared) = text.strip_prefix("$share/") else {
            return is_filter(text).then_some(Self {
                share: None,
                path: text,
            });
        };
        let (group, path) = shared.split_once('/')?;
        let legal = !group.is_empty() && !group.contains(['+', '#', '\0']) && is_filter(path);
        (legal && text.len() <= MAX_TOPIC_BYTES).then_some(Self {
            share: Some(group),
            path,
        })
    }
}

/// Whether a filter without a share matches a topic name. Wildcards in the first level do not
/// match topics that begin with `$` (MQTT 5 §4.7.2).
pub(crate) fn matches(path: &str, topic: &str) -> bool {
    covers(path, topic)
}

/// Whether every topic that `narrow` matches is matched by `wide` too.
///
/// A topic name is a filter that matches itself alone, so this also tells whether a filter
/// matches a topic. A wrong `true` would let an insider read what is not theirs.
pub(crate) fn covers(wide: &str, narrow: &str) -> bool {
    if narrow.starts_with('$') && wide.starts_with(['+', '#']) {
        return false;
    }
    let mut wanted = wide.split('/');
    let mut given = narrow.split('/');
    loop {
        match (wanted.next(), given.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(level)) if level != "#" => {}
            (Some(level), Some(same)) if level == same => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_level_wildcards_make_a_filter() {
        for good in [
            "a", "/", "a/b", "+", "#", "a/+/c", "a/#", "+/+/#", "$SYS/#", "a//b",
        ] {
            assert!(is_filter(good), "{good}");
        }
        for bad in ["", "a#", "#/a", "a/#/b", "a+", "+a/b", "a\0", "##"] {
            assert!(!is_filter(bad), "{bad}");
        }
    }

    #[test]
    fn topic_names_have_no_wildcards_and_a_length_limit() {
        assert!(is_topic_name("a/b"));
        assert!(is_topic_name(&"a".repeat(MAX_TOPIC_BYTES)));
        assert!(!is_topic_name(&"a".repeat(MAX_TOPIC_BYTES + 1)));
        assert!(is_topic_name(&"/".repeat(MAX_LEVELS - 1)));
        assert!(!is_topic_name(&"/".repeat(MAX_LEVELS)));
        for bad in ["", "a/+", "#", "a\0b"] {
            assert!(!is_topic_name(bad), "{bad}");
        }
    }

    #[test]
    fn shared_filters_need_a_group_and_a_path() {
        assert_eq!(
            Filter::parse("$share/g/a/#"),
            Some(Filter {
                share: Some("g"),
                path: "a/#"
            })
        );
        assert_eq!(
            Filter::parse("a/+"),
            Some(Filter {
                share: None,
                path: "a/+"
            })
        );
        for bad in ["$share/g", "$share//a", "$share/g/", "$share/+/a", "$share/g/a#"] {
            assert_eq!(Filter::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn matching_follows_the_examples_of_the_standard() {
        let cases = [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
            ("sport/tennis/player1/#", "sport/tennis/player2", false),
            ("sport/#", "sport", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/monitor", false),
            ("+/monitor", "$SYS/monitor", false),
            ("$SYS/#", "$SYS/monitor", true),
        ];
        for (filter, topic, expected) in cases {
            assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
        }
    }

    #[test]
    fn a_filter_covers_only_narrower_filters() {
        let cases = [
            ("a/#", "a/#", true),
            ("a/#", "a/+/c", true),
            ("a/#", "a", true),
            ("a/#", "#", false),
            ("a/#", "+/b", false),
            ("a/+", "a/+", true),
            ("a/+", "a/b", true),
            ("a/+", "a/#", false),
            ("a/b", "a/+", false),
            ("#", "+/#", true),
            ("#", "$SYS/#", false),
        ];
        for (wide, narrow, expected) in cases {
            assert_eq!(covers(wide, narrow), expected, "{wide} {narrow}");
        }
    }
}
