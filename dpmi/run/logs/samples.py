"""Sample images: before the mechanism, and as training sees them."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dpmi.config.schema import Config
from dpmi.data.prepare import PreparedData
from dpmi.run.logs.door import Door
from dpmi.run.records.leaving import OWN_DATA
from dpmi.run.records.record import ImageSample

SAMPLES = 4
LARGEST_SIDE = 128  # of a sample in a record, in pixels


def image_sample(config: Config, clean: PreparedData, released: PreparedData) -> ImageSample | None:
    """The first training image before and after the mechanism, for the record.

    Of an image larger than 128 px every second, third, ... pixel is kept: a mean of neighbours
    would show less noise than training saw.
    """
    if not _may_be_shown(config):
        return None
    before, after = (data.splits["train"].pixels[0] for data in (clean, released))
    side = before.shape[-1]
    every = -(-side // LARGEST_SIDE)
    return ImageSample(
        label=clean.label_of("train", 0),
        side=side,
        every=every,
        before=_png(before[:, ::every, ::every]),
        after=None if np.array_equal(before, after) else _png(after[:, ::every, ::every]),
    )


def log_samples(door: Door, config: Config, clean: PreparedData, released: PreparedData) -> None:
    """Log the first training images before and after local DP."""
    if not (config.mechanism.name in ("ldp", "ldp_published") and _may_be_shown(config)):
        return
    images, captions = [], []
    for when, data in (("before", clean), (f"after, β = {config.beta:g}", released)):
        split = data.splits["train"]
        for index in range(min(SAMPLES, len(split.labels))):
            images.append(np.moveaxis(np.asarray(split.pixels[index]), 0, -1))  # (H, W, C)
            captions.append(f"{data.label_of('train', index)}, {when}")
    door.log_images("samples", images, captions)


def _may_be_shown(config: Config) -> bool:
    """Images of a user's own patients only where requested; the logger lets out no other either."""
    wanted = config.logger.sample_images
    return wanted == "all" or (wanted == "public" and config.data.name not in OWN_DATA)


def _png(pixels: NDArray[np.uint8]) -> str:
    """(C, H, W) as a PNG in base64."""
    image = Image.fromarray(np.moveaxis(np.asarray(pixels), 0, -1).squeeze())
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode("ascii")
