"""ConvNeXt-T (Liu et al. 2022, arXiv 2201.03545), without stochastic depth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpmi.backbones import Backbone

if TYPE_CHECKING:
    from torch import nn


def _make(classes: int, side: int) -> nn.Module:
    from torchvision.models import convnext_tiny

    net: nn.Module = convnext_tiny(num_classes=classes, stochastic_depth_prob=0.0)
    return net


_TIMM = [
    (r"^stem\.", "features.0."),
    (r"^head\.norm\.", "classifier.0."),
    (r"^head\.fc\.", "classifier.2."),
]
for _i in range(4):
    _TIMM += [(rf"^stages\.{_i}\.downsample\.", f"features.{2 * _i}.")]
    _TIMM += [
        (rf"^stages\.{_i}\.blocks\.(\d+)\.{timm}", rf"features.{2 * _i + 1}.\1.{own}")
        for timm, own in (
            (r"conv_dw\.", "block.0."),
            (r"norm\.", "block.2."),
            (r"mlp\.fc1\.", "block.3."),
            (r"mlp\.fc2\.", "block.5."),
            ("gamma", "layer_scale"),
        )
    ]

BACKBONE = Backbone(
    _make,
    "ConvNeXt_Tiny_Weights.IMAGENET1K_V1",
    "classifier.2",
    {"stem": ("features.0",), "layer1": ("features.1",)}
    | {f"layer{i}": (f"features.{2 * i - 2}", f"features.{2 * i - 1}") for i in (2, 3, 4)},
    batch_norm=False,
    samplers=False,
    timm=tuple(_TIMM),
)
