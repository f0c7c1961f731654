//! Oblique splits: a random direction over three features, with a penalty out of range.
//!
//! Hariri, Carrasco Kind, Brunner 2019 for the direction; the coefficients are divided by the
//! feature's spread in the node, so that a feature in large units does not decide alone. The
//! penalty is that of SCiForest (Liu, Ting, Zhou 2010) as isotree has it: a value farther from the
//! split point than the whole width of the node's values makes the path one shorter.

use super::Rows;
use super::axis::bounds;
use super::tree::{Split, finite_at};
use rand::rngs::StdRng;
use rand::{RngExt, seq::SliceRandom};
use rand_distr::StandardNormal;

/// Features per split.
const FEATURES: usize = 3;
/// Values closer together than this are one value: features are of size 1.
const SMALLEST_RANGE: f32 = 1e-6;

/// `Σ weight·row[feature] > threshold` goes right.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ObliqueSplit {
    features: [u8; FEATURES],
    weights: [f32; FEATURES],
    threshold: f32,
    /// Width of the node's projected values, the penalty's measure.
    range: f32,
}

impl ObliqueSplit {
    fn project(&self, row: &[f32]) -> f32 {
        let term = |i: usize| self.weights[i] * row[usize::from(self.features[i])];
        term(0) + term(1) + term(2)
    }
}

impl Split for ObliqueSplit {
    const BYTES: usize = FEATURES + 4 * FEATURES + 8;

    fn draw(rows: Rows<'_>, members: &[u32], random: &mut StdRng) -> Option<Self> {
        let mut order: Vec<u8> = (0..rows.width().min(256)).map(|feature| feature as u8).collect();
        order.shuffle(random);
        let mut split = Self::none();
        let mut chosen = 0;
        for feature in order {
            let spread = spread(
                members
                    .iter()
                    .map(|&row| rows.row(row as usize)[usize::from(feature)]),
            );
            if spread > 0.0 {
                split.features[chosen] = feature;
                split.weights[chosen] = random.sample::<f32, _>(StandardNormal) / spread;
                chosen += 1;
            }
            if chosen == FEATURES {
                break;
            }
        }
        let (low, high) = bounds(members.iter().map(|&row| split.project(rows.row(row as usize))));
        (low < high).then(|| {
            split.threshold = random.random_range(low..high);
            split.range = high - low;
            split
        })
    }

    fn side(&self, row: &[f32]) -> (bool, bool) {
        let from_split = self.project(row) - self.threshold;
        (from_split > 0.0, from_split.abs() > self.range)
    }

    fn none() -> Self {
        Self {
            features: [0; FEATURES],
            weights: [0.0; FEATURES],
            threshold: 0.0,
            range: 0.0,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.features);
        for number in self.weights.iter().chain([&self.threshold, &self.range]) {
            out.extend(number.to_le_bytes());
        }
    }

    fn read(bytes: &[u8], width: usize) -> Option<Self> {
        let mut split = Self::none();
        split.features.copy_from_slice(&bytes[..FEATURES]);
        for (index, weight) in split.weights.iter_mut().enumerate() {
            *weight = finite_at(bytes, FEATURES + 4 * index)?;
        }
        split.threshold = finite_at(bytes, FEATURES + 4 * FEATURES)?;
        split.range = finite_at(bytes, FEATURES + 4 * FEATURES + 4)?;
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
    if high - low < SMALLEST_RANGE {
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
        let mut random = StdRng::seed_from_u64(1);
        for _ in 0..100 {
            let split = ObliqueSplit::draw(rows, &members, &mut random).unwrap();
            let right = (0..10).filter(|&row| split.side(rows.row(row)).0).count();
            assert!((1..10).contains(&right));
            assert!((0..10).all(|row| !split.side(rows.row(row)).1));
            let far = rows.row(0).iter().zip(0_u8..).map(|(value, feature)| {
                let weight = split
                    .features
                    .iter()
                    .position(|&f| f == feature)
                    .map_or(0.0, |i| split.weights[i]);
                value + 1e6 * weight.signum()
            });
            assert!(split.side(&far.collect::<Vec<_>>()).1);
        }
        assert_eq!(ObliqueSplit::draw(rows, &[1, 1], &mut random), None);
    }
}
