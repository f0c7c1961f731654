"""Tidegate's forest beside scikit-learn's on the same table.

usage: compare_with_scikit_learn.py FILE.npz [--program tidegate] [--seeds 5]

FILE.npz holds X (rows x columns) and y (1 is an anomaly). Prints the area under the ROC curve of each, the
mean over seeds, and the rank correlation of their scores. Needs numpy, scipy and scikit-learn.
"""

import argparse
import json

import numpy
from scipy.stats import spearmanr
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score

from tidegate import scores


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("--program", default="tidegate")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    data = numpy.load(options.file)
    rows, labels = data["X"], data["y"]

    def peer(seed: int) -> numpy.ndarray:
        forest = IsolationForest(n_estimators=100, max_samples=256, random_state=seed)
        return -forest.fit(rows).score_samples(rows)

    def ours(forest: str, seed: int) -> numpy.ndarray:
        return numpy.asarray(
            scores.score(options.file, forest=forest, features="raw", seed=seed, program=options.program)
        )

    seeds = range(options.seeds)
    found = {
        "scikit_learn": numpy.array([peer(seed) for seed in seeds]),
        "plain": numpy.array([ours("plain", seed) for seed in seeds]),
        "oblique": numpy.array([ours("oblique", seed) for seed in seeds]),
    }
    mean = {name: of_seeds.mean(axis=0) for name, of_seeds in found.items()}
    areas = {
        name: float(numpy.mean([roc_auc_score(labels, one) for one in of_seeds]))
        for name, of_seeds in found.items()
    }
    report = {
        "rows": len(rows),
        "area_under_roc": areas,
        "rank_correlation_plain": float(spearmanr(mean["plain"], mean["scikit_learn"]).statistic),
        "largest_difference_plain": float(numpy.abs(mean["plain"] - mean["scikit_learn"]).max()),
    }
    print(json.dumps(report, indent=1))


main()
