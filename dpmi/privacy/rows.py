"""What each image adds to a sum over private images: a row, bounded whatever it was."""

from __future__ import annotations

import torch
from torch import Tensor


def bounded(vectors: Tensor) -> Tensor:
    """(n, D) to float64 rows of norm at most 1; one that is not finite becomes zero."""
    vectors = vectors.double()
    norms = vectors.norm(dim=1, keepdim=True)
    kept = vectors * norms.clamp(min=1.0).reciprocal()
    return torch.where(norms.isfinite(), kept, torch.zeros_like(kept))


def weighted(rows: Tensor, weights: Tensor | None) -> Tensor:
    """(n, D) times (n,), or as they are."""
    return rows if weights is None else rows * weights[:, None]
