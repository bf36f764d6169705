"""DenseNet-121 (Huang et al. 2017, arXiv 1608.06993), also torchxrayvision's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpmi.backbones import Backbone

if TYPE_CHECKING:
    from torch import nn


def _make(classes: int, side: int) -> nn.Module:
    from dpmi.backbones._out_of_place import OutOfPlaceDenseNet

    net: nn.Module = OutOfPlaceDenseNet(32, (6, 12, 24, 16), 64, num_classes=classes)
    return net


BACKBONE = Backbone(
    _make,
    "DenseNet121_Weights.IMAGENET1K_V1",
    "classifier",
    {"stem": ("features.conv0", "features.norm0")}
    | {f"layer{i}": (f"features.denseblock{i}", f"features.transition{i}") for i in (1, 2, 3)}
    | {"layer4": ("features.denseblock4", "features.norm5")},
    older=((r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2."),),
)
