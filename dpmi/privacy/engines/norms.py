"""Norm layers under book-keeping: of each example's own statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dpmi.privacy.engines.clipping import of_examples, precise
from dpmi.privacy.engines.rules import Contribution, LayerRule, Rows


class GroupNormRule(LayerRule):
    """GroupNorm, its weight and bias seen as one for each example.

    On the batch as one example of B C channels in B G groups, the kernels compute the same
    values, and their gradient of the weight has a value for each example and channel: the
    examples' gradients come with the gradient of the input, at no price.
    """

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


class LayerNormRule(LayerRule):
    """LayerNorm over the last axes of (B, ..., *normalized_shape), with or without bias."""

    def forward(self, layer: nn.LayerNorm, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The same shape, in float32 at least."""
        x = precise(x).contiguous()
        y, mean, rstd = torch.ops.aten.native_layer_norm(
            x, layer.normalized_shape, layer.weight, layer.bias, layer.eps
        )
        return y, (x, mean, rstd)

    def backward(
        self,
        layer: nn.LayerNorm,
        saved: tuple[Tensor, ...],
        grad_output: Tensor,
        needs_input: bool,
        views: int,
    ) -> tuple[Tensor | None, Contribution]:
        """Gradients of weight and bias add up over the axes between."""
        x, mean, rstd = saved
        upstream, shape = precise(grad_output).contiguous(), layer.normalized_shape
        grad_input = None
        if needs_input:
            grad_input = torch.ops.aten.native_layer_norm_backward(
                upstream, x, shape, mean, rstd, layer.weight, layer.bias, [True, False, False]
            )[0]
        own = {layer.weight: upstream * ((x - mean) * rstd)}
        if layer.bias is not None:
            own[layer.bias] = upstream
        examples = len(x) // views
        return grad_input, Rows(
            {
                p: [values.reshape(examples, -1, *shape).sum(1)]
                for p, values in own.items()
                if p.requires_grad
            }
        )
