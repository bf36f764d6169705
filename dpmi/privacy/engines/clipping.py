"""The bound that every engine must put on an example."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from dpmi.base import devices
from dpmi.base.targets import example_losses

_ROUNDING = 1e-6  # added to a norm before dividing by it, as Opacus does: stays below the bound


class ClippingEngine(Protocol):
    """Computes the clipped sum of the examples of a piece of a batch.

    Contract: for a piece of examples with gradients g_i over all trainable parameters,
    :meth:`add_clipped_sum` adds ``scale`` Σ_i clip_C(g_i) to the sums, clip_C(g) being
    g min(1, C / ||g||) and 0 where ||g|| is not finite. One example moves Σ_i by at most C in L2.
    Of an example that is given in K views, g_i is the mean of their gradients, made before its
    norm is taken (De et al. 2022, arXiv 2204.13650, section 3.2): the same bound holds.
    """

    # Examples that contributed nothing because their gradient was not finite: a number, or where
    # it cannot be read without waiting for a device, a tensor there.
    dropped: int | Tensor
    functional: tuple[str, ...]  # layers without a rule, whose gradients torch.func makes

    def add_clipped_sum(
        self,
        images: Tensor,
        labels: Tensor,
        sums: dict[Tensor, Tensor],
        scale: float,
        examples: int | None = None,
    ) -> Tensor:
        """Process one piece of a batch.

        Args:
            images: (B, C, H, W) or (B, D), or K views of each, (B, K, ...); B at least 1.
            labels: (B,) classes, or of each view (B, K); (B, F) findings, or of each view
                (B, K, F).
            sums: to add to.
            scale: of what is added.
            examples: how many there are; what follows them fills the piece up, and adds nothing.

        Returns:
            Detached logits, (B, classes), or of all views (B K, classes).
        """
        ...

    def forget(self) -> None:
        """Let go of what a pass that was broken off left behind."""
        ...

    def close(self) -> None:
        """Leave the network as it was found."""
        ...


def precise(x: Tensor) -> Tensor:
    """In float32 at least: what is measured and summed has no fewer digits."""
    return x if x.dtype == torch.float64 else x.float()


def total_loss(logits: Tensor, labels: Tensor, views: int) -> Tensor:
    """Σ_i of the examples' losses, each the mean of those of its views.

    Args:
        logits: (B K, classes), the views of an example next to one another.
        labels: (B K,) classes, or (B K, F) findings, of the views.
        views: K.
    """
    return example_losses(logits, labels).sum() / views


def of_examples(rows: Tensor, views: int) -> Tensor:
    """Add up each example's views, in float32 at least: (B K, ...) to (B, ...)."""
    if views == 1:
        return rows
    return precise(rows.unflatten(0, (-1, views))).sum(1)


def clip_factors(
    norms: Tensor, max_grad_norm: float, examples: int | None = None
) -> tuple[Tensor, Tensor | None]:
    """Factor min(1, C / ||g_i||) of each example, 0 where the norm is not finite.

    Args:
        norms: (B,) float32 at least, over all parameters.
        max_grad_norm: C.
        examples: how many there are; the factors of what follows them are 0.

    Returns:
        The factors (B,), and a mask (B,) of the examples whose norm is finite, or None where all
        are known to be. What a masked-out example left behind must be zeroed before it is
        multiplied by its factor, because 0 times NaN is NaN.
    """
    factors = (max_grad_norm / (norms + _ROUNDING)).clamp(max=1.0)
    finite = torch.isfinite(norms)
    if examples is not None:
        finite[examples:] = False
    if devices.on_host(norms) and bool(finite.all()):
        return factors, None
    return torch.where(finite, factors, torch.zeros_like(factors)), finite


def not_finite(finite: Tensor | None, examples: int | None) -> int | Tensor:
    """How many of the examples a mask from :func:`clip_factors` leaves out."""
    if finite is None:
        return 0
    number = (~finite[:examples]).sum()
    return int(number) if devices.on_host(number) else number


def squared_norms(rows: Tensor) -> Tensor:
    """Squared L2 norm of each row, in float32 at least: (B, ...) to (B,).

    First over the last axes, then over the second: one float32 sum of millions of squares is off
    by 4e-5 (and the bound with it), two short ones by 1e-7.
    """
    if rows.ndim == 2:
        return precise(rows).norm(dim=1).square()
    return precise(rows).flatten(2).norm(dim=2).norm(dim=1).square()
