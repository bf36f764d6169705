"""The metrics of several findings of an image, each by itself, by torchmetrics: of probabilities.

A finding that is not known of an image is left out of that finding's metrics. What is not defined
of the images at hand is NaN, where torchmetrics says 0: AUROC and balanced accuracy of a finding
that all of them show, or none, the average precision of one that none shows, and the calibration
error of one that is known of none.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_calibration_error,
    binary_recall,
    binary_specificity,
)
from torchmetrics.utilities.data import dim_zero_cat

from dpmi.models.names import BINS

PRESENT = 0.5  # a finding of this probability or more is decided to be present


class OfFindings(Metric):
    """A value for each of K findings, (K,), of probabilities (B, K) and findings (B, K)."""

    preds: list[Tensor]
    target: list[Tensor]

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.add_state("preds", default=[], dist_reduce_fx="cat")
        self.add_state("target", default=[], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Take in a batch: 1, 0, NaN where a finding is not known."""
        self.preds.append(preds)
        self.target.append(target)

    def compute(self) -> Tensor:
        """NaN where not defined."""
        preds, target = dim_zero_cat(self.preds), dim_zero_cat(self.target)
        values = []
        for p, truth in zip(preds.T, target.T, strict=True):
            known = ~truth.isnan()
            values.append(self._of_one(p[known], truth[known].long()))
        return torch.stack(values).clamp(max=1.0)  # single precision adds up to a little more

    @abstractmethod
    def _of_one(self, preds: Tensor, target: Tensor) -> Tensor:
        """The value of one finding, of the images (n,) of which it is known."""


def _undefined(like: Tensor) -> Tensor:
    return torch.full((), torch.nan, device=like.device)


def _on_both_sides(target: Tensor) -> bool:
    return len(target.unique()) == 2


class FindingAUROC(OfFindings):
    """The area under the ROC curve."""

    def _of_one(self, preds: Tensor, target: Tensor) -> Tensor:
        return binary_auroc(preds, target) if _on_both_sides(target) else _undefined(preds)


class FindingAveragePrecision(OfFindings):
    """The mean precision over the recall, without interpolation."""

    def _of_one(self, preds: Tensor, target: Tensor) -> Tensor:
        return binary_average_precision(preds, target) if target.any() else _undefined(preds)


class FindingBalancedAccuracy(OfFindings):
    """The mean of sensitivity and specificity, of what is decided to be present."""

    def _of_one(self, preds: Tensor, target: Tensor) -> Tensor:
        if not _on_both_sides(target):
            return _undefined(preds)
        decided = (preds >= PRESENT).long()
        return (binary_recall(decided, target) + binary_specificity(decided, target)) / 2


class FindingECE(OfFindings):
    """The expected calibration error of the probability that a finding is present.

    As of classes (Guo et al. 2017, arXiv 1706.04599, equation 3), in bins of the same width: the
    mean distance between the probability and the share of images that show the finding.
    """

    def _of_one(self, preds: Tensor, target: Tensor) -> Tensor:
        if not len(target):
            return _undefined(preds)
        return binary_calibration_error(preds, target, n_bins=BINS, norm="l1")


def finding_metrics() -> MetricCollection:
    """What is reported of findings."""
    alone: dict[str, Any] = {"sync_on_compute": False}  # each process evaluates all images
    metrics: dict[str, Metric | MetricCollection] = {
        "auroc": FindingAUROC(**alone),
        "average_precision": FindingAveragePrecision(**alone),
        "balanced_accuracy": FindingBalancedAccuracy(**alone),
        "ece": FindingECE(**alone),
    }
    return MetricCollection(metrics)
