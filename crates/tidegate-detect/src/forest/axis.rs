//! Axis-parallel splits: one feature, one value (Liu, Ting, Zhou 2008, algorithm 2).

use super::Rows;
use super::tree::{Split, finite_at, u32_at};
use rand::RngExt;
use rand::rngs::StdRng;

/// `row[feature] > threshold` goes right.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AxisSplit {
    feature: u32,
    threshold: f32,
}

impl AxisSplit {
    pub(super) fn new(feature: u32, threshold: f32) -> Self {
        Self { feature, threshold }
    }
}

impl Split for AxisSplit {
    const BYTES: usize = 8;
    const NONE: Self = Self {
        feature: 0,
        threshold: f32::MAX,
    };

    fn draw(rows: Rows<'_>, members: &[u32], features: &mut [u16], random: &mut StdRng) -> Option<Self> {
        (0..features.len()).find_map(|drawn| {
            let feature = draw_feature(features, drawn, random);
            let (low, high) = bounds(values(rows, members, feature));
            (low < high).then(|| Self {
                feature: u32::from(feature),
                threshold: between(low, high, random),
            })
        })
    }

    #[inline(always)]
    fn side(&self, value: impl Fn(usize) -> f32) -> (bool, bool) {
        (value(self.feature as usize) > self.threshold, false)
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.feature.to_le_bytes());
        out.extend(self.threshold.to_le_bytes());
    }

    fn read(bytes: &[u8], width: usize) -> Option<Self> {
        let feature = u32_at(bytes, 0);
        let threshold = finite_at(bytes, 4)?;
        ((feature as usize) < width).then_some(Self { feature, threshold })
    }
}

/// The next of `features` in a random order, of which `drawn` have been drawn: one step of a shuffle.
pub(super) fn draw_feature(features: &mut [u16], drawn: usize, random: &mut StdRng) -> u16 {
    let other = random.random_range(drawn..features.len());
    features.swap(drawn, other);
    features[drawn]
}

/// A number from `low` to below `high`, so that both sides of it have rows.
pub(super) fn between(low: f32, high: f32, random: &mut StdRng) -> f32 {
    let (from, width) = (f64::from(low), f64::from(high) - f64::from(low));
    let number = (from + random.random::<f64>() * width) as f32;
    if number < high { number } else { low }
}

/// One feature of `members`.
pub(super) fn values(rows: Rows<'_>, members: &[u32], feature: u16) -> impl Iterator<Item = f32> + Clone {
    members
        .iter()
        .map(move |&row| rows.row(row as usize)[usize::from(feature)])
}

/// The least and the greatest of `values`.
pub(super) fn bounds(values: impl Iterator<Item = f32>) -> (f32, f32) {
    values.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn a_split_has_rows_on_both_sides_and_never_uses_a_constant_feature() {
        let values = [5.0, 1.0, 5.0, 2.0, 5.0, 3.0];
        let rows = Rows::new(&values, 2);
        let mut random = StdRng::seed_from_u64(1);
        let mut features = [0, 1];
        for _ in 0..100 {
            let split = AxisSplit::draw(rows, &[0, 1, 2], &mut features, &mut random).unwrap();
            let right = (0..3)
                .filter(|&row| split.side(|feature| rows.row(row)[feature]).0)
                .count();
            assert_eq!(split.feature, 1);
            assert!((1..3).contains(&right));
        }
        assert_eq!(AxisSplit::draw(rows, &[1, 1], &mut features, &mut random), None);
    }

    #[test]
    fn a_number_between_neighbours_and_one_between_extremes_are_below_the_higher() {
        let mut random = StdRng::seed_from_u64(1);
        for (low, high) in [(1.0, 1.0_f32.next_up()), (f32::MIN, f32::MAX)] {
            for _ in 0..100 {
                let number = between(low, high, &mut random);
                assert!(low <= number && number < high, "{number}");
            }
        }
    }
}
