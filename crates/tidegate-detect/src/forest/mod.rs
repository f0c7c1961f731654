//! The isolation forest: anomalies are separated by few random splits (Liu, Ting, Zhou 2008).
//!
//! Score of a row: s = 2^(−E\[h\]/c(n)), with h the path length in one tree and c(n) the mean path
//! length of an unsuccessful search in a binary search tree of n rows; near 1 for an anomaly,
//! below 0.5 for the ordinary.

pub mod axis;
pub mod import;
pub mod oblique;
mod tree;

pub use tree::{MAX_SUBSAMPLE, MAX_TREES, Trees};

use axis::AxisSplit;
use oblique::ObliqueSplit;
use serde::{Deserialize, Serialize};

/// Euler's constant, for the harmonic numbers in c(n).
const EULER: f64 = 0.577_215_664_901_532_9;

/// Most features of a row.
pub const MAX_WIDTH: usize = 4_096;

/// How a forest splits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One feature per split, as first published.
    Plain,
    /// Three features per split (Hariri et al. 2019), with a penalty for values beyond the range
    /// that a node saw; it keeps growing outside the training data, where `Plain` saturates.
    Oblique,
}

/// `n` rows of `width` features, row after row, every number finite.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    values: &'a [f32],
    width: usize,
}

impl<'a> Rows<'a> {
    /// # Panics
    ///
    /// When `values` is not a whole number of rows, or `width` is not 1 to [`MAX_WIDTH`].
    #[must_use]
    pub fn new(values: &'a [f32], width: usize) -> Self {
        assert!(
            (1..=MAX_WIDTH).contains(&width) && values.len().is_multiple_of(width),
            "rows must be whole, and at most {MAX_WIDTH} wide"
        );
        Self { values, width }
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len() / self.width
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// How many features a row has.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// One row.
    #[must_use]
    pub fn row(&self, index: usize) -> &'a [f32] {
        &self.values[index * self.width..(index + 1) * self.width]
    }
}

/// A grown forest of either kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Forest {
    /// See [`Kind::Plain`].
    Plain(Trees<AxisSplit>),
    /// See [`Kind::Oblique`].
    Oblique(Trees<ObliqueSplit>),
}

impl Forest {
    /// Grows `trees` trees on `subsample` rows each (fewer where there are fewer), drawn without
    /// replacement. The same rows, numbers and seed give the same forest.
    ///
    /// # Panics
    ///
    /// When there are fewer than 2 rows, or `trees` or `subsample` is outside 1 to [`MAX_TREES`]
    /// or 2 to [`MAX_SUBSAMPLE`].
    #[must_use]
    pub fn grow(kind: Kind, rows: Rows<'_>, trees: usize, subsample: usize, seed: u64) -> Self {
        match kind {
            Kind::Plain => Self::Plain(Trees::grow(rows, trees, subsample, seed)),
            Kind::Oblique => Self::Oblique(Trees::grow(rows, trees, subsample, seed)),
        }
    }

    /// The anomaly score of `row`, above 0 to 1: higher is more anomalous.
    ///
    /// # Panics
    ///
    /// When `row` is narrower than the rows that the forest was grown on.
    #[must_use]
    pub fn score(&self, row: &[f32]) -> f32 {
        match self {
            Self::Plain(trees) => trees.score(row),
            Self::Oblique(trees) => trees.score(row),
        }
    }

    /// The anomaly score of each of `rows`, written to `scores`.
    ///
    /// # Panics
    ///
    /// When `scores` is not as long as `rows`, or rows are narrower than those grown on.
    pub fn score_batch(&self, rows: Rows<'_>, scores: &mut [f32]) {
        assert_eq!(rows.len(), scores.len(), "a score per row");
        match self {
            Self::Plain(trees) => trees.score_batch(rows, scores),
            Self::Oblique(trees) => trees.score_batch(rows, scores),
        }
    }

    /// How it splits.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Plain(_) => Kind::Plain,
            Self::Oblique(_) => Kind::Oblique,
        }
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Plain(trees) => trees.write(out),
            Self::Oblique(trees) => trees.write(out),
        }
    }

    /// `None` unless `bytes` are exactly one well-formed forest over `width` features.
    pub(crate) fn read(kind: Kind, bytes: &[u8], width: usize) -> Option<Self> {
        match kind {
            Kind::Plain => Trees::read(bytes, width).map(Self::Plain),
            Kind::Oblique => Trees::read(bytes, width).map(Self::Oblique),
        }
    }
}

/// c(n) of Liu et al. 2008, equation 1: 2·H(n−1) − 2(n−1)/n with H(i) ≈ ln i + 0.5772.
#[must_use]
pub fn average_path_length(rows: usize) -> f64 {
    match rows {
        0 | 1 => 0.0,
        2 => 1.0,
        n => {
            let n = n as f64;
            2.0 * ((n - 1.0).ln() + EULER) - 2.0 * (n - 1.0) / n
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    /// A ball of ordinary rows around 0 in 4 dimensions, spread about 0.6.
    fn ball(rows: usize, seed: u64) -> Vec<f32> {
        let mut random = StdRng::seed_from_u64(seed);
        (0..rows * 4)
            .map(|_| random.random_range(-1.0_f32..1.0))
            .collect()
    }

    #[test]
    fn average_path_length_is_as_published() {
        // By hand: 2(ln 4 + γ) − 8/5, 2(ln 255 + γ) − 510/256, 2(ln 998 + γ) − 1996/999.
        for (rows, expected) in [
            (0, 0.0),
            (1, 0.0),
            (2, 1.0),
            (5, 2.327_020_052),
            (999, 12.967_939_884),
        ] {
            let got = average_path_length(rows);
            assert!(
                (got - expected).abs() < 1e-6,
                "c({rows}) = {got}, expected {expected}"
            );
        }
    }

    #[test]
    fn score_of_two_rows_is_a_half() {
        // Two rows are split at depth 1, so E[h] = c(2) = 1 and s = 2^-1 whatever the split.
        let values = [0.0, 1.0];
        for kind in [Kind::Plain, Kind::Oblique] {
            let forest = Forest::grow(kind, Rows::new(&values, 1), 10, 256, 1);
            assert!((forest.score(&[0.0]) - 0.5).abs() < 1e-6, "{kind:?}");
        }
    }

    #[test]
    fn identical_rows_cannot_be_split_and_score_a_half() {
        // One leaf: E[h] = c(n), so s = 2^-1.
        let values = [3.0_f32; 400];
        for kind in [Kind::Plain, Kind::Oblique] {
            let forest = Forest::grow(kind, Rows::new(&values, 4), 5, 64, 1);
            assert!((forest.score(&[3.0; 4]) - 0.5).abs() < 1e-6, "{kind:?}");
        }
    }

    #[test]
    fn outliers_score_above_the_ordinary() {
        let values = ball(2_000, 7);
        for kind in [Kind::Plain, Kind::Oblique] {
            let forest = Forest::grow(kind, Rows::new(&values, 4), 100, 256, 1);
            let ordinary = forest.score(&[0.0; 4]);
            let outlier = forest.score(&[4.0; 4]);
            assert!(
                ordinary < 0.5 && outlier > 0.6,
                "{kind:?}: {ordinary} and {outlier}"
            );
        }
    }

    #[test]
    fn plain_saturates_outside_the_training_range_and_oblique_does_not() {
        let values = ball(2_000, 7);
        let rise = |kind| {
            let forest = Forest::grow(kind, Rows::new(&values, 4), 100, 256, 1);
            forest.score(&[50.0, 0.0, 0.0, 0.0]) - forest.score(&[1.05, 0.0, 0.0, 0.0])
        };
        assert!(rise(Kind::Plain).abs() < 1e-6);
        assert!(rise(Kind::Oblique) > 0.1);
    }

    #[test]
    fn the_seed_alone_decides_the_forest() {
        let values = ball(1_000, 3);
        for kind in [Kind::Plain, Kind::Oblique] {
            let grow = |seed| Forest::grow(kind, Rows::new(&values, 4), 10, 128, seed);
            assert_eq!(grow(5), grow(5), "{kind:?}");
            assert_ne!(grow(5), grow(6), "{kind:?}");
        }
    }
}
