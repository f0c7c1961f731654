//! The plain forest is scikit-learn's `IsolationForest`: by the same trees, and on average.

use serde::Deserialize;
use tidegate_detect::forest::import::ImportedNode;
use tidegate_detect::forest::{Forest, Kind};
use tidegate_detect::table::{Table, TableForest, TableOptions};

/// What `testdata/reference_forest.py` writes.
#[derive(Deserialize)]
struct Reference {
    subsample: usize,
    width: usize,
    /// `[rows]` for a leaf, `[feature, threshold, left, right]` for a split.
    trees: Vec<Vec<Vec<f64>>>,
    train: Vec<Vec<f64>>,
    rows: Vec<Vec<f64>>,
    scores: Vec<f64>,
    mean_scores: Vec<f64>,
}

fn reference() -> Reference {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/reference_forest.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn the_same_trees_give_the_scores_of_scikit_learn() {
    let reference = reference();
    let node = |node: &Vec<f64>| match node[..] {
        [rows] => ImportedNode::Leaf { rows: rows as usize },
        [feature, threshold, left, right] => ImportedNode::Split {
            feature: feature as u32,
            threshold: threshold as f32,
            left: left as usize,
            right: right as usize,
        },
        _ => panic!("neither leaf nor split: {node:?}"),
    };
    let trees: Vec<Vec<_>> = reference
        .trees
        .iter()
        .map(|tree| tree.iter().map(node).collect())
        .collect();
    let forest = Forest::import(reference.subsample, reference.width, &trees).unwrap();
    for (row, expected) in reference.rows.iter().zip(&reference.scores) {
        let row: Vec<f32> = row.iter().map(|&value| value as f32).collect();
        let got = f64::from(forest.score(&row));
        assert!(
            (got - expected).abs() < 1e-5,
            "{row:?}: {got}, expected {expected}"
        );
    }
}

#[test]
fn other_seeds_give_the_same_scores_on_average() {
    let reference = reference();
    let table = |rows: &[Vec<f64>]| Table::new(&rows.concat(), reference.width).unwrap();
    let (train, rows) = (table(&reference.train), table(&reference.rows));
    let mut means = vec![0.0; reference.rows.len()];
    let seeds = 40_u16;
    for seed in 0..seeds {
        let options = TableOptions::new(Kind::Plain, u64::from(seed));
        let scores = TableForest::fit(&train, &options).unwrap().scores(&rows).unwrap();
        for (mean, score) in means.iter_mut().zip(scores) {
            *mean += f64::from(score) / f64::from(seeds);
        }
    }
    // One forest's score of a row varies by about 0.01, so the mean of 40 by 0.0016.
    for (got, expected) in means.iter().zip(&reference.mean_scores) {
        assert!((got - expected).abs() < 0.01, "{got}, expected {expected}");
    }
}
