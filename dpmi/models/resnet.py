"""ResNet-18 (He et al. 2016) with a norm layer that differential privacy can live with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from dpmi.models.prior import DecidingNetwork

# Of ImageNet, as torchvision's weights expect them: public, never computed from the user's images.
INPUT_MEAN = (0.485, 0.456, 0.406)
INPUT_STD = (0.229, 0.224, 0.225)
GROUPS = 32


class OutOfPlaceBlock(BasicBlock):
    """torchvision's block without in-place operations, which backward hooks forbid."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H', W')."""
        out = nn.functional.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        identity = x if self.downsample is None else self.downsample(x)
        return nn.functional.relu(out + identity)


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


def group_norm_from_batch_norm(source: nn.BatchNorm2d, groups: int = GROUPS) -> nn.GroupNorm:
    """GroupNorm that computes what the BatchNorm did, on an image that looks like the average.

    BatchNorm normalises a channel c by constants: y = γ_c (x - μ_c) / σ_c + β_c. GroupNorm
    normalises it by its group's mean m and standard deviation s in the image at hand. Where these
    equal the group's population values, m_g = mean(μ_c) and s_g² = mean(σ_c² + μ_c²) - m_g², the
    choice γ'_c = γ_c s_g / σ_c, β'_c = β_c + γ_c (m_g - μ_c) / σ_c gives the same y.

    Preserved: the function, at the population's group statistics, and with it the filters that
    pretraining found and the proportions between channels. Not preserved: how an image's own
    statistics differ from the population's - GroupNorm divides that contrast away in each image.

    Args:
        source: pretrained layer with running statistics.
        groups: groups of channels; must divide the channels.
    """
    assert source.running_mean is not None
    assert source.running_var is not None
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


class ResNet18(DecidingNetwork):
    """torchvision's ResNet-18 on images in [0, 1] of one or three channels.

    Args:
        num_classes: logits of the head.
    """

    input_mean: Tensor
    input_std: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.net = ResNet(OutOfPlaceBlock, [2, 2, 2, 2], num_classes=num_classes)
        self.net.relu = nn.ReLU(inplace=False)
        self.register_buffer("input_mean", torch.tensor(INPUT_MEAN).view(1, 3, 1, 1))
        self.register_buffer("input_std", torch.tensor(INPUT_STD).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1 or 3, H, W) in [0, 1] to logits (B, num_classes). Gray is repeated to RGB."""
        return self.decided(self.net((images - self.input_mean) / self.input_std))

    def freeze(self, last: str) -> None:
        """Keep the weights of all layers up to one and its own.

        Args:
            last: "stem" (the first convolution and its norm), "layer1", "layer2" or "layer3".
        """
        for name, layer in self.net.named_children():
            layer.requires_grad_(False)
            if name == {"stem": "bn1"}.get(last, last):
                return

    @torch.no_grad()
    def set_head(self, weight: Tensor, bias: Tensor) -> None:
        """Take a head over: (K, 512) and (K,)."""
        self.net.fc.weight.copy_(weight)
        self.net.fc.bias.copy_(bias)

    @torch.no_grad()
    def fold(self) -> None:
        """Into the bias of ``fc``."""
        self.net.fc.bias -= self.log_shares
        self.log_shares.zero_()

    def exported(self) -> dict[str, Tensor]:
        """A state dict of torchvision's ``resnet18``."""
        state: dict[str, Tensor] = self.net.state_dict()
        return state | {"fc.bias": state["fc.bias"] - self.log_shares}
