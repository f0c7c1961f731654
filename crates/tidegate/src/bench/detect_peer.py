"""scikit-learn's IsolationForest, measured as Tidegate's forest is. Prints JSON."""

import json
import pathlib
import sys
import time

import numpy
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score


def speed(rows: int, rounds: int) -> dict[str, list[float]]:
    table = numpy.random.default_rng(0).normal(size=(rows, 10)).astype(numpy.float32)
    batch = table[:100_000]
    measured: dict[str, list[float]] = {"fit_ms": [], "batch_ns": [], "single_ns": []}
    for seed in range(rounds):
        start = time.perf_counter_ns()
        forest = IsolationForest(n_estimators=100, max_samples=256, random_state=seed).fit(table)
        measured["fit_ms"].append((time.perf_counter_ns() - start) / 1e6)
        start = time.perf_counter_ns()
        forest.score_samples(batch)
        measured["batch_ns"].append((time.perf_counter_ns() - start) / len(batch))
        single = []
        for row in range(50):
            start = time.perf_counter_ns()
            forest.score_samples(batch[row : row + 1])
            single.append(time.perf_counter_ns() - start)
        measured["single_ns"].append(float(numpy.median(single)))
    return measured


def tables(folder: str, seeds: int) -> dict[str, list[float]]:
    areas = {}
    for path in sorted(pathlib.Path(folder).glob("*.npz")):
        data = numpy.load(path)
        rows, labels = data["X"], data["y"]
        areas[path.stem] = [
            float(
                roc_auc_score(
                    labels,
                    -IsolationForest(n_estimators=100, max_samples=256, random_state=seed)
                    .fit(rows)
                    .score_samples(rows),
                )
            )
            for seed in range(seeds)
        ]
    return areas


if sys.argv[1] == "speed":
    print(json.dumps(speed(int(sys.argv[2]), int(sys.argv[3]))))
else:
    print(json.dumps(tables(sys.argv[2], int(sys.argv[3]))))
