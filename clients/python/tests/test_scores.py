"""Scores by the real binary, and beside scikit-learn's of the same table."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

from tidegate import scores

BINARY = os.environ.get("TIDEGATE_BIN", "tidegate")
EXAMPLE = Path(__file__).parents[1] / "examples" / "compare_with_scikit_learn.py"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """500 rows around 0 and 25 far from it, in six columns."""
    random = numpy.random.default_rng(7)
    ordinary = random.normal(size=(500, 6))
    anomalous = random.normal(loc=2.5, scale=2.0, size=(25, 6))
    labels = numpy.repeat([0, 1], [500, 25])
    path = tmp_path / "table.npz"
    numpy.savez_compressed(path, X=numpy.vstack([ordinary, anomalous]), y=labels)
    return path


def test_outlier_of_a_csv_file_has_the_highest_score(tmp_path: Path) -> None:
    path = tmp_path / "levels.csv"
    rows = [f"{row % 17},{row % 13}" for row in range(400)]
    path.write_text("\n".join(["level,flow", *rows, "90,80", ""]))
    scored = scores.score(path, features="raw", fit_rows=(0, 400), program=BINARY)
    assert len(scored) == 401
    assert max(scored) == scored[400]
    assert scored == scores.score(path, features="raw", fit_rows=(0, 400), program=BINARY)
    alone = scores.score(path, features="raw", columns=["flow"], seed=3, forest="plain", program=BINARY)
    assert alone != scored


def test_refused_file_gives_the_words_of_the_program(tmp_path: Path) -> None:
    path = tmp_path / "levels.csv"
    path.write_text("level\n1\nhigh\n")
    with pytest.raises(scores.ScoreError, match="row 1: column level: `high`"):
        scores.score(path, features="raw", program=BINARY)


def test_file_of_half_a_number_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scores"
    path.write_bytes(bytes(12))
    with pytest.raises(ValueError, match="12 bytes"):
        scores.read(path)


def test_plain_forest_agrees_with_scikit_learn(table: Path) -> None:
    command = [sys.executable, str(EXAMPLE), str(table), "--program", BINARY, "--seeds", "5"]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    areas = report["area_under_roc"]
    assert abs(areas["plain"] - areas["scikit_learn"]) < 0.02
    assert report["rank_correlation_plain"] > 0.97
    assert report["largest_difference_plain"] < 0.05
    assert areas["oblique"] > 0.9
