"""Sums over private images that show any number of K findings: of sensitivity 1, as all others.

An image moves K counts at once, not one as where it is of one class: its row has up to K ones, and
norm sqrt(K). So each row is divided by that, and bounded (``dpmi.privacy.rows``), whatever it was.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dpmi.privacy.rows import bounded, weighted

LOGIT_BOUND = 4.0  # root mean square of an image's logits in a sum of them, a priori


def finding_counts(findings: Tensor, weights: Tensor | None = None) -> Tensor:
    """Images that show each finding, and images that do not, in units of sqrt(K).

    Args:
        findings: (n, K): 1, 0, NaN where not known, which counts for neither.
        weights: (n,) of the images, as ``TrainingSet`` has them.

    Returns:
        (2 K,) float64, first those that show it: of sensitivity 1.
    """
    rows = _sides(findings, torch.ones_like(findings)) / math.sqrt(findings.shape[1])
    return weighted(bounded(rows), weights).sum(0)


def finding_logit_sums(logits: Tensor, findings: Tensor, weights: Tensor | None = None) -> Tensor:
    """Sums of each finding's logits over the images that show it, and over those that do not.

    Args:
        logits: (n, K).
        findings: (n, K): 1, 0, NaN where not known, which counts for neither.
        weights: (n,) of the images, as ``TrainingSet`` has them.

    Returns:
        (2 K,) float64, in units of LOGIT_BOUND sqrt(K): of sensitivity 1.
    """
    rows = _sides(findings, logits) / (LOGIT_BOUND * math.sqrt(findings.shape[1]))
    return weighted(bounded(rows), weights).sum(0)


def _sides(findings: Tensor, values: Tensor) -> Tensor:
    """(n, K) to (n, 2 K): each value on the side of its finding, and 0 on the other."""
    zero = torch.zeros_like(values)
    return torch.cat([torch.where(findings == side, values, zero) for side in (1, 0)], 1)
