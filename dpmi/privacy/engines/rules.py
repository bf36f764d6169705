"""What book-keeping must know of a kind of layer: its two passes, and its examples' gradients.

A rule computes a layer forward, and backward to its input alone. In passing it keeps what gives,
later and for given factors, the weighted sum of the examples' gradients of the layer's own
parameters; and, at once, their squared norms (Bu et al. 2022, arXiv 2210.00038).

A layer meets K views of each example, next to one another in its batch of B K, whose losses were
divided by K: to the example's gradient they are more positions, as those of a convolution are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from dpmi.privacy.engines.clipping import precise, squared_norms

Sums = dict[Tensor, Tensor]

# Bytes moved cost as much as this many multiplications on them, roughly, on a CPU.
COST_OF_MOVING = 24


def in_compute_type(x: Tensor) -> Tensor:
    """``x`` as autocast, where it is on, hands it to convolutions and products: in bfloat16."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


class Contribution(Protocol):
    """The gradients that the examples of a piece have of one layer's parameters."""

    squared_norms: Tensor  # (B,) float32 at least, over the layer's trainable parameters
    # (B,) bound of what the weighted sum has beside the weighted gradients, in units of the
    # factors; None where it has no more than float32's rounding.
    rounding: Tensor | None

    def add_weighted_sum(self, factors: Tensor, finite: Tensor | None, sums: Sums) -> None:
        """Add Σ_i factors_i g_i to ``sums``; (B,) factors and mask as from ``clip_factors``."""
        ...


# Part of a layer ("" for all of it), who holds its parameters, its rule, its input; to its output.
Recorded = Callable[[str, Any, "LayerRule", Tensor], Tensor]


class Rule(ABC):
    """How layers of one type are computed while gradients are enabled.

    Attributes:
        claims: the rule is of the parameters of the layers within, too.
    """

    claims = False

    def refusal(self, layer: Any) -> str | None:
        """Say why this layer cannot be handled, None where it can."""
        return None

    @abstractmethod
    def run(self, layer: Any, plain: Any, recorded: Recorded, *inputs: Any, **options: Any) -> Any:
        """Compute the layer's output.

        Args:
            layer: the layer.
            plain: its own forward.
            recorded: computes a part by a rule, and keeps the examples' gradients of it.
            *inputs: as the layer was called.
            **options: the same.

        Raises:
            ValueError: it was called in a way that the rule does not know.
        """


class LayerRule(Rule):
    """A layer of one input and one output, whose backward pass is the rule's own."""

    def run(self, layer: Any, plain: Any, recorded: Recorded, *inputs: Any, **options: Any) -> Any:
        """Record the layer as it is.

        Raises:
            ValueError: it was given other than one tensor.
        """
        if len(inputs) != 1 or options or not isinstance(inputs[0], Tensor):
            raise ValueError(f"a {type(layer).__name__} was given other than one tensor")
        return recorded("", layer, self, inputs[0])

    @abstractmethod
    def forward(self, layer: Any, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the output, and what :meth:`backward` needs."""

    @abstractmethod
    def backward(
        self,
        layer: Any,
        saved: tuple[Tensor, ...],
        grad_output: Tensor,
        needs_input: bool,
        views: int,
    ) -> tuple[Tensor | None, Contribution]:
        """Return the gradient of the input, if it is needed, and the examples' gradients.

        Args:
            layer: as in forward.
            saved: what forward left.
            grad_output: (B K, ...).
            needs_input: whether the gradient of the input is needed.
            views: K, of each example.
        """


@dataclass
class Rows:
    """Examples' gradients that are small enough to be kept.

    For each parameter, pieces of (b, *parameter.shape), in the order of the examples.
    """

    rows: dict[Tensor, Sequence[Tensor]]
    rounding: Tensor | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Measure them."""
        squares = [
            torch.cat([squared_norms(piece) for piece in pieces]) for pieces in self.rows.values()
        ]
        self.squared_norms = torch.stack(squares).sum(0)

    def add_weighted_sum(self, factors: Tensor, finite: Tensor | None, sums: Sums) -> None:
        """Σ_i factors_i row_i as products of a vector and a matrix."""
        for parameter, pieces in self.rows.items():
            total, start = sums[parameter].view(-1), 0
            for piece in pieces:
                part = slice(start, start + len(piece))
                flat = precise(piece.flatten(1))
                if finite is not None:
                    flat.masked_fill_(~finite[part, None], 0.0)
                total.addmv_(flat.t(), factors[part])
                start = part.stop
