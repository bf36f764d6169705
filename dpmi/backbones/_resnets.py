"""What the ResNets have in common (He et al. 2016, arXiv 1512.03385)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from dpmi.backbones import Backbone

if TYPE_CHECKING:
    from torch import nn


def resnet(block: Literal["basic", "bottleneck"], blocks: list[int], imagenet: str) -> Backbone:
    """A ResNet of so many blocks a stage."""

    def make(classes: int, side: int) -> nn.Module:
        from torchvision.models import ResNet

        from dpmi.backbones._out_of_place import OutOfPlaceBlock, OutOfPlaceBottleneck

        kind = OutOfPlaceBlock if block == "basic" else OutOfPlaceBottleneck
        net: nn.Module = ResNet(kind, blocks, num_classes=classes)
        return net

    stages: dict[str, tuple[str, ...]] = {"stem": ("conv1", "bn1")}
    stages |= {f"layer{i}": (f"layer{i}",) for i in (1, 2, 3, 4)}
    return Backbone(make, imagenet, "fc", stages)
