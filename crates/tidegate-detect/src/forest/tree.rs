//! Isolation trees without pointers: every tree is a full binary tree in one array.
//!
//! The root is node 1, node i has the children 2i and 2i+1, and all trees have the same height, so a
//! walk is a fixed number of steps without a branch to mispredict, and several walks go on side by
//! side. Where a tree ends early, the rest of it is splits that send every row left.

use super::{Rows, average_path_length};
use rand::rngs::StdRng;
use rand::{SeedableRng, seq::index};
use std::fmt;
use std::num::NonZero;

/// Most trees of one forest.
pub const MAX_TREES: usize = 1_000;
/// Most rows that one tree is grown on.
pub const MAX_SUBSAMPLE: usize = 4_096;

/// Walks that go on side by side; the usual 100 trees are a whole number of them.
const LANES: usize = 10;
/// Slots of a tree on 256 rows, by far the most frequent: with a number that the compiler knows,
/// no walk needs a bounds check.
const USUAL: usize = 256;
/// Rows up to this wide are copied to an array of that size, for the same reason.
const NARROW: usize = 32;
/// Rows that are scored tree by tree, so that a tree is in the nearest cache while they pass it.
const BLOCK: usize = 240;
/// Fewest trees that are worth a thread.
const TREES_PER_THREAD: usize = 8;

/// A split of rows in two.
pub trait Split: Copy + fmt::Debug + PartialEq + Send + Sync {
    /// Bytes of one split in a model file.
    const BYTES: usize;
    /// Sends every row left.
    const NONE: Self;

    /// A random split of `members` with rows on both sides; `None` when all are the same.
    /// `features` is every feature once, in an order that the split may change.
    fn draw(rows: Rows<'_>, members: &[u32], features: &mut [u16], random: &mut StdRng) -> Option<Self>;

    /// Whether `row` belongs to the right side, and whether it lies beyond what the node saw by so
    /// much that its path is to count as one shorter.
    /// `value` gives the row's value of a feature.
    fn side(&self, value: impl Fn(usize) -> f32) -> (bool, bool);

    /// Appends exactly [`Self::BYTES`] bytes, little endian.
    fn write(&self, out: &mut Vec<u8>);

    /// `None` when a feature is not below `width` or a number is not finite.
    fn read(bytes: &[u8], width: usize) -> Option<Self>;
}

/// The trees of one forest.
///
/// In a model file, little endian: u32 rows per tree, u32 height h, u32 trees, then tree after tree
/// its 2^h − 1 splits, then tree after tree its 2^h f32 path lengths.
#[derive(Clone, PartialEq)]
pub struct Trees<S> {
    subsample: u32,
    height: u32,
    /// Of each tree 2^height slots, of which the first is none.
    splits: Vec<S>,
    /// Of each tree 2^height path lengths of rows that end there: depth, and c(n) of the rows left
    /// unsplit.
    paths: Vec<f32>,
    /// 1 / (trees × c(subsample)).
    exponent: f32,
}

/// Without the nodes, which are some 50,000.
impl<S> fmt::Debug for Trees<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trees")
            .field("trees", &(self.paths.len() >> self.height))
            .field("subsample", &self.subsample)
            .finish_non_exhaustive()
    }
}

/// One tree while it grows.
pub(super) struct Growing<S> {
    pub(super) height: u32,
    pub(super) splits: Vec<S>,
    pub(super) paths: Vec<f32>,
}

impl<S: Split> Growing<S> {
    pub(super) fn new(height: u32) -> Self {
        Self {
            height,
            splits: vec![S::NONE; 1 << height],
            paths: vec![0.0; 1 << height],
        }
    }

    /// Ends the tree at node `at` of `depth`, where `members` rows are left.
    pub(super) fn end(&mut self, at: usize, depth: u32, members: usize) {
        let below = self.height - depth;
        let first = (at << below) - (1 << self.height);
        let path = depth as f32 + average_path_length(members) as f32;
        self.paths[first..first + (1 << below)].fill(path);
    }

    fn grow(
        &mut self,
        (at, depth): (usize, u32),
        rows: Rows<'_>,
        members: &mut [u32],
        features: &mut [u16],
        random: &mut StdRng,
    ) {
        // Liu et al. 2008: a tree is grown to the height ⌈log2 n⌉, as only short paths matter.
        let split = if members.len() > 1 && depth < self.height {
            S::draw(rows, members, features, random)
        } else {
            None
        };
        let Some(split) = split else {
            self.end(at, depth, members.len());
            return;
        };
        self.splits[at] = split;
        let middle = partition(members, |&row| {
            let row = rows.row(row as usize);
            !split.side(|feature| row[feature]).0
        });
        let (left, right) = members.split_at_mut(middle);
        self.grow((2 * at, depth + 1), rows, left, features, random);
        self.grow((2 * at + 1, depth + 1), rows, right, features, random);
    }
}

impl<S: Split> Trees<S> {
    pub(super) fn grow(rows: Rows<'_>, trees: usize, subsample: usize, seed: u64) -> Self {
        assert!(rows.len() >= 2, "a forest needs at least 2 rows");
        assert!((1..=MAX_TREES).contains(&trees) && (2..=MAX_SUBSAMPLE).contains(&subsample));
        let subsample = subsample.min(rows.len());
        let height = height_for(subsample);
        let mut grown: Vec<Growing<S>> = (0..trees).map(|_| Growing::new(height)).collect();
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let share = trees.div_ceil(cores).max(TREES_PER_THREAD);
        let grow = |first: usize, share: &mut [Growing<S>]| {
            for (number, tree) in (first as u64..).zip(share) {
                grow_tree(tree, rows, subsample, tree_seed(seed, number));
            }
        };
        if trees <= share {
            grow(0, &mut grown);
        } else {
            std::thread::scope(|scope| {
                for (part, trees) in grown.chunks_mut(share).enumerate() {
                    scope.spawn(move || grow(part * share, trees));
                }
            });
        }
        Self::assemble(subsample as u32, height, grown)
    }

    pub(super) fn assemble(subsample: u32, height: u32, trees: Vec<Growing<S>>) -> Self {
        let mut splits = Vec::with_capacity(trees.len() << height);
        let mut paths = Vec::with_capacity(trees.len() << height);
        for tree in &trees {
            splits.extend_from_slice(&tree.splits);
            paths.extend_from_slice(&tree.paths);
        }
        Self::of(subsample, height, splits, paths)
    }

    fn of(subsample: u32, height: u32, splits: Vec<S>, paths: Vec<f32>) -> Self {
        let trees = paths.len() >> height;
        let exponent = 1.0 / (trees as f64 * average_path_length(subsample as usize));
        Self {
            subsample,
            height,
            splits,
            paths,
            exponent: exponent as f32,
        }
    }

    /// Splits and path lengths, tree by tree.
    fn trees(&self) -> impl Iterator<Item = (&[S], &[f32])> {
        let splits = self.splits.chunks_exact(1 << self.height);
        splits.zip(self.paths.chunks_exact(1 << self.height))
    }

    pub(super) fn score(&self, row: &[f32]) -> f32 {
        let total = if let Some(row) = narrow(row) {
            self.total(|feature| row[feature % NARROW])
        } else {
            self.total(|feature| row[feature])
        };
        self.score_of(total)
    }

    /// The sum of path lengths of one row, in the order of the trees.
    #[inline(always)]
    fn total(&self, value: impl Fn(usize) -> f32) -> f32 {
        let mut total = 0.0;
        if 1 << self.height != USUAL {
            for (splits, paths) in self.trees() {
                total += Walk::down(splits, &value).path(paths);
            }
            return total;
        }
        let (splits, _) = self.splits.as_chunks::<USUAL>();
        let (paths, _) = self.paths.as_chunks::<USUAL>();
        let (splits, last_splits) = splits.as_chunks::<LANES>();
        let (paths, last_paths) = paths.as_chunks::<LANES>();
        for (splits, paths) in splits.iter().zip(paths) {
            let mut walks = [Walk::START; LANES];
            for _ in 0..USUAL.ilog2() {
                for (walk, splits) in walks.iter_mut().zip(splits) {
                    walk.step(&splits[walk.at as usize % USUAL], &value);
                }
            }
            for (walk, paths) in walks.iter().zip(paths) {
                total += walk.path(paths);
            }
        }
        for (splits, paths) in last_splits.iter().zip(last_paths) {
            total += Walk::down(splits, &value).path(paths);
        }
        total
    }

    pub(super) fn score_batch(&self, rows: Rows<'_>, scores: &mut [f32]) {
        if 1 << self.height != USUAL || rows.width() > NARROW {
            for (index, score) in scores.iter_mut().enumerate() {
                *score = self.score(rows.row(index));
            }
            return;
        }
        let (splits, _) = self.splits.as_chunks::<USUAL>();
        let (paths, _) = self.paths.as_chunks::<USUAL>();
        let mut groups = [[[0.0; LANES]; NARROW]; BLOCK / LANES];
        for (block, scores) in scores.chunks_mut(BLOCK).enumerate() {
            let first = block * BLOCK;
            for index in 0..scores.len() {
                let group = &mut groups[index / LANES];
                for (values, value) in group.iter_mut().zip(rows.row(first + index)) {
                    values[index % LANES] = *value;
                }
            }
            let mut totals = [0.0; BLOCK];
            let used = scores.len().div_ceil(LANES);
            for (splits, paths) in splits.iter().zip(paths) {
                let (totals, _) = totals.as_chunks_mut::<LANES>();
                for (totals, group) in totals[..used].iter_mut().zip(&groups) {
                    let mut walks = [Walk::START; LANES];
                    for _ in 0..USUAL.ilog2() {
                        for (lane, walk) in walks.iter_mut().enumerate() {
                            let split = &splits[walk.at as usize % USUAL];
                            walk.step(split, |feature| group[feature % NARROW][lane]);
                        }
                    }
                    for (total, walk) in totals.iter_mut().zip(&walks) {
                        *total += walk.path(paths);
                    }
                }
            }
            for (score, total) in scores.iter_mut().zip(totals) {
                *score = self.score_of(total);
            }
        }
    }

    /// s = 2^(−E\[h\]/c(n)), from the sum of all path lengths.
    fn score_of(&self, total: f32) -> f32 {
        (-total * self.exponent).exp2()
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let trees = (self.paths.len() >> self.height) as u32;
        for number in [self.subsample, self.height, trees] {
            out.extend(number.to_le_bytes());
        }
        for (splits, _) in self.trees() {
            for split in &splits[1..] {
                split.write(out);
            }
        }
        for path in &self.paths {
            out.extend(path.to_le_bytes());
        }
    }

    pub(super) fn read(bytes: &[u8], width: usize) -> Option<Self> {
        let (head, rest) = bytes.split_at_checked(12)?;
        let [subsample, height, trees] = [0, 4, 8].map(|at| u32_at(head, at));
        let sound = (2..=MAX_SUBSAMPLE).contains(&(subsample as usize))
            && height == height_for(subsample as usize)
            && (1..=MAX_TREES).contains(&(trees as usize));
        if !sound {
            return None;
        }
        let inner = trees as usize * ((1 << height) - 1);
        let (splits, paths) = rest.split_at_checked(inner * S::BYTES)?;
        if paths.len() != (trees as usize) << (height + 2) {
            return None;
        }
        let mut read = Vec::with_capacity((trees as usize) << height);
        for split in splits.chunks_exact(S::BYTES) {
            if read.len().is_multiple_of(1 << height) {
                read.push(S::NONE);
            }
            read.push(S::read(split, width)?);
        }
        let paths = paths
            .chunks_exact(4)
            .map(|path| finite_at(path, 0))
            .collect::<Option<Vec<_>>>()?;
        Some(Self::of(subsample, height, read, paths))
    }
}

/// A row on its way down one tree.
#[derive(Clone, Copy)]
struct Walk {
    at: u32,
    beyond: u32,
}

impl Walk {
    const START: Self = Self { at: 1, beyond: 0 };

    /// All the way down a tree of any height.
    #[inline(always)]
    fn down<S: Split>(splits: &[S], value: impl Fn(usize) -> f32) -> Self {
        let mut walk = Self::START;
        while let Some(split) = splits.get(walk.at as usize) {
            walk.step(split, &value);
        }
        walk
    }

    #[inline(always)]
    fn step<S: Split>(&mut self, split: &S, value: impl Fn(usize) -> f32) {
        let (right, beyond) = split.side(value);
        self.at = 2 * self.at + u32::from(right);
        self.beyond += u32::from(beyond);
    }

    /// The length of the path that it went.
    #[inline(always)]
    fn path(&self, paths: &[f32]) -> f32 {
        paths[self.at as usize % paths.len()] - self.beyond as f32
    }
}

/// A row that is narrow enough, in an array of fixed size.
fn narrow(row: &[f32]) -> Option<[f32; NARROW]> {
    let mut values = [0.0; NARROW];
    values.get_mut(..row.len())?.copy_from_slice(row);
    Some(values)
}

/// Levels of splits for trees on `subsample` rows: ⌈log2 `subsample`⌉.
pub(super) fn height_for(subsample: usize) -> u32 {
    usize::BITS - (subsample - 1).leading_zeros()
}

/// A seed of its own for each tree (the finaliser of SplitMix64), so that it does not matter how
/// trees are spread over threads.
fn tree_seed(seed: u64, tree: u64) -> u64 {
    let mut mixed = seed.wrapping_add((tree + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Grows one tree on rows drawn without replacement, copied to lie side by side.
fn grow_tree<S: Split>(tree: &mut Growing<S>, rows: Rows<'_>, subsample: usize, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut values = Vec::with_capacity(subsample * rows.width());
    for row in index::sample(&mut random, rows.len(), subsample) {
        values.extend_from_slice(rows.row(row));
    }
    let mut members: Vec<u32> = (0..subsample as u32).collect();
    let mut features: Vec<u16> = (0..rows.width() as u16).collect();
    let rows = Rows::new(&values, rows.width());
    tree.grow((1, 0), rows, &mut members, &mut features, &mut random);
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

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
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
    use super::super::oblique::ObliqueSplit;
    use super::*;

    fn values() -> Vec<f32> {
        (0..640).map(|i| (i * 37 % 641) as f32).collect()
    }

    fn forest<S: Split>() -> Trees<S> {
        Trees::grow(Rows::new(&values(), 2), 19, 16, 1)
    }

    fn check_batch<S: Split>(width: usize, subsample: usize) {
        let values: Vec<f32> = (0..640 * width).map(|i| (i * 37 % 641) as f32).collect();
        let rows = Rows::new(&values, width);
        let forest = Trees::<S>::grow(rows, 19, subsample, 1);
        let mut scores = vec![0.0; rows.len()];
        forest.score_batch(rows, &mut scores);
        for (row, score) in scores.iter().enumerate() {
            assert_eq!(
                forest.score(rows.row(row)).to_bits(),
                score.to_bits(),
                "row {row}"
            );
            let paths = forest
                .trees()
                .map(|(splits, paths)| Walk::down(splits, |feature| rows.row(row)[feature]).path(paths));
            assert_eq!(
                forest.score_of(paths.sum()).to_bits(),
                score.to_bits(),
                "row {row}"
            );
        }
    }

    fn check_bytes<S: Split>() {
        let mut bytes = Vec::new();
        forest::<S>().write(&mut bytes);
        assert_eq!(Trees::<S>::read(&bytes, 2), Some(forest()));
    }

    #[test]
    fn bytes_lead_back_to_the_same_trees() {
        check_bytes::<AxisSplit>();
        check_bytes::<ObliqueSplit>();
    }

    #[test]
    fn a_batch_scores_as_its_rows_do_one_by_one() {
        for (width, subsample) in [(2, 16), (5, 256), (32, 200), (33, 256)] {
            check_batch::<AxisSplit>(width, subsample);
            check_batch::<ObliqueSplit>(width, subsample);
        }
    }

    #[test]
    fn trees_that_no_growing_makes_are_refused() {
        let mut bytes = Vec::new();
        forest::<AxisSplit>().write(&mut bytes);
        let with = |at: usize, number: u32| {
            let mut changed = bytes.clone();
            changed[at..at + 4].copy_from_slice(&number.to_le_bytes());
            Trees::<AxisSplit>::read(&changed, 2)
        };
        let last = bytes.len() - 4;
        assert!(with(0, 1).is_none(), "trees of one row");
        assert!(with(0, 17).is_none(), "a height that is not of that many rows");
        assert!(with(4, 40).is_none(), "a height beyond the file");
        assert!(with(8, 0).is_none(), "no tree");
        assert!(with(8, 1_000).is_none(), "more trees than the file has");
        assert!(with(12, 2).is_none(), "a feature that rows do not have");
        assert!(
            with(last, f32::NAN.to_bits()).is_none(),
            "a path that is no number"
        );
        assert!(
            Trees::<AxisSplit>::read(&bytes[..bytes.len() - 1], 2).is_none(),
            "a byte short"
        );
    }
}
