"""The same metrics for every run, by torchmetrics."""

from __future__ import annotations

from typing import Any

from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassCohenKappa,
    MulticlassF1Score,
    MulticlassRecall,
)


def classification_metrics(num_classes: int, graded: bool) -> MetricCollection:
    """What is reported of a classifier.

    Args:
        num_classes: K; metrics take logits (B, K) and labels (B,).
        graded: the classes are ordered, so quadratic weighted kappa (Cohen 1968) says something.
    """
    alone: dict[str, Any] = {"sync_on_compute": False}  # each process evaluates all images
    metrics: dict[str, Metric | MetricCollection] = {
        "accuracy": MulticlassAccuracy(num_classes, average="micro", **alone),
        "balanced_accuracy": MulticlassAccuracy(num_classes, average="macro", **alone),
        "auroc": MulticlassAUROC(num_classes, average="macro", **alone),
        "f1": MulticlassF1Score(num_classes, average="macro", **alone),
        "recall": MulticlassRecall(num_classes, average="none", **alone),
    }
    if graded:
        metrics["kappa"] = MulticlassCohenKappa(num_classes, weights="quadratic", **alone)
    return MetricCollection(metrics)
