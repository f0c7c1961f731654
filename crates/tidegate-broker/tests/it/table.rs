//! The table of `testdata/access.txt`.

/// One cell of the table.
#[derive(Debug)]
pub(crate) struct Case {
    /// Its place in the table.
    pub(crate) number: usize,
    pub(crate) role: &'static str,
    pub(crate) action: Action,
    /// With `OWN` and `OTHER` still in it.
    pub(crate) topic: &'static str,
    pub(crate) tidegate: Answer,
    /// Mosquitto's, with lines for each device.
    pub(crate) by_lines: Answer,
    /// Mosquitto's, with a pattern for all devices.
    pub(crate) by_pattern: Answer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Publish { retain: bool },
    Will { retain: bool },
    Subscribe,
    Share,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Yes,
    No,
    Retained,
}

const ACTIONS: [(&str, Action); 6] = [
    ("publish", Action::Publish { retain: false }),
    ("retain", Action::Publish { retain: true }),
    ("will", Action::Will { retain: false }),
    ("retained-will", Action::Will { retain: true }),
    ("subscribe", Action::Subscribe),
    ("share", Action::Share),
];

/// Every cell that is no `-`.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let (mut role, mut head) = ("", Vec::new());
    let table = include_str!("../../testdata/access.txt");
    let tables = table.lines().skip_while(|line| !line.starts_with('['));
    for line in tables.filter(|line| !line.is_empty()) {
        let words: Vec<&'static str> = line.split_whitespace().collect();
        if let Some(name) = line.strip_prefix('[') {
            role = name.strip_suffix(']').unwrap();
        } else if words[0] == "topic" {
            assert_eq!(words[1..], ACTIONS.map(|(name, _)| name));
            head = words;
        } else {
            assert_eq!(words.len(), head.len(), "{line}");
            let cells = words[1..].iter().zip(ACTIONS).filter(|(cell, _)| **cell != "-");
            for (cell, (_, action)) in cells {
                cases.push(case(cases.len(), role, action, words[0], cell));
            }
        }
    }
    cases
}

fn case(number: usize, role: &'static str, action: Action, topic: &'static str, cell: &str) -> Case {
    let (tidegate, mosquitto) = cell.split_once('/').unwrap_or((cell, cell));
    let by_lines = if mosquitto.starts_with('%') {
        tidegate
    } else {
        mosquitto
    };
    Case {
        number,
        role,
        action,
        topic,
        tidegate: answer(tidegate),
        by_lines: answer(by_lines),
        by_pattern: answer(mosquitto.trim_start_matches('%')),
    }
}

fn answer(word: &str) -> Answer {
    match word {
        "yes" => Answer::Yes,
        "no" => Answer::No,
        "retained" => Answer::Retained,
        other => panic!("`{other}` is no answer"),
    }
}

#[test]
fn every_role_is_asked_the_same_questions() {
    let cases = cases();
    let asked = |role: &str| -> Vec<(&str, Action)> {
        let of_role = cases.iter().filter(|case| case.role == role);
        of_role.map(|case| (case.topic, case.action)).collect()
    };
    let device = asked("device");
    assert_eq!(device.len(), 10 * 6 + 6 * 2);
    for role in ["stranger", "gateway", "operator"] {
        assert_eq!(asked(role), device, "{role}");
    }
    assert_eq!(cases.len(), 4 * device.len());
}
