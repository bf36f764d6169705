"""Per-example gradients of BatchNorm with constant statistics, for both engines.

The models do not know of clipping, nor privacy of the models: it stands here, where they meet.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dpmi.models.norms import FrozenStatisticsBatchNorm
from dpmi.privacy.engines.clipping import of_examples
from dpmi.privacy.engines.rules import Contribution, LayerRule, Rows


class FrozenBatchNormRule(LayerRule):
    """y = w (x - μ)/σ + b, with w and b seen as one for each example.

    On the batch as one example of B C channels the kernels' gradient of w has a value for each
    example and channel: it comes with the gradient of the input, at no price.
    """

    def forward(
        self, layer: FrozenStatisticsBatchNorm, x: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(B, C, H, W) to the same shape."""
        x = x.contiguous()
        y = nn.functional.batch_norm(
            x,
            layer.running_mean,
            layer.running_var,
            layer.weight,
            layer.bias,
            False,
            0.0,
            layer.eps,
        )
        return y, (x,)

    def backward(
        self,
        layer: FrozenStatisticsBatchNorm,
        saved: tuple[Tensor, ...],
        grad_output: Tensor,
        needs_input: bool,
        views: int,
    ) -> tuple[Tensor | None, Contribution]:
        """(B K, C, H, W) to the same shape."""
        (x,) = saved
        b, c, h, w = x.shape
        grad_input, weight, bias = torch.ops.aten.native_batch_norm_backward(
            grad_output.contiguous().view(1, b * c, h, w), x.view(1, b * c, h, w),
            layer.weight.repeat(b), layer.running_mean.repeat(b), layer.running_var.repeat(b),
            None, None, False, layer.eps, [needs_input, True, True],
        )  # fmt: skip
        own = {layer.weight: weight.view(b, c), layer.bias: bias.view(b, c)}
        kept = Rows({p: [of_examples(row, views)] for p, row in own.items() if p.requires_grad})
        return grad_input.view_as(x) if needs_input else None, kept


def frozen_batch_norm_grad_sampler(
    layer: nn.Module, activations: list[Tensor], backprops: Tensor
) -> dict[Tensor, Tensor]:
    """Per-example gradients of the affine part of a BatchNorm with constant statistics.

    y = w (x - μ)/σ + b, so dL/dw = Σ_hw dy (x - μ)/σ and dL/db = Σ_hw dy.

    Args:
        layer: the FrozenStatisticsBatchNorm.
        activations: its input, (B, C, H, W), alone in a list.
        backprops: gradient of the loss by its output, (B, C, H, W).

    Returns:
        (B, C) for the weight and for the bias.
    """
    assert isinstance(layer, FrozenStatisticsBatchNorm)
    statistics = (layer.running_mean, layer.running_var)
    normalised = nn.functional.batch_norm(activations[0], *statistics, eps=layer.eps)
    samples: dict[Tensor, Tensor] = {}
    if layer.weight.requires_grad:
        samples[layer.weight] = torch.einsum("bchw,bchw->bc", backprops, normalised)
    if layer.bias.requires_grad:
        samples[layer.bias] = backprops.sum((2, 3))
    return samples
