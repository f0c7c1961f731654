"""Writes reference_forest.json: trees that scikit-learn grew, rows, its scores of them by these
trees, and its mean scores over forests of 40 seeds.

usage: python reference_forest.py > reference_forest.json        (needs scikit-learn and numpy)

The scores are -IsolationForest.score_samples: higher is more anomalous.
"""

import json

import numpy as np
import sklearn
from sklearn.ensemble import IsolationForest

WIDTH = 4
random = np.random.default_rng(7)
train = random.normal(size=(300, WIDTH)).round(3).astype(np.float32)
train[:, 3] = np.round(train[:, 3])
rows = np.concatenate([train[:20], random.normal(scale=3, size=(20, WIDTH)).round(3).astype(np.float32)])

forest = IsolationForest(n_estimators=12, max_samples=64, random_state=7).fit(train)
trees = []
for estimator in forest.estimators_:
    tree = estimator.tree_
    trees.append(
        [
            [int(tree.n_node_samples[node])]
            if tree.children_left[node] < 0
            else [
                int(tree.feature[node]),
                float(np.float32(tree.threshold[node])),
                int(tree.children_left[node]),
                int(tree.children_right[node]),
            ]
            for node in range(tree.node_count)
        ]
    )
# A threshold is rounded to f32 here; no row may lie between it and the original.
for estimator in forest.estimators_:
    tree = estimator.tree_
    for node in np.flatnonzero(tree.children_left >= 0):
        values = rows[:, tree.feature[node]]
        exact, rounded = tree.threshold[node], np.float32(tree.threshold[node])
        assert ((values <= exact) == (values <= rounded)).all()

# Forests of other seeds: what any right forest gives on average.
seeds = [IsolationForest(max_samples=256, random_state=seed).fit(train) for seed in range(40)]
means = np.mean([-other.score_samples(rows) for other in seeds], axis=0)

print(
    json.dumps(
        {
            "scikit_learn": sklearn.__version__,
            "subsample": 64,
            "width": WIDTH,
            "trees": trees,
            "train": train.astype(float).round(3).tolist(),
            "rows": rows.astype(float).round(3).tolist(),
            "scores": (-forest.score_samples(rows)).tolist(),
            "mean_scores": means.tolist(),
        },
        separators=(",", ":"),
    )
)
