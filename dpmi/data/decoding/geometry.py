"""From an image of any shape to a square; and shapes that are refused."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dpmi.data.decoding.settings import BadImageError

# Pillow's own limit against decompression bombs, 0.25 GiB of RGB; above it Pillow only warns.
MAX_PIXELS = Image.MAX_IMAGE_PIXELS or 89_478_485


def check_size(width: int, height: int, resize: int) -> None:
    """Refuse what would take too much memory or time, before a pixel is decoded.

    Raises:
        BadImageError: the image is too large, or too long for its breadth.
    """
    shorter, longer = sorted((width, height))
    if shorter * longer > MAX_PIXELS:
        raise BadImageError(f"it has {width} x {height} pixels, more than {MAX_PIXELS} allowed")
    if longer * resize**2 > MAX_PIXELS * shorter:  # pixels of the whole of it, resized
        raise BadImageError(f"it has {width} x {height} pixels, too long for its breadth")


def square(image: Image.Image, resize: int) -> NDArray[np.uint8]:
    """Resize the shorter edge to ``resize`` and crop the centre; ``(resize, resize, C)``.

    The roundings are torchvision's (``Resize``, ``CenterCrop``).
    """
    width, height = image.size
    if width <= height:
        width, height = resize, int(resize * height / width)
    else:
        width, height = int(resize * width / height), resize
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - resize) / 2), round((height - resize) / 2)
    pixels = np.asarray(image, dtype=np.uint8)[top : top + resize, left : left + resize]
    return pixels.reshape(resize, resize, -1)
