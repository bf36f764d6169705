"""The inputs of a pretrained network's last layer on the training images, before training."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from torch import Tensor

from dpmi.backbones import PENULTIMATE
from dpmi.data.prepare import PreparedData, prepare
from dpmi.features.cache import FeatureRequest, pooled_features
from dpmi.features.projection import drawn_images
from dpmi.features.vectors import unit
from dpmi.models.network import Pretrained


def penultimate_vectors(
    data: PreparedData,
    *,
    image_size: int,
    pretrained: Pretrained,
    cache_dir: Path,
    console: Console,
    device: str = "cpu",
) -> tuple[Tensor, float]:
    """What the last layer is given, where BatchNorm is frozen.

    Args:
        data: decoded images.
        image_size: side of the square cut from the images' centre, in pixels.
        pretrained: the network, of public data.
        cache_dir: features are kept in ``cache_dir/features``.
        console: shows the progress.
        device: that computes them.

    Returns:
        (n, D) float32, a row of length 1 for each training image; and the length that rows have
        before, which is public: the median over images that the program draws.

    Raises:
        UserError: the weights are not of this network, or the cache cannot be written.
    """

    def pooled(images: PreparedData) -> Tensor:
        request = FeatureRequest(images, image_size, pretrained, PENULTIMATE, "identity", "as_is")
        return pooled_features(request, cache_dir, console, device)["train"][PENULTIMATE].double()

    drawn = pooled(prepare(drawn_images(data.channels, image_size), cache_dir))
    return unit(pooled(data)).float(), float(drawn.norm(dim=1).median())
