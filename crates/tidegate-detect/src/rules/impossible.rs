//! Values that cannot be true together: flow through closed gates, more pressure behind the gates
//! than before them.

use super::Rule;
use crate::channel::{quantity, unit, words};
use crate::explain::Explanation;
use tidegate_envelope::reading::Channels;

/// Most conditions of one combination.
pub(super) const MAX_CONDITIONS: usize = 8;
/// Most combinations.
pub(super) const MAX_COMBINATIONS: usize = 64;

/// A combination that cannot be: all of its conditions at once.
#[derive(Debug, Clone, PartialEq)]
pub struct Impossible {
    /// What it would mean, as the reason shows it: `water flows through closed gates`.
    pub name: String,
    /// 1 to 8 conditions.
    pub all: Vec<Condition>,
}

/// One condition on a reading; not met where a channel of it is not there.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// The channel.
    pub channel: String,
    /// How it stands to the other side.
    pub relation: Relation,
    /// The other side.
    pub other: Side,
}

/// How two numbers stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// `<`
    Below,
    /// `>`
    Above,
}

/// What a channel is compared with.
#[derive(Debug, Clone, PartialEq)]
pub enum Side {
    /// A number, in the unit in which messages carry the channel.
    Number(f64),
    /// Another channel plus a number.
    Channel(String, f64),
}

impl Condition {
    fn holds(&self, channels: &Channels) -> Option<bool> {
        let value = channels.get(&self.channel)?;
        let other = self.other.value(channels)?;
        Some(match self.relation {
            Relation::Below => value < other,
            Relation::Above => value > other,
        })
    }
}

impl Side {
    fn value(&self, channels: &Channels) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Channel(channel, plus) => Some(channels.get(channel)? + plus),
        }
    }
}

/// The explanation for the first combination that is there.
pub(super) fn impossible(combinations: &[Impossible], channels: &Channels) -> Option<Explanation> {
    let there = combinations.iter().find(|combination| {
        let mut conditions = combination.all.iter();
        conditions.all(|condition| condition.holds(channels) == Some(true))
    })?;
    let first = there.all.first()?;
    let shown = |condition: &Condition| {
        let value = channels.get(&condition.channel).unwrap_or(f64::NAN);
        format!(
            "{} {}",
            words(&condition.channel),
            quantity(value, 1, unit(&condition.channel))
        )
    };
    let values: Vec<_> = there.all.iter().map(shown).collect();
    Some(Explanation::of_rule(
        Rule::Impossible,
        format!("{}: {}", there.name, values.join(", ")),
        &first.channel,
        first.other.value(channels)?,
        channels.get(&first.channel)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::tests::water;

    fn backwards() -> [Impossible; 1] {
        [Impossible {
            name: "more pressure behind the gates than before".into(),
            all: vec![
                Condition {
                    channel: "pressure_downstream".into(),
                    relation: Relation::Above,
                    other: Side::Channel("pressure_upstream".into(), 2.0),
                },
                Condition {
                    channel: "flow_rate".into(),
                    relation: Relation::Above,
                    other: Side::Number(1.0),
                },
            ],
        }]
    }

    #[test]
    fn all_conditions_together_are_impossible_and_one_short_is_not() {
        let check = |upstream, downstream, flow| {
            impossible(&backwards(), &water(upstream, downstream, flow)).map(|broken| broken.sentence)
        };
        assert_eq!(
            check(60.0, 62.1, 5.0).as_deref(),
            Some("more pressure behind the gates than before: downstream pressure 62.1 PSI, flow 5.0 L/min")
        );
        assert_eq!(check(60.0, 62.0, 5.0), None);
        assert_eq!(check(60.0, 62.1, 1.0), None);
    }

    #[test]
    fn a_condition_on_a_channel_that_is_not_there_is_not_met() {
        let one = Channels::new(vec![("pressure_downstream".into(), 90.0)]).unwrap();
        assert_eq!(impossible(&backwards(), &one), None);
    }
}
