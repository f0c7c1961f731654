//! Plain trees that somebody else grew, as scikit-learn's: to check scores by the same trees.

use super::Forest;
use super::axis::AxisSplit;
use super::tree::{Growing, MAX_SUBSAMPLE, MAX_TREES, Trees, height_for};

/// One node of a foreign tree.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ImportedNode {
    /// `row[feature] > threshold` goes to `right`; both are positions in the same list.
    Split {
        /// The feature.
        feature: u32,
        /// The threshold.
        threshold: f32,
        /// Position of the child for what is not above it.
        left: usize,
        /// Position of the other child.
        right: usize,
    },
    /// An end, with how many rows of training came here.
    Leaf {
        /// How many rows.
        rows: usize,
    },
}

/// Why foreign trees cannot be taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// No tree, too many, or an impossible number of rows.
    #[error("{trees} trees on {subsample} rows: at most {MAX_TREES} trees on 2 to {MAX_SUBSAMPLE} rows")]
    Size {
        /// How many trees.
        trees: usize,
        /// Rows per tree.
        subsample: usize,
    },
    /// A child that is not in the list, or a tree higher than ⌈log2 rows⌉.
    #[error("tree {tree} has a child outside it, or is higher than its rows allow")]
    Shape {
        /// Which tree, from 0.
        tree: usize,
    },
    /// A feature that rows of this width do not have, or a threshold that is not finite.
    #[error("tree {tree} splits by what rows do not have")]
    Split {
        /// Which tree, from 0.
        tree: usize,
    },
}

impl Forest {
    /// A plain forest of foreign `trees`, each a list of nodes with the root first, grown on
    /// `subsample` rows of `width` features.
    ///
    /// # Errors
    ///
    /// See [`ImportError`].
    pub fn import(subsample: usize, width: usize, trees: &[Vec<ImportedNode>]) -> Result<Self, ImportError> {
        let sizes = (1..=MAX_TREES).contains(&trees.len()) && (2..=MAX_SUBSAMPLE).contains(&subsample);
        if !sizes {
            return Err(ImportError::Size {
                trees: trees.len(),
                subsample,
            });
        }
        let height = height_for(subsample);
        let mut grown = Vec::with_capacity(trees.len());
        for (tree, nodes) in trees.iter().enumerate() {
            let mut growing = Growing::new(height);
            // At most 2^height paths, as none is longer than the height.
            let mut open = vec![(0, 1, 0)];
            while let Some((position, at, depth)) = open.pop() {
                match nodes.get(position).ok_or(ImportError::Shape { tree })? {
                    ImportedNode::Leaf { rows } => growing.end(at, depth, *rows),
                    ImportedNode::Split { .. } if depth == height => {
                        return Err(ImportError::Shape { tree });
                    }
                    ImportedNode::Split {
                        feature,
                        threshold,
                        left,
                        right,
                    } => {
                        if *feature as usize >= width || !threshold.is_finite() {
                            return Err(ImportError::Split { tree });
                        }
                        growing.splits[at] = AxisSplit::new(*feature, *threshold);
                        open.push((*left, 2 * at, depth + 1));
                        open.push((*right, 2 * at + 1, depth + 1));
                    }
                }
            }
            grown.push(growing);
        }
        Ok(Self::Plain(Trees::assemble(subsample as u32, height, grown)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(feature: u32, threshold: f32, left: usize, right: usize) -> ImportedNode {
        ImportedNode::Split {
            feature,
            threshold,
            left,
            right,
        }
    }

    #[test]
    fn a_row_takes_the_path_that_the_nodes_say() {
        let leaf = ImportedNode::Leaf { rows: 1 };
        let pair = ImportedNode::Leaf { rows: 2 };
        let tree = vec![split(0, 1.0, 1, 2), pair, split(1, 5.0, 3, 4), leaf, leaf];
        let forest = Forest::import(4, 2, &[tree]).unwrap();
        let c4 = super::super::average_path_length(4);
        for (row, path) in [([1.0, 9.0], 2.0), ([1.1, 5.0], 2.0), ([2.0, 5.1], 2.0)] {
            let expected = (-path / c4).exp2() as f32;
            assert!((forest.score(&row) - expected).abs() < 1e-6, "{row:?}");
        }
    }

    #[test]
    fn trees_that_are_none_are_refused() {
        let leaf = ImportedNode::Leaf { rows: 1 };
        let check = |tree: Vec<ImportedNode>| Forest::import(2, 1, &[tree]).err();
        assert_eq!(check(vec![split(0, 1.0, 1, 2), leaf, leaf]), None);
        assert_eq!(
            check(vec![split(0, 1.0, 1, 3), leaf, leaf]),
            Some(ImportError::Shape { tree: 0 })
        );
        assert_eq!(
            check(vec![split(0, 1.0, 0, 0)]),
            Some(ImportError::Shape { tree: 0 })
        );
        assert_eq!(
            check(vec![split(1, 1.0, 1, 2), leaf, leaf]),
            Some(ImportError::Split { tree: 0 })
        );
        assert!(matches!(Forest::import(2, 1, &[]), Err(ImportError::Size { .. })));
    }
}
