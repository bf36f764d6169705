"""What the poster printed (its Figure 4), and what its authors' notebooks say of every epoch.

"Benchmarking Differentially Private Residual Networks for Medical Imagery", arXiv 2005.13099.
``authors_curves.csv`` is read from the outputs saved in the authors' public notebooks (repository
sahibsin/DP_DeepLearning_Pneumonia).
"""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

_ROUNDING = 1.01e-4  # both sources have four digits, cut or rounded
BETAS = (1.0, 2.0, 4.0)
# Share of the largest class of the authors' images.
TRAIN_MAJORITY = {"chest_xray": 3875 / 5216, "aptos": 1444 / 2929}
TEST_MAJORITY = {"chest_xray": 390 / 624, "aptos": 361 / 733}

Key = tuple[str, str, float | None]  # data set, mechanism, β or None


@dataclass(frozen=True)
class Published:
    """One cell of the poster's Figure 4, on one split.

    Attributes:
        accuracy: as printed, in [0, 1].
        curve: the authors' accuracy after each epoch.
    """

    accuracy: float
    curve: tuple[float, ...]

    @property
    def last(self) -> float:
        """Accuracy of the authors' last epoch: what nobody picked."""
        return self.curve[-1]

    @property
    def epoch(self) -> Literal["last", "best", "another"]:
        """Which epoch the printed number is: the last, or the best of all, or some other."""
        if abs(self.accuracy - self.last) < _ROUNDING:
            return "last"
        return "best" if abs(self.accuracy - max(self.curve)) < _ROUNDING else "another"


@cache
def published() -> dict[tuple[str, str, float | None, str], Published]:
    """(data set, mechanism, β or None, split) to what was published of it."""
    curves: dict[tuple[str, str, float | None, str], list[float]] = defaultdict(list)
    for row in _rows("authors_curves.csv"):
        for split in ("train", "test"):
            curves[(*_key(row), split)].append(float(row[f"{split}_accuracy"]))
    return {
        (*_key(row), row["split"]): Published(
            float(row["accuracy_percent"]) / 100, tuple(curves[(*_key(row), row["split"])])
        )
        for row in _rows("figure4.csv")
    }


def _rows(name: str) -> list[dict[str, str]]:
    text = files("dpmi.reporting").joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def _key(row: dict[str, str]) -> Key:
    return row["dataset"], row["mechanism"], float(row["beta"]) if row["beta"] else None
