//! Why a reading was flagged, in words: the largest feature, what was expected and what was seen.

use crate::channel::{quantity, unit, words};
use crate::features::profile::Profile;
use crate::features::residual::Basis;
use crate::features::stream::{FAST_READINGS, SLOW_READINGS, State};
use crate::features::{COUNT, Feature, FeatureRow, aggregate, cause};
use crate::forest::Forest;
use crate::rules::Rule;
use tidegate_envelope::time::Timestamp;

/// Why a reading was flagged.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// A sentence for people, without a full stop, in lower case.
    pub sentence: String,
    /// What it is about: a channel's name in messages, or `head_loss`.
    pub subject: String,
    /// Unit of `expected` and `seen`; empty where there is none.
    pub unit: &'static str,
    /// What would have been ordinary.
    pub expected: f64,
    /// What was seen; `None` when it was not there.
    pub seen: Option<f64>,
    /// The broken rule; `None` when the forest flagged the reading.
    pub rule: Option<Rule>,
    /// Each feature's share of the forest's score, largest first, together 1; empty for a rule.
    pub shares: Vec<Share>,
}

/// One feature's share of an anomaly score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// The feature.
    pub feature: Feature,
    /// Above 0 to 1.
    pub share: f32,
}

impl Explanation {
    pub(crate) fn of_rule(rule: Rule, sentence: String, channel: &str, expected: f64, seen: f64) -> Self {
        Self {
            sentence,
            subject: channel.to_owned(),
            unit: unit(channel),
            expected,
            seen: Some(seen).filter(|seen| seen.is_finite()),
            rule: Some(rule),
            shares: Vec::new(),
        }
    }

    /// Of a rule about time: seconds expected, and seconds seen.
    pub(crate) fn of_time(rule: Rule, sentence: String, expected: f64, seen: f64) -> Self {
        Self {
            unit: "s",
            ..Self::of_rule(rule, sentence, "time", expected, seen)
        }
    }
}

/// What is known about a flagged reading.
pub(crate) struct Evidence<'a> {
    pub(crate) profile: &'a Profile,
    pub(crate) forest: &'a Forest,
    pub(crate) state: &'a State,
    pub(crate) x: &'a [f64],
    pub(crate) heads: &'a [f32],
    /// What the forest was shown.
    pub(crate) row: &'a FeatureRow,
}

impl Evidence<'_> {
    /// Explains the reading by its largest feature; where the forest saw none, by the channel that
    /// is farthest from its mean.
    pub(crate) fn explain(&self) -> Explanation {
        let features = aggregate(self.profile, self.heads);
        if self.row.as_slice() != features {
            return self.unusual();
        }
        let shares = self.shares(&features);
        let feature = shares[0].feature;
        let cause = cause(self.profile, self.heads, feature);
        let mut explanation = match feature {
            Feature::Residual => self.residual(cause),
            Feature::MeanFast | Feature::SpreadFast => self.mean(cause, false),
            Feature::MeanSlow | Feature::SpreadSlow => self.mean(cause, true),
            Feature::ScatterFast => self.scatter(cause, false),
            Feature::ScatterSlow => self.scatter(cause, true),
            Feature::Drift => self.drift(cause),
            Feature::Coupling => self.coupling(cause),
            Feature::Stuck => self.stuck(cause),
            Feature::Frozen => self.frozen(),
            Feature::Step => self.step(cause),
            Feature::Range => self.range(cause),
        };
        explanation.shares = shares;
        explanation
    }

    /// What each feature would add to the score of an ordinary reading by itself, made to sum to 1.
    /// Taking one away from the reading would say less: the others still isolate it.
    fn shares(&self, features: &[f32; COUNT]) -> Vec<Share> {
        let ordinary = self.forest.score(&[0.0; COUNT]);
        let alone = |index: usize| {
            let mut row = [0.0; COUNT];
            row[index] = features[index];
            (self.forest.score(&row) - ordinary).max(0.0)
        };
        let mut added: [f32; COUNT] = std::array::from_fn(alone);
        if added.iter().sum::<f32>() <= f32::EPSILON {
            // Only the combination is rare: the sizes of the features must do.
            added = features.map(|feature| feature.abs().max(f32::EPSILON));
        }
        let total: f32 = added.iter().sum();
        let mut shares: Vec<Share> = Feature::ALL
            .into_iter()
            .zip(added)
            .filter(|&(_, added)| added > 0.0)
            .map(|(feature, added)| Share {
                feature,
                share: added / total,
            })
            .collect();
        shares.sort_by(|a, b| b.share.total_cmp(&a.share));
        shares
    }

    fn residual(&self, cause: usize) -> Explanation {
        let subject = self.subject(cause);
        let (seen, expected, _) = self.profile.residuals[cause].explain(&self.profile.channels, self.x);
        let sentence = format!("{} {}", subject.words, subject.off_by(seen - expected));
        subject.explanation(sentence, expected, seen)
    }

    fn mean(&self, cause: usize, slow: bool) -> Explanation {
        let subject = self.subject(cause);
        let residual = &self.profile.residuals[cause];
        let (seen, expected, scale) = residual.explain(&self.profile.channels, self.x);
        let mean = f64::from(self.state.mean(self.profile, cause, slow)) * scale;
        let readings = if slow { SLOW_READINGS } else { FAST_READINGS };
        let against = if residual.course.wanders() {
            let side = if mean < 0.0 { "below" } else { "above" };
            format!("{} {side} its own course", quantity(mean.abs(), 2, subject.unit))
        } else {
            subject.off_by(mean)
        };
        let sentence = format!("{} {against}, over the last {readings} readings", subject.words);
        subject.explanation(sentence, expected, seen)
    }

    fn scatter(&self, cause: usize, slow: bool) -> Explanation {
        let subject = self.subject(cause);
        let times = f64::from(self.state.scatter(cause, slow));
        let (_, _, scale) = self.profile.residuals[cause].explain(&self.profile.channels, self.x);
        let expected = scale * self.profile.residuals[cause].course.innovation;
        let sentence = if times < 1.0 {
            format!(
                "{} is quieter than a sensor can be: {times:.2} times its usual scatter",
                subject.words
            )
        } else {
            format!("{} scatters {times:.1} times as much as usual", subject.words)
        };
        subject.explanation(sentence, expected, expected * times)
    }

    fn drift(&self, cause: usize) -> Explanation {
        let subject = self.subject(cause);
        let trend = self.state.trend(self.profile, cause);
        let (seen, expected, scale) = self.profile.residuals[cause].explain(&self.profile.channels, self.x);
        let slope = f64::from(trend.mean) * scale / f64::from(trend.readings.max(1));
        let sentence = format!(
            "{} drifting {slope:+.3}{} per reading since {} UTC",
            subject.words,
            if subject.unit.is_empty() {
                String::new()
            } else {
                format!(" {}", subject.unit)
            },
            clock(trend.since)
        );
        subject.explanation(sentence, expected, seen)
    }

    fn coupling(&self, cause: usize) -> Explanation {
        let subject = self.subject(cause);
        let (seen, expected, _) = self.profile.residuals[cause].explain(&self.profile.channels, self.x);
        let sentence = format!(
            "{} no longer follows what {}, over the last {SLOW_READINGS} readings",
            subject.words, subject.by
        );
        subject.explanation(sentence, expected, seen)
    }

    fn stuck(&self, channel: usize) -> Explanation {
        let readings = self.state.run(channel) + 1;
        let profile = &self.profile.channels[channel];
        let value = quantity(self.x[channel], 2, unit(&profile.name));
        let sentence = format!(
            "{} stuck at {value} for {readings} readings",
            words(&profile.name)
        );
        self.channel(channel, sentence, profile.mean)
    }

    fn frozen(&self) -> Explanation {
        let readings = (0..self.x.len())
            .map(|channel| self.state.run(channel))
            .min()
            .unwrap_or(0)
            + 1;
        let sentence = format!("all channels unchanged for {readings} readings");
        self.channel(0, sentence, self.profile.channels[0].mean)
    }

    fn step(&self, channel: usize) -> Explanation {
        let profile = &self.profile.channels[channel];
        let unit = unit(&profile.name);
        let head = self.profile.residuals.len() * crate::features::RESIDUAL_HEADS
            + channel * crate::features::CHANNEL_HEADS
            + 1;
        let step = f64::from(self.heads[head]) * profile.step;
        let sentence = format!(
            "{} jumped by {} between two readings; {} is usual",
            words(&profile.name),
            quantity(step, 2, unit),
            quantity(profile.step, 2, unit)
        );
        self.channel(channel, sentence, profile.mean)
    }

    fn range(&self, channel: usize) -> Explanation {
        let profile = &self.profile.channels[channel];
        let unit = unit(&profile.name);
        let seen = self.x[channel];
        let (side, bound) = if seen < profile.low {
            ("below", profile.low)
        } else {
            ("above", profile.high)
        };
        let sentence = format!(
            "{} {} is {side} its usual {}",
            words(&profile.name),
            quantity(seen, 1, unit),
            quantity(bound, 1, unit)
        );
        self.channel(channel, sentence, bound)
    }

    fn unusual(&self) -> Explanation {
        let channels = &self.profile.channels;
        let off = |index: &usize| channels[*index].standard(self.x[*index]).abs();
        let channel = (0..channels.len())
            .max_by(|a, b| off(a).total_cmp(&off(b)))
            .unwrap_or(0);
        let profile = &channels[channel];
        let unit = unit(&profile.name);
        let sentence = format!(
            "{} {} is unusual beside the other channels",
            words(&profile.name),
            quantity(self.x[channel], 1, unit)
        );
        self.channel(channel, sentence, profile.mean)
    }

    fn channel(&self, channel: usize, sentence: String, expected: f64) -> Explanation {
        let name = &self.profile.channels[channel].name;
        Explanation {
            sentence,
            subject: name.clone(),
            unit: unit(name),
            expected,
            seen: Some(self.x[channel]),
            rule: None,
            shares: Vec::new(),
        }
    }

    fn subject(&self, residual: usize) -> Subject {
        let channel = |at: u8| self.profile.channels[usize::from(at)].name.as_str();
        match self.profile.residuals[residual].basis {
            Basis::HeadLoss(_) => Subject {
                name: "head_loss".into(),
                words: "head loss".into(),
                unit: "PSI",
                by: "this flow explains",
            },
            Basis::Supply(at) => Subject::channel(channel(at.upstream), "this flow explains"),
            Basis::Linear { target } => Subject::channel(channel(target), "the other channels explain"),
        }
    }
}

/// What a residual is of.
struct Subject {
    name: String,
    words: String,
    unit: &'static str,
    by: &'static str,
}

impl Subject {
    fn channel(name: &str, by: &'static str) -> Self {
        Self {
            name: name.to_owned(),
            words: words(name),
            unit: unit(name),
            by,
        }
    }

    /// `3.10 PSI above what this flow explains`.
    fn off_by(&self, difference: f64) -> String {
        let side = if difference < 0.0 { "below" } else { "above" };
        format!(
            "{} {side} what {}",
            quantity(difference.abs(), 2, self.unit),
            self.by
        )
    }

    fn explanation(self, sentence: String, expected: f64, seen: f64) -> Explanation {
        Explanation {
            sentence,
            subject: self.name,
            unit: self.unit,
            expected,
            seen: Some(seen),
            rule: None,
            shares: Vec::new(),
        }
    }
}

/// Hours and minutes of the day in UTC.
fn clock(at: Timestamp) -> String {
    let minute_of_day = at.as_millis().div_euclid(60_000).rem_euclid(24 * 60);
    format!("{:02}:{:02}", minute_of_day / 60, minute_of_day % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_utc_before_1970_too() {
        assert_eq!(clock(Timestamp::from_micros(50_520_000_000)), "14:02");
        assert_eq!(clock(Timestamp::from_micros(-60_000_000)), "23:59");
    }
}
