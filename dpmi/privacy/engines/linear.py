"""Linear layers under book-keeping, on one vector an example or on many.

With T vectors of an example, in all its views together, its weight gradient is
g = Σ_t grad_output_t ⊗ x_t. Either it is made, example by example; or its norm comes from two
Gram matrices, ||g||² = Σ_{t,t'} <x_t, x_t'> <grad_output_t, grad_output_t'>, and the weighted sum
from one product for the whole batch (Li et al. 2022, arXiv 2110.05679, section 4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from dpmi.privacy.engines import tensor_cores
from dpmi.privacy.engines.clipping import precise, squared_norms
from dpmi.privacy.engines.rules import (
    COST_OF_MOVING,
    Contribution,
    LayerRule,
    Rows,
    Sums,
    in_compute_type,
)


class Affine(Protocol):
    """Whoever holds the parameters of x W^T + b: a Linear layer, or an attention's part."""

    weight: Tensor  # (O, I)
    bias: Tensor | None  # (O,)


class LinearRule(LayerRule):
    """Linear layers on (B, ..., I)."""

    def forward(self, layer: Affine, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(B, ..., I) to (B, ..., O).

        Raises:
            ValueError: the input has no axis of examples.
        """
        if x.ndim < 2:
            raise ValueError(
                "a Linear layer on one axis; allowed are (B, features), (B, ..., features)"
            )
        x = in_compute_type(x)
        return nn.functional.linear(x, layer.weight, layer.bias), (x,)

    def backward(
        self,
        layer: Affine,
        saved: tuple[Tensor, ...],
        grad_output: Tensor,
        needs_input: bool,
        views: int,
    ) -> tuple[Tensor | None, Contribution]:
        """(B K, ..., O) to (B K, ..., I)."""
        (x,) = saved
        grad_input = grad_output @ layer.weight.to(grad_output.dtype) if needs_input else None
        examples = len(x) // views
        x = x.reshape(examples, -1, x.shape[-1])
        wide = grad_output.reshape(examples, -1, grad_output.shape[-1])
        if not layer.weight.requires_grad or grams_are_better(x.shape[1], *layer.weight.shape):
            return grad_input, LinearContribution(layer, x, wide)
        on_cores = tensor_cores.suit(x, wide)
        x, wide = precise(x), precise(wide)
        with tensor_cores.tf32(on_cores):  # which has all digits of bfloat16
            own: dict[Tensor, Tensor] = {layer.weight: wide.transpose(1, 2) @ x}
        if layer.bias is not None:
            own[layer.bias] = wide.sum(1)
        return grad_input, Rows({p: [row] for p, row in own.items() if p.requires_grad})


def grams_are_better(vectors: int, outputs: int, inputs: int) -> bool:
    """Whether an example's gradient costs more, or takes more memory, than what it is made of."""
    if outputs * inputs > vectors * (outputs + inputs):
        return True
    grams = vectors**2 * (outputs + inputs + 3 * COST_OF_MOVING)
    return grams < 3 * COST_OF_MOVING * outputs * inputs  # written, measured, summed


@dataclass
class LinearContribution:
    """Of a linear layer: (B, T, I) and (B, T, O), until the factors are known.

    On tensor cores what is summed is rounded, by no more than ``rounding``.
    """

    layer: Affine
    x: Tensor
    grad_output: Tensor

    def __post_init__(self) -> None:
        """Measure without making the gradients."""
        x, grad_output = precise(self.x), precise(self.grad_output)
        total = grad_output.new_zeros(len(x))
        if self.layer.weight.requires_grad:
            total = total + _squared_norms_of_products(x, grad_output)
        self.rounding: Tensor | None = None
        if tensor_cores.suit(self.x, self.grad_output):
            uncancelled = (x.norm(dim=2) * grad_output.norm(dim=2)).sum(1)
            self.rounding = tensor_cores.UNIT * uncancelled
        if self.layer.bias is not None and self.layer.bias.requires_grad:
            square = squared_norms(grad_output.sum(1))
            total = total + square
        self.squared_norms = total

    def add_weighted_sum(self, factors: Tensor, finite: Tensor | None, sums: Sums) -> None:
        """(f a)^T x, over all vectors of the batch."""
        x, grad_output = precise(self.x), precise(self.grad_output)
        if finite is not None:
            grad_output = grad_output.masked_fill(~finite[:, None, None], 0.0)
            x = x.masked_fill(~finite[:, None, None], 0.0)
        weighted = (grad_output * factors[:, None, None]).flatten(0, 1)
        if self.layer.weight.requires_grad:
            factored = weighted if self.rounding is None else tensor_cores.rounded(weighted)
            with tensor_cores.tf32(self.rounding is not None):
                sums[self.layer.weight].addmm_(factored.t(), x.flatten(0, 1))
        if self.layer.bias is not None and self.layer.bias.requires_grad:
            sums[self.layer.bias].add_(weighted.sum(0))


def _squared_norms_of_products(x: Tensor, grad_output: Tensor) -> Tensor:
    """(B,) squared norms of Σ_t grad_output_t ⊗ x_t.

    In double: where tokens have a hundred times more in common than apart, float32 would find a
    norm that is off by more than the plan allows for rounding.
    """
    if x.shape[1] == 1:  # ||outer(a, b)|| = ||a|| ||b||
        return squared_norms(x[:, 0]) * squared_norms(grad_output[:, 0])
    x, grad_output, single = x.double(), grad_output.double(), x.dtype
    products = torch.bmm(x, x.transpose(1, 2))
    products *= torch.bmm(grad_output, grad_output.transpose(1, 2))
    # A norm of nearly 0 may come out as a negative square.
    return products.sum((1, 2)).clamp(min=0.0).to(single)
