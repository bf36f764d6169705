"""Pieces of a Poisson batch filled up to a few sizes, by images that add nothing.

A Poisson batch has another size at each step. Compiled code and a GPU's libraries prepare for
every size that comes: the fewer, the better. What fills a piece up gets the factor 0 and is masked
as an example without a finite gradient is (``clip_factors``): it adds exactly 0 to every sum. It
is in no count, no logits, no metric and no ledger, which know the batch that was drawn.
"""

from __future__ import annotations

from torch import Tensor

MOST_SIZES = 16


def size(images: int, most: int) -> int:
    """Size to fill a piece up to: a multiple of a sixteenth of ``most``.

    Args:
        images: of the piece, 1 to ``most``.
        most: images in one pass.
    """
    step = -(-most // MOST_SIZES)
    return min(most, -(-images // step) * step)


def filled(values: Tensor, size: int) -> Tensor:
    """(b, ...) with zeros behind, (size, ...)."""
    if len(values) == size:
        return values
    full = values.new_zeros(size, *values.shape[1:])
    full[: len(values)] = values
    return full
