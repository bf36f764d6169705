"""Layers without a rule of their own: computed one example at a time, by ``torch.func``.

What an example is given depends on that example alone, whatever the layer does: forward and
backward see it as a batch of one. A gradient of all the layer's parameters is kept for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from dpmi.privacy.engines.clipping import of_examples, precise
from dpmi.privacy.engines.rules import Contribution, LayerRule, Rows


class _ByItself(nn.Module):
    """A layer by its class's own forward, on one example without its axis."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        y = type(self.layer).forward(self.layer, x[None])
        if not isinstance(y, Tensor) or len(y) != 1:
            raise RuntimeError("it does not give one tensor with an axis of examples")
        return y[0]


class FunctionalRule(LayerRule):
    """Any layer of one tensor, with the layers within it; slow, and hungry for memory."""

    claims = True

    def forward(self, layer: nn.Module, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(B, ...) to (B, ...).

        Raises:
            ValueError: the layer cannot be computed one example at a time.
        """
        alone = _ByItself(layer)
        named: dict[str, Tensor] = dict(alone.named_parameters())

        def one(example: Tensor) -> Tensor:
            y: Tensor = functional_call(alone, named, (example,))
            return y

        try:
            y: Tensor = vmap(one)(x)
        except (RuntimeError, TypeError) as error:
            raise ValueError(
                f"a {type(layer).__name__} has no rule, and cannot be computed one example at a "
                f"time ({str(error).splitlines()[0]}); replace or freeze it"
            ) from error
        return y, (x,)

    def backward(
        self,
        layer: nn.Module,
        saved: tuple[Tensor, ...],
        grad_output: Tensor,
        needs_input: bool,
        views: int,
    ) -> tuple[Tensor | None, Contribution]:
        """A gradient of each example, of the input and of all trainable parameters."""
        alone, x = _ByItself(layer), precise(saved[0])
        trained: dict[str, Tensor] = {n: p for n, p in alone.named_parameters() if p.requires_grad}

        def one(example: Tensor, upstream: Tensor) -> Any:
            pull = vjp(lambda own, given: functional_call(alone, own, (given,)), trained, example)[
                1
            ]
            return pull(upstream)

        rows, grad_input = vmap(one)(x, precise(grad_output))
        kept: dict[Tensor, Sequence[Tensor]] = {
            trained[name]: [of_examples(row, views)] for name, row in rows.items()
        }
        return grad_input if needs_input else None, Rows(kept)
