"""From an image file's bytes to a square of pixels: the preprocessing, once for all data sets."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

# Part of the cache's key: raise it whenever a change here changes a pixel.
PREPROCESSING_VERSION = 2

# Pillow's own limit against decompression bombs, 0.25 GiB of RGB; above it Pillow only warns.
MAX_PIXELS = Image.MAX_IMAGE_PIXELS or 89_478_485
# Thirty bytes of a progressive JPEG ask for one more pass over all of its pixels; ten are usual.
MAX_SCANS = 200
# Not all that Pillow knows: for some it starts other programs (Ghostscript on PostScript).
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


class BadImageError(Exception):
    """An image that cannot be decoded; the message says why, not which."""


def decode_image(data: bytes, resize: int, channels: int) -> NDArray[np.uint8]:
    """Decode, resize and crop one image.

    The shorter edge is resized to ``resize`` (bilinear with antialiasing) and the centre square
    is kept: torchvision's ``Resize(resize)`` and ``CenterCrop(resize)`` on a Pillow image, to
    the bit.

    X-rays are kept as **one** channel even where the file is RGB. Their three channels are equal,
    and pixelwise noise drawn for each of them would spend three times the epsilon for one value.
    Of a user's images in colour, those that are gray all the same are found by :func:`is_gray`.

    Args:
        data: content of a file in one of ``FORMATS``, whatever its name.
        resize: side of the square, in pixels.
        channels: 1 (luma) or 3 (RGB).

    Returns:
        uint8 array ``(resize, resize, channels)``.

    Raises:
        BadImageError: corrupt, truncated, not an image, of a pixel format that is not supported,
            or too large: told from its header, before a pixel is decoded.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_header(image, data, resize)
            if channels == 1 and image.format == "JPEG" and image.mode == "RGB":
                # A JPEG stores luma and chroma: take the luma without a detour over RGB. On gray
                # images that gives the same values in half the time.
                image.draft("L", image.size)
            return opened(image, resize, channels)
    except BadImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadImageError(f"it has more than {MAX_PIXELS} pixels") from None
    except UnidentifiedImageError:
        raise BadImageError(
            f"it is not an image in a known format ({', '.join(FORMATS)})"
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plugins raise many types on damaged files
        raise BadImageError(f"{error or type(error).__name__}") from error


def opened(image: Image.Image, resize: int, channels: int) -> NDArray[np.uint8]:
    """The same of an image that Pillow has opened or drawn, whatever its size.

    Raises:
        BadImageError: of a pixel format that is not supported.
    """
    return square(_eight_bits(image, "L" if channels == 1 else "RGB"), resize)


def is_gray(pixels: NDArray[np.uint8]) -> bool:
    """Whether all channels of a decoded ``(C, R, R)`` image are equal, in every pixel.

    This is asked of the pixels, not of the file: palettes, 16 bits, RGB and JPEG may all hold gray.
    An image that is nearly gray is in colour.
    """
    return bool((pixels == pixels[:1]).all())


def _check_header(image: Image.Image, data: bytes, resize: int) -> None:
    """Refuse what would take too much memory or time."""
    shorter, longer = sorted(image.size)
    if shorter * longer > MAX_PIXELS:
        raise BadImageError(
            f"it has {image.width} x {image.height} pixels, more than {MAX_PIXELS} allowed"
        )
    if longer * resize**2 > MAX_PIXELS * shorter:  # pixels of the whole of it, resized
        raise BadImageError(
            f"it has {image.width} x {image.height} pixels, too long for its breadth"
        )
    if image.format in ("JPEG", "MPO") and data.count(b"\xff\xda") > MAX_SCANS:
        raise BadImageError(f"it has more than {MAX_SCANS} scans")


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


def _eight_bits(image: Image.Image, mode: str) -> Image.Image:
    """Convert to 8 bits a channel in ``mode`` ("L" or "RGB")."""
    if image.mode.startswith("I;16"):
        # Pillow's own conversion saturates at 255, which turns a 16-bit X-ray white.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert(mode)
    if image.mode in ("I", "F"):
        raise BadImageError(
            f"pixel format {image.mode} is not supported (8 or 16 bits a channel are)"
        )
    return image if image.mode == mode else image.convert(mode)
