"""From a backbone's activations on the views of an image to one vector per image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_SMALLEST = 1e-12


def unit_vectors(views: Sequence[Sequence[Tensor]]) -> Tensor:
    """One vector of length one an image: its views averaged, standardised by stage, normalised.

    The views of an image are one contribution, whatever their number: they are averaged before
    anything else, so an image has one row, and every row depends on its image alone.

    Args:
        views: for each view a (n, C) tensor for each stage, the same images in the same order.

    Returns:
        (n, D) float32, D the channels of all stages; each row of length 1, but for rounding, or 0
        where all stages are 0.
    """
    blocks = []
    for of_views in zip(*views, strict=True):
        block = torch.stack([values.double() for values in of_views]).mean(0)
        block = block - block.mean(1, keepdim=True)
        blocks.append(unit(block) * block.shape[1] ** 0.5)  # as long for each channel as the others
    return unit(torch.cat(blocks, 1)).float()


def unit(x: Tensor) -> Tensor:
    """Rows of (n, D) divided by their lengths; a row of zeros stays one."""
    return x / x.norm(dim=1, keepdim=True).clamp(min=_SMALLEST)
