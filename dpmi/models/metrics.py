"""The same metrics for every run, by torchmetrics: of probabilities.

What is not defined of the images at hand is NaN, where torchmetrics says 0: the recall of a class
that none of them is of, and AUROC and κ where all are of one class. Means over classes are over
those that the images have, "the classes that are there".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassCalibrationError,
    MulticlassCohenKappa,
    MulticlassF1Score,
    MulticlassRecall,
)
from torchmetrics.functional.classification import binary_auroc
from torchmetrics.utilities.data import dim_zero_cat

from dpmi.models.finding_metrics import OfFindings, finding_metrics
from dpmi.models.names import BINS

AUROC, ECE = "auroc", "ece"


class Recalls(MulticlassRecall):
    """The recall of each class, (K,)."""

    def __init__(self, num_classes: int, **settings: Any) -> None:
        super().__init__(num_classes, average="none", **settings)

    def compute(self) -> Tensor:
        """Those of classes that are not there are NaN."""
        return _of_classes_there(super().compute(), self)


class BalancedAccuracy(Recalls):
    """The mean recall of the classes that are there."""

    def compute(self) -> Tensor:
        """Defined of any images."""
        return super().compute().nanmean()


class MacroF1(MulticlassF1Score):
    """The mean F1 score of the classes that are there."""

    def __init__(self, num_classes: int, **settings: Any) -> None:
        super().__init__(num_classes, average="none", **settings)

    def compute(self) -> Tensor:
        """Defined of any images; an image that is taken for a class not there is a miss of its."""
        return _of_classes_there(super().compute(), self).nanmean()


class MacroAUROC(MulticlassAUROC):
    """The mean area under the ROC curve of the classes that are there, each against the others."""

    def compute(self) -> Tensor:  # type: ignore[override]  # as torchmetrics' own does
        """NaN where all images are of one class: there is nothing to tell it from."""
        probabilities, labels = dim_zero_cat(self.preds), dim_zero_cat(self.target)
        there = labels.unique().tolist()
        if len(there) < 2:
            return torch.full((), torch.nan, device=labels.device)
        each = [binary_auroc(probabilities[:, k], (labels == k).long()) for k in there]
        return torch.stack(each).mean()


class Kappa(MulticlassCohenKappa):
    """Quadratic weighted kappa (Cohen 1968)."""

    def __init__(self, num_classes: int, **settings: Any) -> None:
        super().__init__(num_classes, weights="quadratic", **settings)

    def compute(self) -> Tensor:
        """NaN where all images are of one class: whatever is answered agrees as chance would."""
        alike = (self.confmat.sum(1) > 0).sum() < 2
        return super().compute().masked_fill(alike, torch.nan)


def _of_classes_there(values: Tensor, counted: Any) -> Tensor:
    """Values of classes (K,), NaN where a class has no images among those counted."""
    return values.masked_fill(counted.tp + counted.fn == 0, torch.nan)


def classification_metrics(num_classes: int, graded: bool) -> MetricCollection:
    """What is reported of a classifier.

    Args:
        num_classes: K; metrics take probabilities (B, K) and labels (B,).
        graded: the classes are ordered, so quadratic weighted kappa says something.
    """
    alone: dict[str, Any] = {"sync_on_compute": False}  # each process evaluates all images
    metrics: dict[str, Metric | MetricCollection] = {
        "accuracy": MulticlassAccuracy(num_classes, average="micro", **alone),
        "balanced_accuracy": BalancedAccuracy(num_classes, **alone),
        AUROC: MacroAUROC(num_classes, **alone),
        "f1": MacroF1(num_classes, **alone),
        "recall": Recalls(num_classes, **alone),
        # Expected calibration error (Guo et al. 2017, arXiv 1706.04599, equation 3).
        ECE: MulticlassCalibrationError(num_classes, n_bins=BINS, norm="l1", **alone),
    }
    if graded:
        metrics["kappa"] = Kappa(num_classes, **alone)
    return MetricCollection(metrics)


def metrics_of(classes: int, graded: bool, *, multilabel: bool) -> MetricCollection:
    """What is reported of K classes, or of K findings."""
    return finding_metrics() if multilabel else classification_metrics(classes, graded)


def named(metrics: MetricCollection, classes: Sequence[str]) -> dict[str, Tensor]:
    """The values of a collection, each a scalar.

    A value for each class or finding stands under ``NAME/CLASS``. Of findings their mean stands
    under ``NAME`` beside them, over those of which it is defined.
    """
    values: dict[str, Tensor] = {}
    for name, value in metrics.compute().items():
        if not value.ndim:
            values[name] = value
            continue
        if isinstance(metrics[name], OfFindings):
            values[name] = value.nanmean()
        values |= {f"{name}/{of}": its for of, its in zip(classes, value, strict=True)}
    return values


def counted_images(metrics: MetricCollection) -> tuple[Tensor, Tensor]:
    """What a collection was given, before it is reset: probabilities (n, K) and labels (n,).

    Of findings, labels (n, K).
    """
    auroc: Any = metrics[AUROC]
    return dim_zero_cat(auroc.preds), dim_zero_cat(auroc.target)


def reliability(metrics: MetricCollection) -> list[tuple[float, float, int]]:
    """The reliability diagram of what a collection has counted, before it is reset.

    Returns:
        Mean confidence, accuracy and number of images of each bin of the ECE that has any, by
        confidence: Σ number/n |accuracy - confidence| is the ECE. Of findings nothing.
    """
    if not any(isinstance(metric, MulticlassCalibrationError) for metric in metrics.values()):
        return []
    ece: Any = metrics[ECE]
    confidences, right = dim_zero_cat(ece.confidences), dim_zero_cat(ece.accuracies)
    # As torchmetrics sorts them: a bin has its lower edge, and certainty is a bin of its own.
    edges = torch.linspace(0, 1, BINS + 1, device=confidences.device)
    bins = torch.bucketize(confidences, edges, right=True)
    members = [bins == number for number in range(1, BINS + 2)]
    return [
        (float(confidences[m].mean()), float(right[m].mean()), int(m.sum()))
        for m in members
        if m.any()
    ]
