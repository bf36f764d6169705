"""The poster's augmentation: a small shift and enlargement, drawn for each image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dpmi.data.batches import step_seed, uniform_of

LARGEST_SHIFT = 0.1  # of the side, up or down
LARGEST_SCALE = 1.1


def draw_affine(
    indices: Sequence[int], side: int, seed: int, step: int, view: int = 0
) -> tuple[Tensor, Tensor]:
    """Draw how each image is moved: torchvision's RandomAffine(translate=(0, 0.1), scale=(1, 1.1)).

    What is drawn for an image is a function of ``seed``, ``step``, ``view`` and its own index
    alone. Were it one of the image's place in the batch, whether one image is sampled would change
    what all later ones contribute, and no clipping would bound that.

    Args:
        indices: of the images, in the data set.
        side: R, of the images, in pixels.
        seed: of the run, public.
        step: of training.
        view: which of the views of each image at this step, from 0.

    Returns:
        Shifts downwards in whole pixels, at most a tenth of the side, and scales from 1 to 1.1;
        both ``(len(indices),)``, float64, on the CPU wherever the images lie.
    """
    drawn = uniform_of(indices, 2, step_seed(seed, step, view))
    most = LARGEST_SHIFT * side
    shifts = np.rint(most * (2 * drawn[0] - 1))
    scales = 1 + (LARGEST_SCALE - 1) * drawn[1]
    return torch.from_numpy(shifts), torch.from_numpy(scales)


def affine_crops(images: Tensor, crop: int, shifts: Tensor, scales: Tensor) -> Tensor:
    """Shift and enlarge each image, then cut out its centre.

    An image moves up or down by at most a tenth of its height, is enlarged about its centre by
    at most a tenth, and what moves in is black: what torchvision's RandomAffine does with its
    nearest-neighbour sampling. Without rotation or shear the sampling is one choice of rows and
    one of columns, which is much faster than a general grid.

    The poster did so to the whole resized image, this does it to the centre square that is
    cached. On square and wide originals, as X-rays mostly are, that is the same but for half a
    pixel of centring. On tall ones the poster's tenth is of the longer side, and the rows that
    move in are the image's own where they are black here.

    Args:
        images: ``(B, C, R, R)``, of any type of number, on any device.
        crop: side S of what is cut out, in pixels; at most R.
        shifts: ``(B,)``, downwards, in pixels, as from :func:`draw_affine`.
        scales: ``(B,)``, as from there.

    Returns:
        ``(B, C, S, S)``, of the same type, on the same device.
    """
    b, c, side, _ = images.shape
    shifts, scales = shifts.to(images.device)[:, None], scales.to(images.device)[:, None]
    edge, centre = round((side - crop) / 2), (side - 1) / 2
    first = edge - centre  # of the pixels to fill, from the centre
    target = first + torch.arange(crop, dtype=torch.float64, device=images.device)
    rows = ((target - shifts) / scales + centre).round().long()  # (B, S)
    columns = (target / scales + centre).round().long()
    inside = (rows >= 0) & (rows < side)
    rows = rows.clamp(0, side - 1)[:, None, :, None].expand(b, c, crop, side)
    crops = images.gather(2, rows).gather(3, columns[:, None, None, :].expand(b, c, crop, crop))
    return crops.masked_fill_(~inside[:, None, :, None], 0)
