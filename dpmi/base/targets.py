"""What an image is labelled with, one class or several findings, and the loss of it.

Classes are integers, (B,). Findings are floats, (B, K): 1 present, 0 absent, NaN not known, so that
a value that nobody looked at poisons what it enters. The type says which of the two they are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def are_findings(labels: Tensor) -> bool:
    """Whether labels are findings, not classes."""
    return labels.is_floating_point()


def example_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Loss of each example, a function of that example alone.

    Of a class: cross-entropy. Of findings: the mean, over the example's known findings, of the
    binary cross-entropy of a sigmoid; 0, with a gradient of 0, where none is known.

    Args:
        logits: (B, K).
        labels: (B,) class indices, or (B, K) findings.

    Returns:
        (B,).
    """
    if not are_findings(labels):
        return nn.functional.cross_entropy(logits, labels, reduction="none")
    known = ~labels.isnan()
    each = nn.functional.binary_cross_entropy_with_logits(
        logits, labels.nan_to_num().to(logits.dtype), reduction="none"
    )
    return (each * known).sum(1) / known.sum(1).clamp(min=1)


def probabilities(logits: Tensor, *, multilabel: bool) -> Tensor:
    """(B, K) logits to probabilities: of one class of K, or of each of K findings."""
    return torch.sigmoid(logits) if multilabel else logits.softmax(1)
