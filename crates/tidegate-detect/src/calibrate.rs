//! The threshold: the score that ordinary readings exceed at a set rate, and no more often.
//!
//! Conformal: of n exchangeable held-out scores, a new ordinary one exceeds the
//! ⌈(n+1)(1−α)⌉-th smallest with probability at most α, whatever their distribution. Readings in a
//! row are not exchangeable, so the rate is met over days, not in every hour.

use serde::{Deserialize, Serialize};

/// Highest score: oblique paths may come out shorter than none, so that scores go above 1.
const MOST: f32 = 1e6;

/// A threshold and what it rests on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// The false-alarm rate asked for: the share of ordinary readings over the threshold.
    pub false_alarm_rate: f64,
    /// The lowest rate that so few held-out readings can promise; above `false_alarm_rate` when
    /// there were too few, and then the promise is only this.
    pub least_rate: f64,
    /// How many held-out readings there were.
    pub readings: u64,
    /// A reading whose anomaly score is above this is over the threshold.
    pub threshold: f32,
    /// The scores that 10%, 20% and so on to 90% of held-out readings do not exceed.
    pub deciles: [f32; 9],
}

impl Calibration {
    /// Calibrates on the anomaly scores of held-out ordinary readings, in any order.
    ///
    /// # Panics
    ///
    /// When there are no `scores`.
    #[must_use]
    pub fn fit(mut scores: Vec<f32>, false_alarm_rate: f64) -> Self {
        scores.sort_unstable_by(f32::total_cmp);
        let count = scores.len();
        let rank = ((count as f64 + 1.0) * (1.0 - false_alarm_rate)).ceil() as usize;
        Self {
            false_alarm_rate,
            least_rate: 1.0 / (count as f64 + 1.0),
            readings: count as u64,
            threshold: scores[rank.clamp(1, count) - 1],
            deciles: std::array::from_fn(|tenth| scores[count * (tenth + 1) / 10]),
        }
    }

    /// Whether every number is one that [`Calibration::fit`] could have made.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let rate = |rate: f64| rate > 0.0 && rate < 1.0;
        rate(self.false_alarm_rate)
            && rate(self.least_rate)
            && (0.0..=MOST).contains(&self.threshold)
            && self.deciles.is_sorted()
            && self.deciles.iter().all(|score| (0.0..=MOST).contains(score))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(count: u16, rate: f64, expected: f32) {
        let scores = (1..=count).rev().map(f32::from).collect();
        assert_eq!(
            Calibration::fit(scores, rate).threshold,
            expected,
            "{count} scores at {rate}"
        );
    }

    #[test]
    fn threshold_is_the_conformal_rank() {
        check(99, 0.1, 90.0);
        check(99, 0.01, 99.0);
        check(1_999, 0.001, 1_998.0);
    }

    #[test]
    fn too_few_scores_give_their_maximum_and_say_what_it_promises() {
        check(50, 0.001, 50.0);
        let few = Calibration::fit(vec![0.4; 50], 0.001);
        assert!(few.least_rate > few.false_alarm_rate);
    }
}
