"""The frozen public network that turns an image into features, as fast as a processor can.

It is evaluated and never trained: BatchNorm is a constant factor and shift for each channel, and is
folded into the convolution before it. What it computes of an image depends on that image alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dpmi.models.resnet import INPUT_MEAN, INPUT_STD
from dpmi.models.weights import build_resnet18

STAGES = {"layer1": 64, "layer2": 128, "layer3": 256, "layer4": 512}  # channels of each
VIEWS = ("identity", "mirror", "half_turn")
EXPOSURES = ("as_is", "per_image")

# Of a gray value under ImageNet's statistics: an image whose exposure is standardised has these.
_MEAN, _STD = sum(INPUT_MEAN) / 3, sum(INPUT_STD) / 3
_SMALLEST_STD = 1e-3  # a quarter of a gray value: below it an image is blank, and stays so


def stages_to(deepest: str) -> list[str]:
    """The stages of ResNet-18 up to one of them, in order."""
    names = list(STAGES)
    return names[: names.index(deepest) + 1]


class FrozenBackbone(nn.Module):
    """ResNet-18 up to a stage, BatchNorm folded into convolutions, without anything to train.

    Args:
        state: torchvision's ``resnet18`` state dict, of public pretraining.
        deepest: the last stage that is wanted.

    Raises:
        UserError: the state dict is not a ResNet-18's.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, state: dict[str, Tensor], deepest: str) -> None:
        super().__init__()
        net = build_resnet18(1, "batch", state)
        net.eval()
        resnet = net.net
        stem = fuse_conv_bn_eval(resnet.conv1, resnet.bn1)
        self.stem = nn.Sequential(stem, nn.ReLU(inplace=True), resnet.maxpool)
        self.stages = nn.ModuleDict()
        for name in stages_to(deepest):
            stage: nn.Sequential = resnet.get_submodule(name)
            for block in stage:
                _fold(block)
            self.stages[name] = stage
        self.register_buffer("mean", net.input_mean)
        self.register_buffer("std", net.input_std)
        self.requires_grad_(False)
        self.eval()
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 1 or 3, H, W) in [0, 1] to each stage's channel means, (B, C)."""
        x = (images - self.mean) / self.std
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        pooled = {}
        for name, stage in self.stages.items():
            x = stage(x)
            pooled[name] = x.mean((2, 3))
        return pooled


def _fold(block: Any) -> None:
    """Fold a basic block's three BatchNorms at most."""
    pairs = [(block, "conv1", "bn1"), (block, "conv2", "bn2")]
    if block.downsample is not None:
        pairs.append((block.downsample, "0", "1"))
    for parent, conv, norm in pairs:
        folded = fuse_conv_bn_eval(parent.get_submodule(conv), parent.get_submodule(norm))
        setattr(parent, conv, folded)
        setattr(parent, norm, nn.Identity())


def seen(images: Tensor, view: str, exposure: str) -> Tensor:
    """Images as a view of them, each by itself.

    Args:
        images: (B, C, H, W) in [0, 1].
        view: "identity"; "mirror", left and right exchanged; "half_turn", turned by 180 degrees.
        exposure: "as_is"; "per_image" gives the values of each image, all channels together, the
            mean and standard deviation of ImageNet's gray values, so that it matters no more how
            long a film was exposed.
    """
    if exposure == "per_image":
        values = images.flatten(1)
        std, mean = torch.std_mean(values, 1, correction=0)
        std = std.clamp(min=_SMALLEST_STD).view(-1, 1, 1, 1)
        images = (images - mean.view(-1, 1, 1, 1)) / std * _STD + _MEAN
    flipped = {"identity": (), "mirror": (3,), "half_turn": (2, 3)}[view]
    return images.flip(flipped) if flipped else images
