"""Whiten the features of a network by public images, before it is trained under noise."""

from __future__ import annotations

from functools import lru_cache

from torch import Tensor

from dpmi.models.network import ImageNetwork
from dpmi.pretraining.drawn import draw_images

DRAWN = 512  # images
_SEED = 2006  # of theirs: not those of pretraining
_AT_ONCE = 64


def whiten_by_public_images(network: ImageNetwork, channels: int, side: int) -> None:
    """Whiten what the last layer is given, in place; what the network computes stays the same.

    Args:
        network: before training, on the CPU.
        channels: of the images: 1 draws chests, 3 retinas.
        side: of the images, in pixels.
    """
    images = _drawn(channels, side)
    network.whiten(batch.float() / 255 for batch in images.split(_AT_ONCE))


@lru_cache(maxsize=1)  # shadow models and audits build many networks
def _drawn(channels: int, side: int) -> Tensor:
    """(n, channels, side, side), uint8."""
    images, _ = draw_images("chests" if channels == 1 else "retinas", _SEED, DRAWN, side)
    return images[:, :channels].contiguous()
