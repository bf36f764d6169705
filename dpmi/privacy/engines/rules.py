"""What book-keeping must know of a kind of layer: its two passes, and its examples' gradients.

A rule computes a layer forward, and backward to its input alone. In passing it keeps what gives,
later and for given factors, the weighted sum of the examples' gradients of the layer's own
parameters; and, at once, their squared norms (Bu et al. 2022, arXiv 2210.00038).

A layer meets K views of each example, next to one another in its batch of B K, whose losses were
divided by K: to the example's gradient they are more positions, as those of a convolution are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dpmi.privacy.engines.clipping import of_examples, squared_norms

Sums = dict[Tensor, Tensor]


def in_compute_type(x: Tensor) -> Tensor:
    """``x`` as autocast, where it is on, hands it to convolutions and products: in bfloat16."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


class Contribution(Protocol):
    """The gradients that the examples of a piece have of one layer's parameters."""

    squared_norms: Tensor  # (B,) float32, over the layer's trainable parameters

    def add_weighted_sum(self, factors: Tensor, finite: Tensor | None, sums: Sums) -> None:
        """Add Σ_i factors_i g_i to ``sums``; (B,) factors and mask as from ``clip_factors``."""
        ...


class LayerRule(Protocol):
    """How layers of one type are computed."""

    def refusal(self, layer: Any) -> str | None:
        """Say why this layer cannot be handled, None where it can."""
        ...

    def forward(self, layer: Any, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the output, and what :meth:`backward` needs."""
        ...

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
        ...


@dataclass
class Rows:
    """Examples' gradients that are small enough to be kept.

    For each parameter, pieces of (b, *parameter.shape), in the order of the examples.
    """

    rows: dict[Tensor, Sequence[Tensor]]

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
                if finite is not None:
                    piece[~finite[part]] = 0.0
                flat = piece.flatten(1).float()
                total.addmv_(flat.t(), factors[part])
                start = part.stop


@dataclass
class LinearContribution:
    """Of a linear layer on (B, I): g_i = outer(grad_output_i, x_i) is never made."""

    layer: nn.Linear
    x: Tensor
    grad_output: Tensor

    def __post_init__(self) -> None:
        """||outer(a, b)|| = ||a|| ||b||."""
        square = squared_norms(self.grad_output)
        total = torch.zeros_like(square)
        if self.layer.weight.requires_grad:
            total = total + square * squared_norms(self.x)
        if self.layer.bias is not None and self.layer.bias.requires_grad:
            total = total + square
        self.squared_norms = total

    def add_weighted_sum(self, factors: Tensor, finite: Tensor | None, sums: Sums) -> None:
        """(f a)^T x."""
        x, grad_output = self.x.float(), self.grad_output.float()
        if finite is not None:
            grad_output = grad_output.masked_fill(~finite[:, None], 0.0)
            x = x.masked_fill(~finite[:, None], 0.0)
        weighted = grad_output * factors[:, None]
        if self.layer.weight.requires_grad:
            sums[self.layer.weight].addmm_(weighted.t(), x)
        if self.layer.bias is not None and self.layer.bias.requires_grad:
            sums[self.layer.bias].add_(weighted.sum(0))


class LinearRule:
    """Linear layers on one vector an example."""

    def refusal(self, layer: nn.Linear) -> str | None:
        """None: all of them."""
        return None

    def forward(self, layer: nn.Linear, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(B, I) to (B, O).

        Raises:
            ValueError: the input has more axes.
        """
        if x.ndim != 2:
            raise ValueError(f"a Linear layer on {x.ndim} axes; allowed are (B, features)")
        x = in_compute_type(x)
        return nn.functional.linear(x, layer.weight, layer.bias), (x,)

    def backward(
        self,
        layer: nn.Linear,
        saved: tuple[Tensor, ...],
        grad_output: Tensor,
        needs_input: bool,
        views: int,
    ) -> tuple[Tensor | None, Contribution]:
        """(B K, O) to (B K, I). Of one view g_i is never made; of several it is, and measured."""
        weight = layer.weight.to(grad_output.dtype)
        grad_input = grad_output @ weight if needs_input else None
        if views == 1:
            return grad_input, LinearContribution(layer, saved[0], grad_output)
        x, wide = (t.float().unflatten(0, (-1, views)) for t in (saved[0], grad_output))
        own: dict[Tensor, Tensor] = {layer.weight: wide.transpose(1, 2) @ x}
        if layer.bias is not None:
            own[layer.bias] = wide.sum(1)
        return grad_input, Rows({p: [row] for p, row in own.items() if p.requires_grad})


class GroupNormRule:
    """GroupNorm, its weight and bias seen as one for each example.

    On the batch as one example of B C channels in B G groups, the kernels compute the same
    values, and their gradient of the weight has a value for each example and channel: the
    examples' gradients come with the gradient of the input, at no price.
    """

    def refusal(self, layer: nn.GroupNorm) -> str | None:
        """None: all of them."""
        return None

    def forward(self, layer: nn.GroupNorm, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(B, C, ...) to the same shape."""
        b, c = x.shape[:2]
        x = x.contiguous()
        if x.is_cuda:  # where the kernel takes one type only, and autocast chooses float32, too
            x = x.float()
        y, mean, rstd = torch.ops.aten.native_group_norm(
            x.view(1, b * c, -1), layer.weight.repeat(b), layer.bias.repeat(b),
            1, b * c, x[0, 0].numel(), b * layer.num_groups, layer.eps,
        )  # fmt: skip
        return y.view_as(x), (x, mean, rstd)

    def backward(
        self,
        layer: nn.GroupNorm,
        saved: tuple[Tensor, ...],
        grad_output: Tensor,
        needs_input: bool,
        views: int,
    ) -> tuple[Tensor | None, Contribution]:
        """(B K, C, ...) to the same shape."""
        x, mean, rstd = saved
        b, c = x.shape[:2]
        grad_input, weight, bias = torch.ops.aten.native_group_norm_backward(
            grad_output.contiguous().view(1, b * c, -1), x.view(1, b * c, -1), mean, rstd,
            layer.weight.repeat(b), 1, b * c, x[0, 0].numel(), b * layer.num_groups,
            [needs_input, True, True],
        )  # fmt: skip
        own = {layer.weight: weight.view(b, c), layer.bias: bias.view(b, c)}
        kept = Rows({p: [of_examples(row, views)] for p, row in own.items() if p.requires_grad})
        return grad_input.view_as(x) if needs_input else None, kept
