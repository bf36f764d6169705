"""Convolutions under book-keeping: the examples' gradient norms by the cheaper of two exact ways.

With T output positions, in all views of an example together, its weight gradient is
g = Σ_t grad_output_t ⊗ patch_t. Either it is made, example by example; or its norm comes from two
Gram matrices of T x T, ||g||² = Σ_{t,t'} <patch_t, patch_t'> <grad_output_t, grad_output_t'>, and
the weighted sum from one weight gradient of the whole batch ("mixed ghost norm", Bu et al. 2022,
arXiv 2205.10683).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dpmi.privacy.engines import tensor_cores
from dpmi.privacy.engines.clipping import of_examples, precise, squared_norms
from dpmi.privacy.engines.rules import (
    COST_OF_MOVING,
    Contribution,
    LayerRule,
    Rows,
    Sums,
    in_compute_type,
)

_EXAMPLES_A_CALL, _CHANNELS_OF_A_VECTOR = 8, 16


class ConvolutionRule(LayerRule):
    """Conv2d with any stride, padding with zeros, dilation, groups, with or without bias."""

    def refusal(self, layer: nn.Conv2d) -> str | None:
        """Refuse what is padded with other than zeros, or not by the same on both sides."""
        if layer.padding_mode != "zeros":
            return f"padding_mode={layer.padding_mode!r}: allowed is 'zeros'"
        if layer.padding == "same" and any(
            d * (k - 1) % 2 for d, k in zip(layer.dilation, layer.kernel_size, strict=True)
        ):
            return (
                "padding='same' of an even kernel pads one side more: give the padding in numbers"
            )
        return None

    def forward(self, layer: nn.Conv2d, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(B, C, H, W) to (B, C', H', W')."""
        x = in_compute_type(x)
        y = nn.functional.conv2d(
            x, layer.weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups
        )
        return y, (x,)

    def backward(
        self,
        layer: nn.Conv2d,
        saved: tuple[Tensor, ...],
        grad_output: Tensor,
        needs_input: bool,
        views: int,
    ) -> tuple[Tensor | None, Contribution]:
        """(B K, C', H', W') to (B K, C, H, W)."""
        (x,) = saved
        grad_input = _backward(layer, x, grad_output, 0) if needs_input else None
        bias = None
        if layer.bias is not None and layer.bias.requires_grad:
            bias = of_examples(precise(grad_output).sum((2, 3)), views)
        if not layer.weight.requires_grad:
            assert layer.bias is not None
            assert bias is not None
            return grad_input, Rows({layer.bias: [bias]})
        if gram_is_cheaper(layer, grad_output, views):
            return grad_input, GramContribution(layer, x, grad_output, bias, views)
        rows: dict[Tensor, Sequence[Tensor]] = {
            layer.weight: _weight_gradients(layer, x, grad_output, views)
        }
        if bias is not None:
            assert layer.bias is not None
            rows[layer.bias] = [bias]
        return grad_input, Rows(rows)


def gram_is_cheaper(layer: nn.Conv2d, grad_output: Tensor, views: int) -> bool:
    """Compare, for one example, what the two ways cost beyond one weight gradient of the batch."""
    positions = views * grad_output[0, 0].numel()
    phases = math.prod(min(s, k) for s, k in zip(layer.stride, layer.kernel_size, strict=True))
    kernel = math.prod(layer.kernel_size)
    grams = positions**2 * (layer.in_channels * phases + layer.out_channels)
    grams += COST_OF_MOVING * positions**2 * layer.groups * (kernel + 2)
    rows = COST_OF_MOVING * 3 * layer.weight.numel()  # written, measured, summed
    return grams < rows


@dataclass
class GramContribution:
    """Of a convolution: input and output gradient, until the factors are known.

    What was measured is what is summed: both go by these two tensors as they are, in float32. A
    sum in the bfloat16 of the passes, rounded to 8 bits, would move by more than the clip norm
    with one example. On tensor cores what is summed is rounded, by no more than ``rounding``; see
    :mod:`dpmi.privacy.engines.tensor_cores`.
    """

    layer: nn.Conv2d
    x: Tensor
    grad_output: Tensor
    bias: Tensor | None
    views: int

    def __post_init__(self) -> None:
        """Measure without making the gradients."""
        on_cores = tensor_cores.suit(self.x, self.grad_output)
        with tensor_cores.tf32(on_cores):
            total = gram_squared_norms(self.layer, self.x, self.grad_output, self.views)
        self.rounding: Tensor | None = None
        if on_cores:
            uncancelled = _uncancelled(self.layer, self.x, self.grad_output, self.views)
            products = self.layer.weight[0].numel() + self.layer.out_channels // self.layer.groups
            total = total + tensor_cores.measuring_error(products, uncancelled)
            self.rounding = tensor_cores.UNIT * uncancelled
        if self.bias is not None:
            total = total + squared_norms(self.bias)
        self.squared_norms = total

    def add_weighted_sum(self, factors: Tensor, finite: Tensor | None, sums: Sums) -> None:
        """One weight gradient of the batch, its output gradients weighted."""
        x, grad_output, bias = precise(self.x), precise(self.grad_output), self.bias
        if finite is not None:
            out = ~finite
            of_views = out.repeat_interleave(self.views).view(-1, 1, 1, 1)
            x = x.masked_fill(of_views, 0.0)
            grad_output = grad_output.masked_fill(of_views, 0.0)
            bias = None if bias is None else bias.masked_fill(out[:, None], 0.0)
        weighted = grad_output * factors.repeat_interleave(self.views).view(-1, 1, 1, 1)
        if self.rounding is not None:
            weighted = tensor_cores.rounded(weighted)
        with tensor_cores.tf32(self.rounding is not None):
            sums[self.layer.weight].add_(_backward(self.layer, x, weighted, 1))
        if bias is not None:
            assert self.layer.bias is not None
            sums[self.layer.bias].addmv_(bias.t(), factors)


def _uncancelled(layer: nn.Conv2d, x: Tensor, grad_output: Tensor, views: int) -> Tensor:
    """(B,) norms that the examples' weight gradients would have if no positions cancelled.

    Σ_t ||grad_output_t|| ||patch_t||, of each group by itself.
    """
    groups = layer.groups
    squares = [precise(m).square().unflatten(1, (groups, -1)).sum(2) for m in (x, grad_output)]
    ones = squares[0].new_ones(groups, 1, *layer.kernel_size)
    patches = nn.functional.conv2d(
        squares[0], ones, None, layer.stride, _padding(layer), layer.dilation, groups
    )
    positions = (patches.clamp(min=0.0).sqrt() * squares[1].sqrt()).flatten(2).sum(2)
    return positions.unflatten(0, (-1, views)).sum(1).norm(dim=1)


def _padding(layer: nn.Conv2d) -> tuple[int, int]:
    if layer.padding == "valid":
        return 0, 0
    if layer.padding == "same":
        h, w = (d * (k - 1) // 2 for d, k in zip(layer.dilation, layer.kernel_size, strict=True))
        return h, w
    assert not isinstance(layer.padding, str)
    return layer.padding[0], layer.padding[1]


def _backward(layer: nn.Conv2d, x: Tensor, grad_output: Tensor, of: int) -> Tensor:
    """Gradient of the input (``of=0``) or of the weight (``of=1``)."""
    result: Tensor = torch.ops.aten.convolution_backward(
        grad_output, x, layer.weight.to(x.dtype), None, layer.stride, _padding(layer),
        layer.dilation, False, [0, 0], layer.groups, [of == 0, of == 1, False],
    )[of]  # fmt: skip
    return result


def _weight_gradients(layer: nn.Conv2d, x: Tensor, grad_output: Tensor, views: int) -> list[Tensor]:
    """Pieces of (b, C', C/groups, kh, kw), in the order of the examples.

    Some examples at a time, as the groups of one convolution: its weight gradient has a part for
    each, over a batch of their views. On a CPU that is up to three times as fast as a call an
    example, where there are channels enough to fill a vector; and both are faster than unfolding
    and a batched product.
    """
    at_once = _EXAMPLES_A_CALL if layer.in_channels >= _CHANNELS_OF_A_VECTOR * layer.groups else 1
    shape = layer.weight.shape
    pieces = []
    images = at_once * views
    for some_x, some_grad in zip(x.split(images), grad_output.split(images), strict=True):
        b = len(some_x) // views
        weight = x.new_empty(1).expand(b * shape[0], *shape[1:])  # only its shape is read
        gradients = torch.ops.aten.convolution_backward(
            _as_one(some_grad, views), _as_one(some_x, views), weight, None, layer.stride,
            _padding(layer), layer.dilation, False, [0, 0], b * layer.groups, [False, True, False],
        )  # fmt: skip
        pieces.append(gradients[1].view(b, *shape))
    return pieces


def _as_one(x: Tensor, views: int) -> Tensor:
    """(B K, C, H, W) to (K, B C, H, W)."""
    return x.unflatten(0, (-1, views)).transpose(0, 1).reshape(views, -1, *x.shape[2:])


def gram_squared_norms(layer: nn.Conv2d, x: Tensor, grad_output: Tensor, views: int) -> Tensor:
    """Squared norms (B,) of the examples' weight gradients, from Gram matrices.

    Patches are never unfolded. A patch is the input at the positions s t + d o - p for the kernel's
    offsets o; so <patch_t, patch_t'> = Σ_o <x[s t + d o - p], x[s t' + d o - p]> adds up shifted
    parts of the Gram matrix of the input itself, kernel-many times smaller. Offsets that meet the
    same positions modulo the stride share one.

    Positions are counted along rows of ``columns``, so that a shift in the plane is a shift of that
    count. The columns beyond the input are zeros, and a shift that leaves a row on either side
    ends in them; one that leaves the plane leaves the matrix. The columns beyond the output are
    zeros too, and silence what is counted there. Each view of an example has such a plane, and the
    matrices a block for each two of them, which a shift moves alike.

    Args:
        layer: the convolution.
        x: (B K, C, H, W) input.
        grad_output: (B K, C', H', W').
        views: K, of each of the B examples.
    """
    b, groups = len(x) // views, layer.groups
    height, width = grad_output.shape[2:]
    squares = precise(x.new_zeros(b * groups))
    outputs: dict[int, Tensor] = {}  # Gram matrix of the output gradient, by the columns it got
    for (phase_h, phase_w), shifts in _shifts(layer).items():
        lattice = x[:, :, phase_h :: layer.stride[0], phase_w :: layer.stride[1]]
        if not lattice.numel():  # kernels larger than the input have phases that meet only padding
            continue
        to_left = max(0, *(-shift[1] for shift in shifts))
        to_right = max(0, *(shift[1] for shift in shifts))
        columns = max(lattice.shape[3] + to_left, width + to_right)
        if columns not in outputs:
            outputs[columns] = _gram(grad_output, columns, groups, views)
        inputs, output = _gram(lattice, columns, groups, views), outputs[columns]
        positions, available = height * columns, inputs.shape[2]
        patches = torch.zeros_like(output)
        for shift_h, shift_w in shifts:
            shift = shift_h * columns + shift_w
            first, last = max(0, -shift), min(positions, available - shift)
            if first < last:
                here, there = slice(first, last), slice(first + shift, last + shift)
                patches[:, :, here, :, here] += inputs[:, :, there, :, there]
        squares += patches.mul_(output).flatten(3).sum(3).flatten(1).sum(1)
    # A norm of nearly 0 may come out as a negative square.
    return squares.view(b, groups).sum(1).clamp(min=0.0)


def _gram(maps: Tensor, columns: int, groups: int, views: int) -> Tensor:
    """Inner products of the T positions of each view of (B K, C, H, W), rows made ``columns``.

    Returns:
        (B groups, K, T, K, T).
    """
    wide = nn.functional.pad(precise(maps), (0, columns - maps.shape[3]))
    planes = wide.reshape(-1, views, groups, maps.shape[1] // groups, maps.shape[2] * columns)
    vectors = planes.permute(0, 2, 3, 1, 4).flatten(3).flatten(0, 1)  # (B groups, C/groups, K T)
    products = torch.bmm(vectors.transpose(1, 2), vectors)
    return products.unflatten(2, (views, -1)).unflatten(1, (views, -1))


def _shifts(layer: nn.Conv2d) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """The kernel's offsets as shifts on the lattices of the stride: phase to shifts."""
    (kh, kw), (sh, sw), (dh, dw) = layer.kernel_size, layer.stride, layer.dilation
    pad_h, pad_w = _padding(layer)
    shifts = defaultdict(list)
    for h in range(-pad_h, kh * dh - pad_h, dh):
        for w in range(-pad_w, kw * dw - pad_w, dw):
            shifts[h % sh, w % sw].append((h // sh, w // sw))
    return shifts
