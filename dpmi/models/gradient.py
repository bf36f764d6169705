"""How a batch becomes a gradient: the one thing about training that a mechanism may replace."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn


class Gradient(Protocol):
    """Leaves a batch's gradient in ``p.grad`` of the network it was made for."""

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Process (B, C, H, W) images in [0, 1] and (B,) labels; return detached logits."""
        ...


class MeanGradient:
    """The plain mean gradient of the cross-entropy over the batch."""

    def __init__(self, net: nn.Module) -> None:
        self._net = net

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Process one batch of at least one image."""
        self._net.zero_grad()
        logits: Tensor = self._net(images).float()
        nn.functional.cross_entropy(logits, labels).backward()
        return logits.detach()
