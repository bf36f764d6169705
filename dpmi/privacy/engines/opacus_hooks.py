"""Per-example clipping with Opacus' hooks: the reference, which makes every example's gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from opacus.grad_sample import GradSampleHooks
from torch import Tensor, nn

from dpmi.base.views import as_one_batch
from dpmi.privacy.engines.clipping import (
    clip_factors,
    not_finite,
    of_examples,
    precise,
    squared_norms,
    total_loss,
)

# Layer, activations, gradient of the output; to the examples' gradients (B, ...) of its parameters.
GradSampler = Callable[[Any, list[Tensor], Tensor], dict[Tensor, Tensor]]


class OpacusHooks:
    """Clipping by Opacus' hooks; see :class:`dpmi.privacy.engines.clipping.ClippingEngine`.

    Args:
        net: the network; every layer with trainable parameters must have a grad sampler.
        max_grad_norm: bound C of an example's gradient.
        grad_samplers: per-example gradients of layers that Opacus does not know.

    Raises:
        ValueError: names a layer without a grad sampler.
    """

    functional: tuple[str, ...] = ()  # all have samplers

    def __init__(
        self,
        net: nn.Module,
        max_grad_norm: float,
        grad_samplers: dict[type[Any], GradSampler],
    ) -> None:
        self.dropped: int | Tensor = 0
        self._net, self._max_grad_norm = net, max_grad_norm
        GradSampleHooks.GRAD_SAMPLERS.update(grad_samplers)
        for name, layer in net.named_modules():
            own = [p for p in layer.parameters(recurse=False) if p.requires_grad]
            if own and type(layer) not in GradSampleHooks.GRAD_SAMPLERS:
                raise ValueError(
                    f"layer {name} ({type(layer).__name__}) has no per-example gradients under "
                    "mechanism.engine=opacus; use mechanism.engine=fast, or freeze it"
                )
        self._hooks = GradSampleHooks(net, loss_reduction="sum", strict=False)

    def add_clipped_sum(
        self,
        images: Tensor,
        labels: Tensor,
        sums: dict[Tensor, Tensor],
        scale: float,
        examples: int | None = None,
    ) -> Tensor:
        """Process one piece of a batch."""
        images, labels, views = as_one_batch(images, labels)
        logits = precise(self._net(images))
        total_loss(logits, labels, views).backward()
        with torch.autocast(images.device.type, enabled=False):
            self._add_weighted_sums(sums, scale, views, examples)
        return logits.detach()

    def _add_weighted_sums(
        self, sums: dict[Tensor, Tensor], scale: float, views: int, examples: int | None
    ) -> None:
        rows: dict[Tensor, Tensor] = {}
        for parameter in sums:
            rows[parameter] = of_examples(getattr(parameter, "grad_sample"), views)  # noqa: B009
            parameter.grad_sample = None  # type: ignore[attr-defined]
        norms = torch.stack([squared_norms(row) for row in rows.values()]).sum(0).sqrt()
        factors, finite = clip_factors(norms, self._max_grad_norm, examples)
        self.dropped = self.dropped + not_finite(finite, examples)
        if finite is not None:
            for row in rows.values():
                row.masked_fill_(~finite.view(-1, *(1 for _ in row.shape[1:])), 0.0)
        for parameter, row in rows.items():
            sums[parameter] += torch.einsum("b,b...->...", factors * scale, precise(row))
            parameter.grad = None  # the plain gradient, made in passing

    def forget(self) -> None:
        """Start over with new hooks: the old ones have inputs without their backward pass."""
        self._hooks.cleanup()
        for layer in self._net.modules():
            layer.__dict__.pop("activations", None)
        for parameter in self._net.parameters():
            parameter.grad = None
        self._hooks = GradSampleHooks(self._net, loss_reduction="sum", strict=False)

    def close(self) -> None:
        """Take the hooks off the network."""
        self._hooks.remove_hooks()
