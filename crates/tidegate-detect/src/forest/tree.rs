//! Isolation trees in one flat array, for any kind of split.

use super::{Rows, average_path_length};
use rand::rngs::StdRng;
use rand::{SeedableRng, seq::index};

/// Most trees of one forest.
pub const MAX_TREES: usize = 1_000;
/// Most rows that one tree is grown on.
pub const MAX_SUBSAMPLE: usize = 4_096;

/// A split of rows in two.
pub trait Split: Copy + std::fmt::Debug + PartialEq {
    /// Bytes of one split in a model file.
    const BYTES: usize;

    /// A random split of `members` with rows on both sides; `None` when all are the same.
    fn draw(rows: Rows<'_>, members: &[u32], random: &mut StdRng) -> Option<Self>;

    /// Whether `row` belongs to the right side, and whether it lies beyond what the node saw by so
    /// much that its path is to count as one shorter.
    fn side(&self, row: &[f32]) -> (bool, bool);

    /// The split of a leaf, which is never asked.
    fn none() -> Self;

    /// Appends exactly [`Self::BYTES`] bytes, little endian.
    fn write(&self, out: &mut Vec<u8>);

    /// `None` when a feature is not below `width` or a number is not finite.
    fn read(bytes: &[u8], width: usize) -> Option<Self>;
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Node<S> {
    split: S,
    /// The left child, the right one being next to it; 0 for a leaf, as the root is no child.
    left: u32,
    /// Path length of a row that ends here: depth, and c(n) of the rows left unsplit.
    path: f32,
}

/// The trees of one forest.
///
/// In a model file, little endian: u32 rows per tree, u32 trees, u32 nodes, the u32 root of each
/// tree, then per node u32 left child, f32 path length, and the split.
#[derive(Debug, Clone, PartialEq)]
pub struct Trees<S> {
    subsample: u32,
    roots: Vec<u32>,
    nodes: Vec<Node<S>>,
    /// 1 / (trees × c(subsample)).
    exponent: f32,
}

impl<S: Split> Trees<S> {
    pub(super) fn grow(rows: Rows<'_>, trees: usize, subsample: usize, seed: u64) -> Self {
        assert!(rows.len() >= 2, "a forest needs at least 2 rows");
        assert!((1..=MAX_TREES).contains(&trees) && (2..=MAX_SUBSAMPLE).contains(&subsample));
        let subsample = subsample.min(rows.len());
        // Liu et al. 2008: a tree is grown to the height ⌈log2 n⌉, as only short paths matter.
        let height = usize::BITS - (subsample - 1).leading_zeros();
        let mut random = StdRng::seed_from_u64(seed);
        let mut nodes = Vec::new();
        let roots = (0..trees)
            .map(|_| {
                let mut members: Vec<u32> = index::sample(&mut random, rows.len(), subsample)
                    .iter()
                    .map(|i| i as u32)
                    .collect();
                let root = nodes.len() as u32;
                nodes.push(Node {
                    split: S::none(),
                    left: 0,
                    path: 0.0,
                });
                grow_node(
                    &mut nodes,
                    root as usize,
                    rows,
                    &mut members,
                    (0, height),
                    &mut random,
                );
                root
            })
            .collect();
        Self::assemble(subsample as u32, roots, nodes)
    }

    fn assemble(subsample: u32, roots: Vec<u32>, nodes: Vec<Node<S>>) -> Self {
        let exponent = 1.0 / (roots.len() as f64 * average_path_length(subsample as usize));
        Self {
            subsample,
            roots,
            nodes,
            exponent: exponent as f32,
        }
    }

    pub(super) fn score(&self, row: &[f32]) -> f32 {
        let total: f32 = self.roots.iter().map(|&root| self.path(root, row)).sum();
        (-total * self.exponent).exp2()
    }

    fn path(&self, root: u32, row: &[f32]) -> f32 {
        let mut node = &self.nodes[root as usize];
        let mut beyond = 0_u32;
        while node.left != 0 {
            let (right, outside) = node.split.side(row);
            beyond += u32::from(outside);
            node = &self.nodes[(node.left + u32::from(right)) as usize];
        }
        node.path - beyond as f32
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for number in [self.subsample, self.roots.len() as u32, self.nodes.len() as u32] {
            out.extend(number.to_le_bytes());
        }
        for root in &self.roots {
            out.extend(root.to_le_bytes());
        }
        for node in &self.nodes {
            out.extend(node.left.to_le_bytes());
            out.extend(node.path.to_le_bytes());
            node.split.write(out);
        }
    }

    pub(super) fn read(bytes: &[u8], width: usize) -> Option<Self> {
        let (head, rest) = bytes.split_at_checked(12)?;
        let [subsample, trees, count] = [0, 4, 8].map(|at| u32_at(head, at));
        let sound = (2..=MAX_SUBSAMPLE).contains(&(subsample as usize))
            && (1..=MAX_TREES).contains(&(trees as usize));
        if !sound {
            return None;
        }
        let (roots, rest) = rest.split_at_checked(trees as usize * 4)?;
        let size = 8 + S::BYTES;
        if rest.len() != (count as usize).checked_mul(size)? {
            return None;
        }
        let roots: Vec<u32> = roots.chunks_exact(4).map(|root| u32_at(root, 0)).collect();
        if roots.iter().any(|&root| root >= count) {
            return None;
        }
        let mut nodes = Vec::with_capacity(count as usize);
        for (index, record) in rest.chunks_exact(size).enumerate() {
            let (left, path) = (u32_at(record, 0), f32::from_bits(u32_at(record, 4)));
            // A child after its parent keeps every walk finite.
            let ordered = left == 0 || (left as usize > index && left < count - 1);
            if !ordered || !path.is_finite() {
                return None;
            }
            nodes.push(Node {
                split: S::read(&record[8..], width)?,
                left,
                path,
            });
        }
        Some(Self::assemble(subsample, roots, nodes))
    }
}

fn grow_node<S: Split>(
    nodes: &mut Vec<Node<S>>,
    at: usize,
    rows: Rows<'_>,
    members: &mut [u32],
    (depth, height): (u32, u32),
    random: &mut StdRng,
) {
    let split = if members.len() > 1 && depth < height {
        S::draw(rows, members, random)
    } else {
        None
    };
    let Some(split) = split else {
        nodes[at].path = depth as f32 + average_path_length(members.len()) as f32;
        return;
    };
    let left = nodes.len();
    let empty = Node {
        split: S::none(),
        left: 0,
        path: 0.0,
    };
    nodes.extend([empty, empty]);
    nodes[at] = Node {
        split,
        left: left as u32,
        path: 0.0,
    };
    let middle = partition(members, |&row| !split.side(rows.row(row as usize)).0);
    let (first, second) = members.split_at_mut(middle);
    grow_node(nodes, left, rows, first, (depth + 1, height), random);
    grow_node(nodes, left + 1, rows, second, (depth + 1, height), random);
}

/// Moves the members that `first` holds for to the front; answers how many they are.
fn partition(members: &mut [u32], first: impl Fn(&u32) -> bool) -> usize {
    let mut middle = 0;
    for index in 0..members.len() {
        if first(&members[index]) {
            members.swap(index, middle);
            middle += 1;
        }
    }
    middle
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(super) fn finite_at(bytes: &[u8], at: usize) -> Option<f32> {
    Some(f32::from_bits(u32_at(bytes, at))).filter(|number| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::super::axis::AxisSplit;
    use super::*;

    fn forest() -> Trees<AxisSplit> {
        let values: Vec<f32> = (0..64).map(|i| (i * 37 % 64) as f32).collect();
        Trees::grow(Rows::new(&values, 2), 3, 16, 1)
    }

    #[test]
    fn bytes_lead_back_to_the_same_trees() {
        let mut bytes = Vec::new();
        forest().write(&mut bytes);
        assert_eq!(Trees::<AxisSplit>::read(&bytes, 2), Some(forest()));
    }

    #[test]
    fn trees_that_would_loop_or_leave_the_array_are_refused() {
        let mut bytes = Vec::new();
        forest().write(&mut bytes);
        let first_node = 12 + 3 * 4;
        let second_node = first_node + 8 + AxisSplit::BYTES;
        let with = |at: usize, number: u32| {
            let mut changed = bytes.clone();
            changed[at..at + 4].copy_from_slice(&number.to_le_bytes());
            Trees::<AxisSplit>::read(&changed, 2)
        };
        assert!(with(second_node, 1).is_none(), "a node that is its own child");
        assert!(with(first_node, u32::MAX).is_none(), "a child outside the array");
        assert!(with(12, u32::MAX).is_none(), "a root outside the array");
        assert!(
            with(first_node + 4, f32::NAN.to_bits()).is_none(),
            "a path that is no number"
        );
        assert!(
            with(first_node + 8, 2).is_none(),
            "a feature that rows do not have"
        );
        assert!(
            Trees::<AxisSplit>::read(&bytes[..bytes.len() - 1], 2).is_none(),
            "a byte short"
        );
    }
}
