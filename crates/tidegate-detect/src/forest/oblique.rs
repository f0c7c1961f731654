//! Oblique splits: a random direction over three features, with a penalty out of range.
//!
//! The direction is that of Hariri, Carrasco Kind, Brunner 2019, with each coefficient divided by the
//! feature's spread in the node, so that a feature in large units does not decide alone. The split
//! point is the mean of two uniform ones between the ends of what the node's rows project to: a
//! single one splits off the ends too often and ranks worse, and a point of the rows' box, as
//! published, is in between (`docs/detection.md` has the figures). The penalty is that of SCiForest
//! (Liu, Ting, Zhou 2010) as isotree has it: a value farther from the split point than the whole
//! width of the node's values makes the path one shorter.

use super::Rows;
use super::axis::{between, bounds, draw_feature, values};
use super::tree::{Split, finite_at, u16_at};
use rand::RngExt;
use rand::rngs::StdRng;
use rand_distr::StandardNormal;

/// Features per split.
const FEATURES: usize = 3;
/// Values closer together than this share of their size are one value.
const SMALLEST_RANGE: f32 = 1e-6;

/// `Σ weight·row[feature] > threshold` goes right.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ObliqueSplit {
    features: [u16; FEATURES],
    weights: [f32; FEATURES],
    threshold: f32,
    /// Width of the node's projected values, the penalty's measure.
    range: f32,
}

impl ObliqueSplit {
    #[inline(always)]
    fn project(&self, value: impl Fn(usize) -> f32) -> f32 {
        let term = |i: usize| self.weights[i] * value(usize::from(self.features[i]));
        term(0) + term(1) + term(2)
    }
}

impl Split for ObliqueSplit {
    const BYTES: usize = 2 * FEATURES + 4 * FEATURES + 8;
    const NONE: Self = Self {
        features: [0; FEATURES],
        weights: [0.0; FEATURES],
        threshold: 0.0,
        range: f32::MAX,
    };

    fn draw(rows: Rows<'_>, members: &[u32], features: &mut [u16], random: &mut StdRng) -> Option<Self> {
        let mut split = Self::NONE;
        let mut chosen = 0;
        for drawn in 0..features.len() {
            let feature = draw_feature(features, drawn, random);
            let spread = spread(values(rows, members, feature));
            if spread > 0.0 {
                split.features[chosen] = feature;
                split.weights[chosen] = random.sample::<f32, _>(StandardNormal) / spread;
                chosen += 1;
            }
            if chosen == FEATURES {
                break;
            }
        }
        let (low, high) = bounds(members.iter().map(|&row| {
            let row = rows.row(row as usize);
            split.project(|feature| row[feature])
        }));
        (low < high).then(|| {
            split.threshold = 0.5 * between(low, high, random) + 0.5 * between(low, high, random);
            split.range = (high - low).min(f32::MAX);
            split
        })
    }

    #[inline(always)]
    fn side(&self, value: impl Fn(usize) -> f32) -> (bool, bool) {
        let from_split = self.project(value) - self.threshold;
        (from_split > 0.0, from_split.abs() > self.range)
    }

    fn write(&self, out: &mut Vec<u8>) {
        for feature in self.features {
            out.extend(feature.to_le_bytes());
        }
        for number in self.weights.iter().chain([&self.threshold, &self.range]) {
            out.extend(number.to_le_bytes());
        }
    }

    fn read(bytes: &[u8], width: usize) -> Option<Self> {
        let mut split = Self::NONE;
        for index in 0..FEATURES {
            split.features[index] = u16_at(bytes, 2 * index);
            split.weights[index] = finite_at(bytes, 2 * FEATURES + 4 * index)?;
        }
        split.threshold = finite_at(bytes, 6 * FEATURES)?;
        split.range = finite_at(bytes, 6 * FEATURES + 4)?;
        split
            .features
            .iter()
            .all(|&feature| usize::from(feature) < width)
            .then_some(split)
    }
}

/// Standard deviation; exactly 0 where all values are the same, which rounding would miss.
fn spread(values: impl Iterator<Item = f32> + Clone) -> f32 {
    let (low, high) = bounds(values.clone());
    if high - low <= SMALLEST_RANGE * high.abs().max(low.abs()) {
        return 0.0;
    }
    let count = values.clone().count() as f32;
    let mean = values.clone().sum::<f32>() / count;
    (values.map(|value| (value - mean).powi(2)).sum::<f32>() / count).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn a_split_has_rows_on_both_sides_and_penalises_only_far_values() {
        let values: Vec<f32> = (0..40).map(|i| (i * 17 % 40) as f32).collect();
        let rows = Rows::new(&values, 4);
        let members: Vec<u32> = (0..10).collect();
        let mut features = [0, 1, 2, 3];
        let mut random = StdRng::seed_from_u64(1);
        for _ in 0..100 {
            let split = ObliqueSplit::draw(rows, &members, &mut features, &mut random).unwrap();
            let right = (0..10)
                .filter(|&row| split.side(|feature| rows.row(row)[feature]).0)
                .count();
            assert!((1..10).contains(&right));
            assert!((0..10).all(|row| !split.side(|feature| rows.row(row)[feature]).1));
            let far = rows.row(0).iter().zip(0_u16..).map(|(value, feature)| {
                let weight = split
                    .features
                    .iter()
                    .position(|&f| f == feature)
                    .map_or(0.0, |i| split.weights[i]);
                value + 1e6 * weight.signum()
            });
            let far: Vec<_> = far.collect();
            assert!(split.side(|feature| far[feature]).1);
        }
        assert_eq!(
            ObliqueSplit::draw(rows, &[1, 1], &mut features, &mut random),
            None
        );
    }
}
