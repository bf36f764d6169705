"""Who pays: the metrics of the test images, apart for each group of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dpmi.base.targets import are_findings
from dpmi.models.finding_metrics import PRESENT, finding_metrics
from dpmi.models.groups import MEASURES, OF_FINDINGS, Measured, Subgroup
from dpmi.models.intervals import Ends, of_areas, of_auroc, of_ece, of_mean, of_share
from dpmi.models.metrics import ECE, classification_metrics


def by_group(
    tested: tuple[Tensor, Tensor],
    groups: Mapping[str, Sequence[str]],
    patients: Sequence[str],
    classes: Sequence[str],
) -> list[Subgroup]:
    """Measure each group of each column, in the order of their names.

    Args:
        tested: probabilities (n, K) and labels (n,), or findings (n, K).
        groups: column to the group of each image.
        patients: of each image, "" where unknown.
        classes: names of the K classes, or findings.
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
            if are_findings(labels):
                counts = (labels[rows] == 1).sum(0).tolist()
                measures = _of_findings(probabilities[rows], labels[rows], numbers)
            else:
                counts = np.bincount(labels[rows].numpy(), minlength=len(classes)).tolist()
                measures = _measured(probabilities[rows], labels[rows], numbers)
            found.append(
                Subgroup(
                    column=column,
                    name=name,
                    images=len(rows),
                    patients=int(numbers.max()) + 1 if any(patients[r] for r in rows) else None,
                    class_counts=dict(zip(classes, counts, strict=True)),
                    measures=measures,
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


def _of_findings(
    probabilities: Tensor, findings: Tensor, patients: NDArray[np.int64]
) -> dict[str, Measured]:
    """Means over the findings of which each is defined; intervals of two of them."""
    metrics = finding_metrics()
    metrics.update(probabilities, findings)
    values = {name: float(value.nanmean()) for name, value in metrics.compute().items()}
    p, truth = probabilities.double().numpy(), findings.double().numpy()
    both = (truth == 1).any(0) & (truth == 0).any(0)
    ends: dict[str, Ends | None] = dict.fromkeys(OF_FINDINGS)
    if both.any():
        ends["auroc"] = of_areas(p[:, both], truth[:, both], patients)
        decided = (p[:, both] >= PRESENT).astype(float)
        ends["balanced_accuracy"] = of_areas(decided, truth[:, both], patients)
    return {name: _defined(values[name], ends[name]) for name in OF_FINDINGS}


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
