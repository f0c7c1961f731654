//! The rules as a configuration file writes them, each number with its unit.
//!
//! ```toml
//! silence_s = 60
//! gap_s = 30
//! statuses = ["operational", "maintenance"]
//!
//! [channels.pressure_upstream]
//! unit = "bar"
//! least = 0
//! greatest = 10
//! change_per_s = 0.7
//!
//! [[impossible]]
//! name = "water flows through closed gates"
//! all = ["flow_rate > 5 L/min", "gate_a_position < 1 %", "gate_b_position < 1 %"]
//! ```
//!
//! A condition is `CHANNEL > NUMBER UNIT`, `CHANNEL > CHANNEL` or `CHANNEL > CHANNEL + NUMBER UNIT`,
//! or the same with `<`. The unit may be left out; it is then the one that messages carry.

use super::impossible::{MAX_COMBINATIONS, MAX_CONDITIONS};
use super::{ChannelLimits, Condition, Impossible, Relation, Rules, Side};
use crate::channel::MAX_TRACKED;
use crate::unit::to_channel;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Most statuses that may mean that all is well.
const MAX_STATUSES: usize = 32;
/// Longest silence and gap that may be allowed: a week.
const MOST_SECONDS: f64 = 604_800.0;

/// The `[detect.rules]` table. What it does not say stays as [`Rules::default`] has it.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RulesTable {
    /// Seconds that a device may say nothing; 0 or absent: as long as it likes.
    pub silence_s: f64,
    /// Seconds that two readings may be apart; 0 or absent: as far as they are.
    pub gap_s: f64,
    /// The statuses that mean that all is well; every status where there are none.
    pub statuses: Vec<String>,
    /// Limits by channel.
    pub channels: BTreeMap<String, ChannelTable>,
    /// What cannot be true together.
    pub impossible: Vec<ImpossibleTable>,
}

/// Limits of one channel.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelTable {
    /// The unit of the numbers below; empty: the one that messages carry.
    #[serde(default)]
    pub unit: String,
    /// Least value.
    pub least: f64,
    /// Greatest value.
    pub greatest: f64,
    /// Greatest change per second; absent: any.
    #[serde(default = "any_change")]
    pub change_per_s: f64,
}

/// One combination.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImpossibleTable {
    /// What it would mean.
    pub name: String,
    /// Its conditions.
    pub all: Vec<String>,
}

fn any_change() -> f64 {
    f64::INFINITY
}

/// Why a table cannot be used. Each names the key.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RulesError {
    /// A number that cannot be one of these.
    #[error("{key} is {value}, it must be {allowed}")]
    Number {
        /// The key.
        key: String,
        /// Its value.
        value: f64,
        /// What it may be.
        allowed: &'static str,
    },
    /// More than there is room for.
    #[error("{key} has {count} entries, at most {most} are allowed")]
    TooMany {
        /// The key.
        key: String,
        /// How many there are.
        count: usize,
        /// How many there may be.
        most: usize,
    },
    /// A unit that does not fit.
    #[error("{key}: {what}")]
    Unit {
        /// The key.
        key: String,
        /// What is wrong with it.
        what: String,
    },
    /// A condition that cannot be read.
    #[error("condition {condition:?} must be like `flow_rate > 5 L/min` or `a < b + 2 PSI`")]
    Condition {
        /// The condition.
        condition: String,
    },
    /// A combination without a condition would always be there.
    #[error("combination {name:?} has no condition")]
    NoCondition {
        /// Its name.
        name: String,
    },
}

impl RulesTable {
    /// The rules that the table means.
    ///
    /// # Errors
    ///
    /// See [`RulesError`].
    pub fn rules(&self) -> Result<Rules, RulesError> {
        bounded("statuses", self.statuses.len(), MAX_STATUSES)?;
        bounded("impossible", self.impossible.len(), MAX_COMBINATIONS)?;
        let mut rules = Rules {
            silence: seconds("silence_s", self.silence_s)?,
            gap: seconds("gap_s", self.gap_s)?,
            statuses: self.statuses.clone(),
            impossible: self
                .impossible
                .iter()
                .map(ImpossibleTable::combination)
                .collect::<Result<_, _>>()?,
            ..Rules::default()
        };
        for (channel, table) in &self.channels {
            if !rules.limit(table.limits(channel)?) {
                bounded("channels", MAX_TRACKED + 1, MAX_TRACKED)?;
            }
        }
        Ok(rules)
    }
}

impl ChannelTable {
    fn limits(&self, channel: &str) -> Result<ChannelLimits, RulesError> {
        let key = |name: &str| format!("channels.{channel}.{name}");
        let convert = |name: &str, value: f64| {
            if value.is_nan() {
                return Err(RulesError::Number {
                    key: key(name),
                    value,
                    allowed: "a number",
                });
            }
            converted(channel, value, &self.unit, &key("unit"))
        };
        let limits = ChannelLimits {
            channel: channel.to_owned(),
            least: convert("least", self.least)?,
            greatest: convert("greatest", self.greatest)?,
            change_per_second: convert("change_per_s", self.change_per_s)?,
        };
        if limits.least >= limits.greatest {
            return Err(RulesError::Number {
                key: key("greatest"),
                value: self.greatest,
                allowed: "above least",
            });
        }
        if limits.change_per_second <= 0.0 {
            return Err(RulesError::Number {
                key: key("change_per_s"),
                value: self.change_per_s,
                allowed: "above 0",
            });
        }
        Ok(limits)
    }
}

impl ImpossibleTable {
    fn combination(&self) -> Result<Impossible, RulesError> {
        bounded(&self.name, self.all.len(), MAX_CONDITIONS)?;
        if self.all.is_empty() {
            return Err(RulesError::NoCondition {
                name: self.name.clone(),
            });
        }
        Ok(Impossible {
            name: self.name.clone(),
            all: self
                .all
                .iter()
                .map(|text| condition(text))
                .collect::<Result<_, _>>()?,
        })
    }
}

fn condition(text: &str) -> Result<Condition, RulesError> {
    let unclear = || RulesError::Condition {
        condition: text.to_owned(),
    };
    let mut words = text.split_whitespace();
    let channel = words.next().filter(|word| is_name(word)).ok_or_else(unclear)?;
    let relation = match words.next() {
        Some("<") => Relation::Below,
        Some(">") => Relation::Above,
        _ => return Err(unclear()),
    };
    let rest: Vec<&str> = words.collect();
    let number = |number: &str, unit: &[&str]| {
        let number: f64 = number.parse().map_err(|_| unclear())?;
        let unit = match unit {
            [] => "",
            [unit] => unit,
            _ => return Err(unclear()),
        };
        if number.is_finite() {
            converted(channel, number, unit, text)
        } else {
            Err(unclear())
        }
    };
    let other = match &rest[..] {
        [other] if is_name(other) => Side::Channel((*other).to_owned(), 0.0),
        [other, sign @ ("+" | "-"), plus, unit @ ..] if is_name(other) => {
            let plus = number(plus, unit)?;
            let plus = if *sign == "-" { -plus } else { plus };
            Side::Channel((*other).to_owned(), plus)
        }
        [value, unit @ ..] => Side::Number(number(value, unit)?),
        [] => return Err(unclear()),
    };
    Ok(Condition {
        channel: channel.to_owned(),
        relation,
        other,
    })
}

/// Whether a word is a channel's name: it begins like one, as no number does.
fn is_name(word: &str) -> bool {
    word.starts_with(|first: char| first.is_alphabetic() || first == '_')
        && !["inf", "nan", "infinity"].contains(&word.to_ascii_lowercase().as_str())
}

fn converted(channel: &str, value: f64, unit: &str, key: &str) -> Result<f64, RulesError> {
    if unit.is_empty() {
        return Ok(value);
    }
    to_channel(channel, value, unit).map_err(|what| RulesError::Unit {
        key: key.to_owned(),
        what,
    })
}

fn bounded(key: &str, count: usize, most: usize) -> Result<(), RulesError> {
    if count <= most {
        return Ok(());
    }
    Err(RulesError::TooMany {
        key: key.to_owned(),
        count,
        most,
    })
}

fn seconds(key: &str, value: f64) -> Result<Option<Duration>, RulesError> {
    if !(0.0..=MOST_SECONDS).contains(&value) {
        return Err(RulesError::Number {
            key: key.to_owned(),
            value,
            allowed: "0 to 604800",
        });
    }
    Ok((value > 0.0).then(|| Duration::from_secs_f64(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(unit: &str, least: f64, greatest: f64) -> RulesTable {
        let table = ChannelTable {
            unit: unit.into(),
            least,
            greatest,
            change_per_s: 1.0,
        };
        RulesTable {
            channels: [("pressure_upstream".to_owned(), table)].into(),
            ..RulesTable::default()
        }
    }

    #[test]
    fn an_empty_table_means_the_rules_of_water() {
        assert_eq!(RulesTable::default().rules(), Ok(Rules::default()));
    }

    #[test]
    fn limits_are_taken_in_their_unit() {
        let rules = channel("bar", 0.0, 10.0).rules().unwrap();
        let limits = &rules.channels()[4];
        assert_eq!(limits.channel, "pressure_upstream");
        assert!((limits.greatest - 145.04).abs() < 0.01 && (limits.change_per_second - 14.5).abs() < 0.01);
        let wrong = channel("L/s", 0.0, 10.0).rules().unwrap_err();
        assert_eq!(
            wrong.to_string(),
            "channels.pressure_upstream.unit: pressure_upstream is in PSI, and L/s measures something else"
        );
    }

    #[test]
    fn limits_that_allow_nothing_are_refused() {
        let refused = channel("", 10.0, 10.0).rules().unwrap_err();
        assert_eq!(
            refused.to_string(),
            "channels.pressure_upstream.greatest is 10, it must be above least"
        );
        assert!(channel("", 9.9, 10.0).rules().is_ok());
        assert!(channel("", f64::NAN, 10.0).rules().is_err());
    }

    #[test]
    fn conditions_are_read_with_their_units() {
        let check = |text: &str, other: Side| {
            let expected = Condition {
                channel: "pressure_downstream".into(),
                relation: Relation::Above,
                other,
            };
            assert_eq!(condition(text).as_ref(), Ok(&expected), "{text}");
        };
        let upstream = |plus| Side::Channel("pressure_upstream".into(), plus);
        check("pressure_downstream > 5", Side::Number(5.0));
        check("pressure_downstream > -5 PSI", Side::Number(-5.0));
        check("pressure_downstream > pressure_upstream", upstream(0.0));
        check("pressure_downstream > pressure_upstream + 2 PSI", upstream(2.0));
        check("pressure_downstream > pressure_upstream - 2", upstream(-2.0));
    }

    #[test]
    fn conditions_that_mean_nothing_are_refused() {
        for text in [
            "",
            "flow_rate",
            "flow_rate >",
            "flow_rate = 5",
            "flow_rate > five six",
            "flow_rate > 5 L/min more",
            "5 > flow_rate",
            "flow_rate > nan",
            "flow_rate > 5 bar",
            "flow_rate > other + nothing",
        ] {
            assert!(condition(text).is_err(), "{text:?}");
        }
        let empty = ImpossibleTable {
            name: "never".into(),
            all: Vec::new(),
        };
        assert!(empty.combination().is_err());
    }

    #[test]
    fn times_are_bounded_and_0_is_none() {
        let check = |silence_s| {
            let table = RulesTable {
                silence_s,
                ..RulesTable::default()
            };
            table.rules().map(|rules| rules.silence)
        };
        assert_eq!(check(0.0), Ok(None));
        assert_eq!(check(1.5), Ok(Some(Duration::from_millis(1_500))));
        assert!(check(-1.0).is_err() && check(f64::NAN).is_err() && check(604_801.0).is_err());
    }
}
