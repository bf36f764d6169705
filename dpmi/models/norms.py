"""Norm layers that differential privacy can live with, in place of BatchNorm."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

GROUPS = 32


class FrozenStatisticsBatchNorm(nn.Module):
    """BatchNorm whose mean and variance are constants, with trainable weight and bias.

    The statistics come from public pretraining and are never updated, so an example's output
    depends on that example alone: valid under per-example clipping.

    Args:
        source: the pretrained layer whose statistics and affine parameters are taken over.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, source: nn.BatchNorm2d) -> None:
        super().__init__()
        assert source.running_mean is not None
        assert source.running_var is not None
        self.weight = nn.Parameter(source.weight.detach().clone())
        self.bias = nn.Parameter(source.bias.detach().clone())
        self.register_buffer("running_mean", source.running_mean.clone())
        self.register_buffer("running_var", source.running_var.clone())
        self.eps = source.eps

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return nn.functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )


def group_norm_from_batch_norm(source: nn.BatchNorm2d) -> nn.GroupNorm:
    """GroupNorm that computes what the BatchNorm did, on an image that looks like the average.

    BatchNorm normalises a channel c by constants: y = γ_c (x - μ_c) / σ_c + β_c. GroupNorm
    normalises it by its group's mean m and standard deviation s in the image at hand. Where these
    equal the group's population values, m_g = mean(μ_c) and s_g² = mean(σ_c² + μ_c²) - m_g², the
    choice γ'_c = γ_c s_g / σ_c, β'_c = β_c + γ_c (m_g - μ_c) / σ_c gives the same y.

    Preserved: the function, at the population's group statistics, and with it the filters that
    pretraining found and the proportions between channels. Not preserved: how an image's own
    statistics differ from the population's - GroupNorm divides that contrast away in each image.

    Args:
        source: pretrained layer with running statistics. It gets 32 groups of channels; where they
            do not divide the channels, as many as divide both.
    """
    assert source.running_mean is not None
    assert source.running_var is not None
    groups = math.gcd(GROUPS, source.num_features)
    mean, variance = source.running_mean, source.running_var + source.eps
    grouped = mean.view(groups, -1)
    group_mean = grouped.mean(1, keepdim=True)
    second_moment = (variance.view(groups, -1) + grouped.square()).mean(1, keepdim=True)
    group_variance = second_moment - group_mean.square()
    target = nn.GroupNorm(groups, source.num_features, eps=source.eps)
    slope = source.weight / variance.sqrt()
    with torch.no_grad():
        shift = (group_mean - grouped).reshape(-1)
        target.weight.copy_(slope * group_variance.sqrt().expand_as(grouped).reshape(-1))
        target.bias.copy_(source.bias + slope * shift)
    return target


def convert_norms(net: nn.Module, norm: str) -> None:
    """Replace every BatchNorm2d of ``net`` in place by ``norm``: "batch", "group", "frozen_batch".

    Raises:
        ValueError: another name.
    """
    if norm == "batch":
        return
    makers: dict[str, Callable[[nn.BatchNorm2d], nn.Module]] = {
        "group": group_norm_from_batch_norm,
        "frozen_batch": FrozenStatisticsBatchNorm,
    }
    if norm not in makers:
        raise ValueError(f"norm={norm!r}: allowed are batch, group, frozen_batch")
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, makers[norm](child))
