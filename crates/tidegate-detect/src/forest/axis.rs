//! Axis-parallel splits: one feature, one value (Liu, Ting, Zhou 2008, algorithm 2).

use super::Rows;
use super::tree::{Split, finite_at, u32_at};
use rand::rngs::StdRng;
use rand::{RngExt, seq::SliceRandom};

/// `row[feature] > threshold` goes right.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AxisSplit {
    feature: u32,
    threshold: f32,
}

impl Split for AxisSplit {
    const BYTES: usize = 8;

    fn draw(rows: Rows<'_>, members: &[u32], random: &mut StdRng) -> Option<Self> {
        let mut features: Vec<u32> = (0..rows.width() as u32).collect();
        features.shuffle(random);
        features.into_iter().find_map(|feature| {
            let values = members
                .iter()
                .map(|&row| rows.row(row as usize)[feature as usize]);
            let (low, high) = bounds(values);
            (low < high).then(|| Self {
                feature,
                threshold: random.random_range(low..high),
            })
        })
    }

    fn side(&self, row: &[f32]) -> (bool, bool) {
        (row[self.feature as usize] > self.threshold, false)
    }

    fn none() -> Self {
        Self {
            feature: 0,
            threshold: 0.0,
        }
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
        for _ in 0..100 {
            let split = AxisSplit::draw(rows, &[0, 1, 2], &mut random).unwrap();
            let right = (0..3).filter(|&row| split.side(rows.row(row)).0).count();
            assert_eq!(split.feature, 1);
            assert!((1..3).contains(&right));
        }
        assert_eq!(AxisSplit::draw(rows, &[1, 1], &mut random), None);
    }
}
