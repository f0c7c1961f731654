"""Anomaly scores of a file, as `tidegate detect score` writes them, to set beside other detectors.

The result is an ``array`` of doubles, which NumPy takes without a copy: ``numpy.asarray(scores)``.
Scores are above 0, and higher is more anomalous; scikit-learn's ``score_samples`` has the other sign.
"""

import os
import subprocess
import sys
import tempfile
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

NUMBER_BYTES = 8


class ScoreError(Exception):
    """The program could not score the file; the text is what it said."""


def read(path: str | os.PathLike[str]) -> "array[float]":
    """The scores in a file of little-endian doubles, one a row."""
    data = Path(path).read_bytes()
    if len(data) % NUMBER_BYTES:
        raise ValueError(f"{os.fspath(path)} has {len(data)} bytes, no whole number of doubles")
    scores = array("d", data)
    if sys.byteorder == "big":
        scores.byteswap()
    return scores


def score(  # noqa: PLR0913, one parameter an option of the program
    file: str | os.PathLike[str],
    *,
    fit_rows: tuple[int, int] | None = None,
    columns: Sequence[str] | None = None,
    forest: Literal["plain", "oblique"] = "oblique",
    features: Literal["stream", "raw"] = "stream",
    seed: int | None = None,
    program: str = "tidegate",
) -> "array[float]":
    """Fits on ``fit_rows`` (from the first to before the second, all without it), and scores every row.

    ``file`` is a CSV file, gzipped or not, or with raw features an ``.npz`` file that holds ``X``.
    """
    with tempfile.TemporaryDirectory() as folder:
        scores = Path(folder, "scores")
        command = [program, "detect", "score", os.fspath(file), "--scores", str(scores)]
        command += ["--forest", forest, "--features", features]
        if fit_rows is not None:
            command += ["--fit-rows", f"{fit_rows[0]}..{fit_rows[1]}"]
        if columns is not None:
            command += ["--columns", ",".join(columns)]
        if seed is not None:
            command += ["--seed", str(seed)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603, no shell
        if ended.returncode != 0:
            raise ScoreError(ended.stderr.strip())
        return read(scores)
