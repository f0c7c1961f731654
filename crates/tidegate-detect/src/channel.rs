//! What channels are called in messages, in sentences, and in which unit they are.

/// The five channels of a water sensor, sorted as messages sort them.
pub const WATER: [&str; 5] = [
    "flow_rate",
    "gate_a_position",
    "gate_b_position",
    "pressure_downstream",
    "pressure_upstream",
];

/// Most channels of one device that features are computed for. It bounds a device's state to 1 KB.
pub const MAX_TRACKED: usize = 12;

/// The name for people: `upstream pressure` for `pressure_upstream`.
#[must_use]
pub fn words(channel: &str) -> String {
    match channel {
        "flow_rate" => "flow".to_owned(),
        "gate_a_position" => "gate A".to_owned(),
        "gate_b_position" => "gate B".to_owned(),
        "pressure_downstream" => "downstream pressure".to_owned(),
        "pressure_upstream" => "upstream pressure".to_owned(),
        other => other.replace('_', " "),
    }
}

/// The unit, empty for a channel that only its owner knows.
#[must_use]
pub fn unit(channel: &str) -> &'static str {
    match channel {
        "flow_rate" => "L/min",
        "gate_a_position" | "gate_b_position" => "%",
        "pressure_downstream" | "pressure_upstream" => "PSI",
        _ => "",
    }
}

/// A number and its unit as a sentence shows them: `62.1 PSI`, `45.0%`, `3.5`.
#[must_use]
pub fn quantity(value: f64, decimals: usize, unit: &str) -> String {
    let gap = if unit.is_empty() || unit == "%" { "" } else { " " };
    format!("{value:.decimals$}{gap}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn water_channels_are_sorted_as_messages_sort_them() {
        assert!(WATER.is_sorted());
    }

    #[test]
    fn unknown_channels_keep_their_own_words_and_no_unit() {
        assert_eq!(words("tank_level"), "tank level");
        assert_eq!(quantity(3.5, 1, unit("tank_level")), "3.5");
        assert_eq!(quantity(45.0, 1, unit("gate_a_position")), "45.0%");
    }
}
