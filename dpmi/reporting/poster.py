"""Figure 4 of the poster, as published: accuracy in per cent.

"Benchmarking Differentially Private Residual Networks for Medical Imagery", arXiv 2005.13099.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files


@cache
def poster_accuracy() -> dict[tuple[str, str, float | None, str], float]:
    """(dataset, mechanism, β or None, split) to accuracy in [0, 1]."""
    text = files("dpmi.reporting").joinpath("figure4.csv").read_text()
    return {
        (
            row["dataset"],
            row["mechanism"],
            float(row["beta"]) if row["beta"] else None,
            row["split"],
        ): float(row["accuracy_percent"]) / 100
        for row in csv.DictReader(text.splitlines())
    }
