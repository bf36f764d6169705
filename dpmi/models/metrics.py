"""The same metrics for every run, by torchmetrics."""

from __future__ import annotations

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
    metrics: dict[str, Metric | MetricCollection] = {
        "accuracy": MulticlassAccuracy(num_classes, average="micro"),
        "balanced_accuracy": MulticlassAccuracy(num_classes, average="macro"),
        "auroc": MulticlassAUROC(num_classes, average="macro"),
        "f1": MulticlassF1Score(num_classes, average="macro"),
        "recall": MulticlassRecall(num_classes, average="none"),
    }
    if graded:
        metrics["kappa"] = MulticlassCohenKappa(num_classes, weights="quadratic")
    return MetricCollection(metrics)
