"""The poster's augmentation: a small shift and enlargement, drawn for each image."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.transforms import v2

_AFFINE = v2.RandomAffine(degrees=0, translate=(0, 0.1), scale=(1, 1.1))


def affine_crops(images: NDArray[Any], crop: int, seed: int) -> NDArray[Any]:
    """Shift and enlarge each image at random, then cut out its centre.

    An image moves up or down by at most a tenth of its height, is enlarged about its centre by
    at most a tenth, and what moves in is black: torchvision's RandomAffine(degrees=0,
    translate=(0, 0.1), scale=(1, 1.1)) with its nearest-neighbour sampling, which draws the
    parameters here from torch's global generator, seeded anew. Without rotation or shear the
    sampling is one choice of rows and one of columns, which is much faster than a general grid.

    The poster did so to the whole resized image, this does it to the centre square that is
    cached. On square and wide originals, as X-rays mostly are, that is the same but for half a
    pixel of centring. On tall ones the poster's tenth is of the longer side, and the rows that
    move in are the image's own where they are black here.

    Args:
        images: ``(B, C, R, R)``, of any type of number.
        crop: side S of what is cut out, in pixels; at most R.
        seed: of the parameters; the caller's random state is left as it was.

    Returns:
        ``(B, C, S, S)``, of the same type.
    """
    side = images.shape[-1]
    edge = round((side - crop) / 2)
    centre = (side - 1) / 2
    target = np.arange(edge, edge + crop) - centre  # of the pixels to fill, from the centre
    size = [torch.empty(1, side, side)]
    crops = np.zeros((*images.shape[:2], crop, crop), dtype=images.dtype)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parameters = [_AFFINE.make_params(size) for _ in images]
    for image, filled, drawn in zip(images, crops, parameters, strict=True):
        rows = np.rint((target - drawn["translate"][1]) / drawn["scale"] + centre).astype(np.intp)
        columns = np.rint(target / drawn["scale"] + centre).astype(np.intp)
        inside = (rows >= 0) & (rows < side)
        filled[:, inside] = image[:, rows[inside]][:, :, columns]
    return crops
