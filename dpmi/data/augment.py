"""The poster's augmentation: a small shift and enlargement, drawn for each image."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms import v2

_AFFINE = v2.RandomAffine(degrees=0, translate=(0, 0.1), scale=(1, 1.1))


def draw_affine(images: int, side: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw how each image is moved: torchvision's RandomAffine(translate=(0, 0.1), scale=(1, 1.1)).

    Args:
        images: how many.
        side: R, of the images, in pixels.
        seed: of torch's global generator meanwhile; the caller's random state is left as it was.

    Returns:
        Shifts downwards in pixels, at most a tenth of the side, and scales from 1 to 1.1; both
        ``(images,)``, float64, on the CPU wherever the images lie.
    """
    size = [torch.empty(1, side, side)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        drawn = [_AFFINE.make_params(size) for _ in range(images)]
    shifts = torch.tensor([float(one["translate"][1]) for one in drawn], dtype=torch.float64)
    scales = torch.tensor([float(one["scale"]) for one in drawn], dtype=torch.float64)
    return shifts, scales


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
