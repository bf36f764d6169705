"""How a batch becomes a gradient: the one thing about training that a mechanism may replace."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from dpmi.base.ranks import ALONE, Ranks
from dpmi.base.targets import example_losses
from dpmi.base.views import as_one_batch


class Gradient(Protocol):
    """Leaves a batch's gradient in ``p.grad`` of the network it was made for."""

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Process a batch.

        Args:
            images: (B, C, H, W) in [0, 1]; or K views of each, (B, K, C, H, W), whose mean loss
                is the example's.
            labels: (B,) class indices, or of each view (B, K); (B, F) findings, or of each view
                (B, K, F).

        Returns:
            Detached logits, (B, classes), or of all views (B K, classes).
        """
        ...


class MeanGradient:
    """The plain mean gradient of the examples' losses over the batch.

    Args:
        net: the network.
        ranks: who trains; the mean is over the parts of all.
        clip_norm: a gradient of a larger norm, over all parameters together, is scaled down to it
            (Pascanu et al. 2013, arXiv 1211.5063); None: never. It protects nobody.
    """

    def __init__(
        self, net: nn.Module, ranks: Ranks = ALONE, clip_norm: float | None = None
    ) -> None:
        self._net, self._ranks, self._clip_norm = net, ranks, clip_norm

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Process one batch of at least one image; one process's part of it may be empty."""
        self._net.zero_grad()
        images, labels, _ = as_one_batch(images, labels)
        if self._ranks.size > 1:
            logits = self._shared(images, labels)
        else:
            logits = self._net(images).float()
            example_losses(logits, labels).mean().backward()
        if self._clip_norm is not None:
            nn.utils.clip_grad_norm_(self._net.parameters(), self._clip_norm)
        return logits.detach()

    def _shared(self, images: Tensor, labels: Tensor) -> Tensor:
        """Sum what the parts give, which may be of unequal size, over the number of all views."""
        count = sum(row[0] for row in self._ranks.gather(len(labels)))
        logits = images.new_zeros((0, 0))
        if len(labels):
            logits = self._net(images).float()
            (example_losses(logits, labels).sum() / count).backward()
        trained = [p for p in self._net.parameters() if p.requires_grad]
        flat = torch.cat(
            [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in trained]
        )
        self._ranks.sum(flat)
        for parameter, part in zip(trained, flat.split([p.numel() for p in trained]), strict=True):
            parameter.grad = part.view(parameter.shape)
        return logits
