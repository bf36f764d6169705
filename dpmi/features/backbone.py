"""The frozen public network that turns an image into features, as fast as a processor can.

It is evaluated and never trained: BatchNorm is a constant factor and shift for each channel, and is
folded into the convolution before it, where there is one. What it computes of an image depends on
that image alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torchvision.models.feature_extraction import create_feature_extractor

from dpmi.backbones import PENULTIMATE
from dpmi.models.network import Pretrained, build_network
from dpmi.models.preprocessing import IMAGENET, INPUTS

VIEWS = ("identity", "mirror", "half_turn")
EXPOSURES = ("as_is", "per_image")

# Of a gray value under ImageNet's statistics: an image whose exposure is standardised has these.
_MEAN, _STD = sum(INPUTS[IMAGENET].mean) / 3, sum(INPUTS[IMAGENET].std) / 3
_SMALLEST_STD = 1e-3  # a quarter of a gray value: below it an image is blank, and stays so


class FrozenBackbone(nn.Module):
    """A network up to what is wanted of it, without anything to train.

    Args:
        pretrained: which, of public pretraining.
        deepest: the last of the backbone's ``features`` that is wanted.
        side: of the images, in pixels.

    Attributes:
        channels: number of values of each feature.

    Raises:
        UserError: the state dict is not of this network.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, pretrained: Pretrained, deepest: str, side: int) -> None:
        super().__init__()
        net = build_network(
            pretrained.name, 1, "batch", pretrained.state, side=side, shown=pretrained.input
        )
        net.eval()
        head, stages = net.backbone.head, net.backbone.stages
        net.net.set_submodule(head, nn.Identity())
        wanted = net.backbone.features_to(deepest)
        nodes = {(head if name == PENULTIMATE else stages[name][-1]): name for name in wanted}
        extractor = create_feature_extractor(net.net, nodes, suppress_diff_warning=True)
        self.extractor: nn.Module = fuse(extractor.eval(), inplace=True)
        self.register_buffer("mean", net.input_mean)
        self.register_buffer("std", net.input_std)
        self.requires_grad_(False)
        self.eval()
        self.to(memory_format=torch.channels_last)
        with torch.no_grad():
            shown = self.extractor(torch.zeros(1, self.mean.shape[1], side, side))
        self.channels = {name: shown[name].shape[1] for name in wanted}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 1 or 3, side, side) in [0, 1] to each feature, (B, C): of maps their means."""
        x = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        found: dict[str, Tensor] = self.extractor(x)
        return {n: found[n].mean((2, 3)) if found[n].ndim == 4 else found[n] for n in self.channels}


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
