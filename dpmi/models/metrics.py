"""The same metrics for every run, by torchmetrics: of probabilities."""

from __future__ import annotations

from typing import Any

import torch
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassCalibrationError,
    MulticlassCohenKappa,
    MulticlassF1Score,
    MulticlassRecall,
)
from torchmetrics.utilities.data import dim_zero_cat

from dpmi.models.names import BINS

ECE = "ece"


def classification_metrics(num_classes: int, graded: bool) -> MetricCollection:
    """What is reported of a classifier.

    Args:
        num_classes: K; metrics take probabilities (B, K) and labels (B,).
        graded: the classes are ordered, so quadratic weighted kappa (Cohen 1968) says something.
    """
    alone: dict[str, Any] = {"sync_on_compute": False}  # each process evaluates all images
    metrics: dict[str, Metric | MetricCollection] = {
        "accuracy": MulticlassAccuracy(num_classes, average="micro", **alone),
        "balanced_accuracy": MulticlassAccuracy(num_classes, average="macro", **alone),
        "auroc": MulticlassAUROC(num_classes, average="macro", **alone),
        "f1": MulticlassF1Score(num_classes, average="macro", **alone),
        "recall": MulticlassRecall(num_classes, average="none", **alone),
        # Expected calibration error (Guo et al. 2017, arXiv 1706.04599, equation 3).
        ECE: MulticlassCalibrationError(num_classes, n_bins=BINS, norm="l1", **alone),
    }
    if graded:
        metrics["kappa"] = MulticlassCohenKappa(num_classes, weights="quadratic", **alone)
    return MetricCollection(metrics)


def reliability(metrics: MetricCollection) -> list[tuple[float, float, int]]:
    """The reliability diagram of what a collection has counted, before it is reset.

    Returns:
        Mean confidence, accuracy and number of images of each bin of the ECE that has any, by
        confidence: Σ number/n |accuracy - confidence| is the ECE.
    """
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
