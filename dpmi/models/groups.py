"""What is reported of each group of test images; importable without torch, for records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MEASURES = ("auroc", "balanced_accuracy", "accuracy", "ece")
OF_FINDINGS = ("auroc", "average_precision", "balanced_accuracy", "ece")  # means over findings
BY_GROUP = "by_group/"
SMALL = 10  # images: a group of fewer is reported, but not called the worst


@dataclass(frozen=True)
class Measured:
    """A metric with its 95 % interval; None where not defined.

    A metric that is defined may have no interval: a calibration error of few images.
    """

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Subgroup:
    """The test images of one group.

    Attributes:
        column: what they were grouped by.
        name: which group.
        images: how many.
        patients: whose they are; None where it is known of none. One whose patient is not known
            counts as a patient of its own.
        class_counts: images by class, or finding that they show.
        measures: by name, those of ``MEASURES`` or ``OF_FINDINGS``, with intervals over patients,
            or over images where patients are not known (see ``dpmi.models.intervals``).
    """

    column: str
    name: str
    images: int
    patients: int | None
    class_counts: dict[str, int]
    measures: dict[str, Measured]

    @property
    def title(self) -> str:
        """As "kind=virus"."""
        return f"{self.column}={self.name}"

    @property
    def is_small(self) -> bool:
        """Whether chance alone may make it the worst."""
        return self.images < SMALL


@dataclass(frozen=True)
class Worst:
    """The group that fares worst by one metric, and its value."""

    group: str
    value: float


def worst_groups(groups: Sequence[Subgroup]) -> dict[str, Worst]:
    """The worst group by each metric, of all columns; of those that are not small.

    Returns:
        Metric to "kind=virus" and its value: the least, of the calibration error the largest.
        Nothing for a metric that is defined in no group.
    """
    found: dict[str, Worst] = {}
    for metric in MEASURES:
        for group in groups:
            its = group.measures.get(metric)
            value = its.value if its else None
            if value is None or group.is_small:
                continue
            best = found.get(metric)
            if best is None or (value > best.value if metric == "ece" else value < best.value):
                found[metric] = Worst(group.title, value)
    return found


def flat(groups: Iterable[Subgroup]) -> dict[str, float]:
    """Each metric under one name: ``by_group/kind=virus/accuracy``; NaN where not defined."""
    return {
        f"{BY_GROUP}{group.title}/{metric}": math.nan if its.value is None else its.value
        for group in groups
        for metric, its in group.measures.items()
    }
