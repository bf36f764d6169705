"""Who pays: the metrics of the test images, apart for each group of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dpmi.models.intervals import Ends, of_auroc, of_ece, of_mean, of_share
from dpmi.models.metrics import ECE, classification_metrics

MEASURES = ("auroc", "balanced_accuracy", "accuracy", ECE)
BY_GROUP = "by_group/"
SMALL = 10  # images: a group of fewer is told, and not called the worst


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
        class_counts: images by class.
        measures: by name, those of ``MEASURES``, with intervals over patients, or over images
            where patients are not known (see ``dpmi.models.intervals``).
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


def by_group(
    tested: tuple[Tensor, Tensor],
    groups: Mapping[str, Sequence[str]],
    patients: Sequence[str],
    classes: Sequence[str],
) -> list[Subgroup]:
    """Measure each group of each column, in the order of their names.

    Args:
        tested: probabilities (n, K) and labels (n,).
        groups: column to the group of each image.
        patients: of each image, "" where unknown.
        classes: names of the K classes.
    """
    probabilities, labels = (its.cpu() for its in tested)
    found = []
    for column, of_images in groups.items():
        members: dict[str, list[int]] = {}
        for row, name in enumerate(of_images):
            members.setdefault(name, []).append(row)
        for name, rows in sorted(members.items()):
            whose = [f"patient {patients[r]}" if patients[r] else f"image {r}" for r in rows]
            numbers = _numbered(whose)
            counts = np.bincount(labels[rows].numpy(), minlength=len(classes)).tolist()
            found.append(
                Subgroup(
                    column=column,
                    name=name,
                    images=len(rows),
                    patients=int(numbers.max()) + 1 if any(patients[r] for r in rows) else None,
                    class_counts=dict(zip(classes, counts, strict=True)),
                    measures=_measured(probabilities[rows], labels[rows], numbers),
                )
            )
    return found


def _measured(
    probabilities: Tensor, labels: Tensor, patients: NDArray[np.int64]
) -> dict[str, Measured]:
    metrics = classification_metrics(probabilities.shape[1], graded=False)
    metrics.update(probabilities, labels)
    values = metrics.compute()
    p, truth = probabilities.double().numpy(), labels.numpy()
    right = p.argmax(1) == truth
    there = np.unique(truth)
    recalls = [float(values["recall"][k]) for k in there]
    of_recalls = [_of_class(right, truth == k, patients) for k in there]
    ends: dict[str, Ends | None] = {
        "auroc": of_auroc(p, truth, patients) if len(there) > 1 else None,
        "balanced_accuracy": of_mean(recalls, of_recalls),
        "accuracy": of_share(right, patients),
        ECE: of_ece(p.max(1), right, patients),
    }
    return {name: _defined(float(values[name]), ends[name]) for name in MEASURES}


def _of_class(
    right: NDArray[np.bool_], its: NDArray[np.bool_], patients: NDArray[np.int64]
) -> Ends:
    return of_share(right[its], _numbered(patients[its].tolist()))


def _numbered(patients: Sequence[Any]) -> NDArray[np.int64]:
    """Of each image the number of its patient: 0, 1, ..., as they come."""
    numbers = {patient: number for number, patient in enumerate(dict.fromkeys(patients))}
    return np.array([numbers[patient] for patient in patients], dtype=np.int64)


def _defined(value: float, ends: Ends | None) -> Measured:
    if np.isnan(value):
        return Measured(None, None, None)
    return Measured(value, *(ends or (None, None)))


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
    told: dict[str, Worst] = {}
    for metric in MEASURES:
        for group in groups:
            value = group.measures[metric].value
            if value is None or group.is_small:
                continue
            best = told.get(metric)
            if best is None or (value > best.value if metric == ECE else value < best.value):
                told[metric] = Worst(group.title, value)
    return told


def flat(groups: Iterable[Subgroup]) -> dict[str, float]:
    """Each metric under one name: ``by_group/kind=virus/accuracy``; NaN where not defined."""
    return {
        f"{BY_GROUP}{group.title}/{metric}": np.nan if its.value is None else its.value
        for group in groups
        for metric, its in group.measures.items()
    }
