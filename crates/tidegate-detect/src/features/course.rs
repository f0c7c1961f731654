//! How a residual moves by itself: around 0 as noise, or along a slow course of its own.
//!
//! Supply pressure wanders for minutes and hours, with a sensor's noise on top. Judged by its level
//! it is unusual every other day, and judged by the change from one reading to the next as well:
//! noise over a slow course is no first-order process. So the course is followed by a filter
//! (steady-state Kalman of a first-order process under noise), and what the filter did not expect,
//! the *innovation*, is white on an ordinary day, wherever the course is.

use super::profile::moments;
use serde::{Deserialize, Serialize};

/// A filter is used when it leaves less than this share of the variance: else the residual is noise.
const WORTHWHILE: f64 = 0.95;
/// Smallest innovation, in standard deviations of the residual.
const LEAST_INNOVATION: f64 = 1e-3;
/// What the search tries, from fast courses to slow ones.
const KEPT: [f64; 12] = [
    0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9998, 0.9999,
];
/// And from courses deep under noise to courses without any.
const GAINS: [f64; 16] = [
    0.01, 0.02, 0.04, 0.07, 0.1, 0.14, 0.18, 0.22, 0.27, 0.33, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0,
];

/// A residual's own course: level ← kept × level + gain × innovation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Course {
    /// Share of the level that is left after one reading, 0 to below 1; 0 where there is no course.
    pub kept: f64,
    /// Share of an innovation that is taken to be the course's, 0 to 1; 0 where there is no course.
    pub gain: f64,
    /// Standard deviation of an ordinary innovation, in those of the residual; above 0.
    pub innovation: f64,
}

impl Default for Course {
    /// No course: the residual is noise of size 1.
    fn default() -> Self {
        Self {
            kept: 0.0,
            gain: 0.0,
            innovation: 1.0,
        }
    }
}

impl Course {
    /// The course that leaves the least to be surprised by in `residuals`, given in standard
    /// deviations and in their order.
    #[must_use]
    pub fn fit(residuals: &[f64]) -> Self {
        let noise = Self {
            innovation: moments(residuals).1.max(LEAST_INNOVATION),
            ..Self::default()
        };
        let tried = KEPT
            .iter()
            .flat_map(|&kept| GAINS.map(|gain| Self::with(kept, gain, residuals)));
        let best = tried.min_by(|a, b| a.innovation.total_cmp(&b.innovation));
        best.filter(|best| best.innovation.powi(2) < WORTHWHILE * noise.innovation.powi(2))
            .unwrap_or(noise)
    }

    fn with(kept: f64, gain: f64, residuals: &[f64]) -> Self {
        let mut level = residuals.first().copied().unwrap_or_default();
        let mut squares = 0.0;
        for residual in residuals {
            let expected = kept * level;
            let innovation = residual - expected;
            squares += innovation * innovation;
            level = expected + gain * innovation;
        }
        let variance = squares / residuals.len().max(1) as f64;
        Self {
            kept,
            gain,
            innovation: variance.sqrt().max(LEAST_INNOVATION),
        }
    }

    /// Whether there is a course: then a level says nothing, and only what departs from it counts.
    #[must_use]
    pub fn wanders(&self) -> bool {
        self.gain > 0.0
    }

    /// Whether [`Course::fit`] could have made it.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        (0.0..1.0).contains(&self.kept)
            && (0.0..=1.0).contains(&self.gain)
            && self.innovation.is_finite()
            && self.innovation > 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    use rand_distr::StandardNormal;

    /// A first-order process that keeps `kept` of itself, with noise of size 1 on top.
    fn wander(kept: f64, step: f64) -> Vec<f64> {
        let mut random = StdRng::seed_from_u64(1);
        let mut level = 0.0;
        let mut next = || {
            level = kept * level + step * random.sample::<f64, _>(StandardNormal);
            level + random.sample::<f64, _>(StandardNormal)
        };
        (0..20_000).map(|_| next()).collect()
    }

    /// Innovations of `residuals`, and the correlation of each with the one before.
    fn lag_one(course: Course, residuals: &[f64]) -> f64 {
        let mut level = 0.0;
        let innovations: Vec<f64> = residuals
            .iter()
            .map(|residual| {
                let expected = course.kept * level;
                level = expected + course.gain * (residual - expected);
                residual - expected
            })
            .collect();
        let products: f64 = innovations.windows(2).map(|pair| pair[0] * pair[1]).sum();
        products
            / innovations
                .iter()
                .map(|innovation| innovation.powi(2))
                .sum::<f64>()
    }

    #[test]
    fn noise_has_no_course() {
        let course = Course::fit(&wander(0.0, 0.0));
        assert!(
            !course.wanders() && (course.innovation - 1.0).abs() < 0.02,
            "{course:?}"
        );
    }

    #[test]
    fn what_a_slow_course_leaves_is_white() {
        let residuals = wander(0.998, 0.2);
        let course = Course::fit(&residuals);
        assert!(course.wanders());
        // By the Riccati equation: gain 0.18, innovation 1.10.
        assert!((course.innovation - 1.10).abs() < 0.03, "{course:?}");
        let left = lag_one(course, &residuals);
        assert!(left.abs() < 0.05, "{left} after {course:?}");
        // Followed as a first-order process without noise, as is often done, it is not white.
        let naive = Course {
            kept: 0.907,
            gain: 1.0,
            innovation: 1.0,
        };
        let left = lag_one(naive, &residuals);
        assert!(left.abs() > 0.1, "{left}");
    }

    #[test]
    fn constant_residuals_have_the_least_innovation_and_no_course() {
        let course = Course::fit(&[0.0; 100]);
        assert!(course.is_sound() && !course.wanders());
    }
}
