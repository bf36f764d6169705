"""From an image file's bytes to a square of pixels: the preprocessing, once for all data sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dpmi.base.errors import UserError
from dpmi.data.decoding.dicom import decode_dicom, is_dicom
from dpmi.data.decoding.geometry import square
from dpmi.data.decoding.raster import decode_raster, of_opened
from dpmi.data.decoding.settings import BadImageError, Decoding


def decode_image(data: bytes, resize: int, settings: Decoding) -> NDArray[np.uint8]:
    """Decode, resize and crop one image.

    The shorter edge is resized to ``resize`` (bilinear with antialiasing) and the centre square
    is kept: torchvision's ``Resize(resize)`` and ``CenterCrop(resize)`` on a Pillow image, to
    the bit.

    X-rays are kept as **one** channel even where the file is RGB. Their three channels are equal,
    and pixelwise noise drawn for each of them would spend three times the epsilon for one value.
    Of a user's images in colour, those that are gray all the same are found by :func:`is_gray`.

    Args:
        data: content of a DICOM file, or of one in a format of ``raster.FORMATS``, whatever its
            name.
        resize: side of the square, in pixels.
        settings: channels, depth and ranges.

    Returns:
        uint8 array ``(resize, resize, settings.channels)``.

    Raises:
        BadImageError: corrupt, truncated, not an image, of several images, of values that the
            settings do not cover, of a pixel format that is not supported, or too large: found
            in its header, before a pixel is decoded.
        UserError: what decodes DICOM is not installed.
    """
    if not data:
        raise BadImageError("it is empty")
    try:
        decode = decode_dicom if is_dicom(data) else decode_raster
        return square(decode(data, resize, settings), resize)
    except (BadImageError, UserError, MemoryError):
        raise
    except Exception as error:  # decoders raise many types on damaged files
        reason = " ".join(str(error).split())
        raise BadImageError(reason or type(error).__name__) from error


def opened(image: Image.Image, resize: int, settings: Decoding) -> NDArray[np.uint8]:
    """The same of an image that Pillow has opened or drawn, whatever its size.

    Raises:
        BadImageError: of a pixel format that is not supported.
    """
    return square(of_opened(image, settings), resize)


def read_image(path: Path, resize: int, settings: Decoding) -> NDArray[np.uint8]:
    """Read one image from a file: ``(resize, resize, settings.channels)``, see ``decode_image``.

    Raises:
        UserError: the file cannot be read or decoded; names it.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: the image file cannot be read: {error.strerror}.") from error
    try:
        return decode_image(data, resize, settings)
    except BadImageError as error:
        raise UserError(f"{path}: the image cannot be decoded: {error}.") from error


def is_gray(pixels: NDArray[np.uint8]) -> bool:
    """Whether all channels of a decoded ``(C, R, R)`` image are equal, in every pixel.

    This is asked of the pixels, not of the file: palettes, 16 bits, RGB and JPEG may all hold gray.
    An image that is nearly gray is in colour.
    """
    return bool((pixels == pixels[:1]).all())
