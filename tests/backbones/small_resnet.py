"""A ResNet of 88 000 weights, for runs in which the network is not what is tested."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpmi.backbones import Backbone

if TYPE_CHECKING:
    from torch import nn

# Divisible by 4, so that GroupNorm has groups of several channels: a single pixel is no constant.
WIDTHS = (12, 24, 36, 60)


def _make(classes: int, side: int) -> nn.Module:
    from torch import nn
    from torchvision.models import ResNet

    from dpmi.backbones._out_of_place import OutOfPlaceBlock

    net = ResNet(OutOfPlaceBlock, [1, 1, 1, 1], num_classes=classes)
    net.inplanes = WIDTHS[0]
    net.conv1 = nn.Conv2d(3, WIDTHS[0], kernel_size=7, stride=2, padding=3, bias=False)
    net.bn1 = nn.BatchNorm2d(WIDTHS[0])
    for number, width in enumerate(WIDTHS, 1):
        layer = net._make_layer(OutOfPlaceBlock, width, 1, stride=1 if number == 1 else 2)
        setattr(net, f"layer{number}", layer)
    net.fc = nn.Linear(WIDTHS[-1], classes)
    return net


BACKBONE = Backbone(
    _make,
    "ResNet18_Weights.IMAGENET1K_V1",  # of another network: for weights that are given or drawn
    "fc",
    {"stem": ("conv1", "bn1")} | {f"layer{i}": (f"layer{i}",) for i in (1, 2, 3, 4)},
)
