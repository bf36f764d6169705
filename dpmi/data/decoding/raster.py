"""PNG, JPEG, TIFF and their like, by Pillow."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageFile, ImageOps, TiffImagePlugin, UnidentifiedImageError

from dpmi.data.decoding.depth import from_bits, from_range
from dpmi.data.decoding.geometry import MAX_PIXELS, check_size
from dpmi.data.decoding.settings import BadImageError, Decoding

# Thirty bytes of a progressive JPEG ask for one more pass over all of its pixels; ten are usual.
MAX_SCANS = 200
# Not all that Pillow knows: for some it starts other programs (Ghostscript on PostScript).
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF 6.0, section 8 and 19
_WHITE_IS_ZERO, _SIGNED = 0, 2
_PNG_DEPTH = 24  # where a PNG's bits a channel are: the first chunk is the header
# Where an orientation may be written. To look for one in all images would take 5 % of decoding.
_MAY_TURN = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}
_DEEPEST = 65535  # the highest value that a PGM may declare


def decode_raster(data: bytes, resize: int, settings: Decoding) -> Image.Image:
    """Decode to 8 bits a channel, upright, of mode "L" or "RGB".

    EXIF's orientation is applied, and what is transparent stands on black. Of the many pictures
    that an MPO holds (a phone's photograph with its map of light) it is the first.

    Raises:
        BadImageError: see ``decode_image``.
    """
    mode = "L" if settings.channels == 1 else "RGB"
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            check_size(*image.size, resize)
            if image.format in ("JPEG", "MPO") and data.count(b"\xff\xda") > MAX_SCANS:
                raise BadImageError(f"it has more than {MAX_SCANS} scans")
            if image.format != "MPO" and getattr(image, "is_animated", False):
                raise BadImageError(
                    f"it is a {image.format} of several pages or frames, and which of them is the "
                    "image is not known: save each as a file of its own"
                )
            if mode == "L" and image.format == "JPEG" and image.mode == "RGB":
                # A JPEG stores luma and chroma: take the luma without a detour over RGB. On gray
                # images that gives the same values in half the time.
                image.draft("L", image.size)
            bits = _gray_bits(image, settings)  # of what is still as it lies in the file
            image.load()
            if image.info.keys() & _MAY_TURN:
                ImageOps.exif_transpose(image, in_place=True)
            gray = _deep_gray(image, bits, settings)
            if gray is None:
                _check_eight_bits(image, data, settings)
            return _in_mode(image if gray is None else gray, mode)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadImageError(f"it has more than {MAX_PIXELS} pixels") from None
    except UnidentifiedImageError:
        if data.startswith((b"II*\0", b"MM\0*")):
            raise BadImageError(
                "it is a TIFF of a layout that is not supported, as floats of 64 bits: save it in "
                "8, 16 or 32 bits"
            ) from None
        raise BadImageError(
            f"it is not an image in a known format ({', '.join(FORMATS)}, DICOM)"
        ) from None


def of_opened(image: Image.Image, settings: Decoding) -> Image.Image:
    """The same of an image that Pillow has opened or drawn.

    Raises:
        BadImageError: of a pixel format that is not supported.
    """
    if image.info.keys() & _MAY_TURN:
        image = ImageOps.exif_transpose(image)
    gray = _deep_gray(image, settings.bit_depth or _tag(image, _BITS_PER_SAMPLE, 16), settings)
    if gray is None and _signed(image):
        raise BadImageError("it has signed values of 8 bits, which are not supported")
    return _in_mode(image if gray is None else gray, "L" if settings.channels == 1 else "RGB")


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image)
    return image if image.mode == mode else image.convert(mode)


def _gray_bits(image: ImageFile.ImageFile, settings: Decoding) -> int:
    """Bits of a gray image's values, where they are more than 8 and unsigned."""
    layout = image.tile[0].args if image.format == "PPM" else None
    if isinstance(layout, tuple) and layout[1] != _DEEPEST:
        return 16  # to which Pillow scales from the depth that a PGM declares
    # A PNG's sBIT says how many bits were significant before the values were scaled to all 16, as
    # the PNG standard wants it (11.3.2.7): not that they end earlier.
    return settings.bit_depth or _tag(image, _BITS_PER_SAMPLE, 16)


def _deep_gray(image: Image.Image, bits: int, settings: Decoding) -> Image.Image | None:
    """A gray image of more than 8 bits in 8; None where it has no more, or has colours."""
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):
        if settings.value_range is None:
            raise BadImageError(
                f"it has {'floats' if image.mode == 'F' else 'signed or 32-bit integers'}, and no "
                "format says which of them is black and which is white: set "
                "data.value_range=[LOW,HIGH]"
            )
        values = np.asarray(image)
        if _tag(image, _BITS_PER_SAMPLE, 0) == 32 and image.mode == "I" and not _signed(image):
            values = values.view(np.uint32)  # Pillow has no mode for these
        pixels = from_range(values, *settings.value_range)
    elif image.mode.startswith("I"):
        values = np.asarray(image)
        pixels = from_bits(values, bits)
        if (hidden := image.info.get("transparency")) is not None:
            pixels[values == hidden] = 0
    else:
        return None
    if _tag(image, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO:  # Pillow turns it over for 8 bits alone
        pixels = 255 - pixels
    return Image.fromarray(pixels)


def _check_eight_bits(image: Image.Image, data: bytes, settings: Decoding) -> None:
    """Refuse what Pillow would read as 8 bits a channel, wrongly."""
    if _signed(image):
        raise BadImageError("it has signed values of 8 bits, which are not supported")
    bits = data[_PNG_DEPTH] if image.format == "PNG" else _tag(image, _BITS_PER_SAMPLE, 8)
    if bits == 16 and settings.bit_depth not in (None, 16):
        raise BadImageError(
            "it has 16 bits a channel in colour or with transparency, of which the upper 8 are "
            f"read, so that data.bit_depth={settings.bit_depth} cannot be: save it as gray, or "
            "with 8 bits a channel"
        )


def _signed(image: Image.Image) -> bool:
    return _tag(image, _SAMPLE_FORMAT, 1) == _SIGNED


def _tag(image: Image.Image, number: int, otherwise: int) -> int:
    """A TIFF's tag, of its first channel."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return otherwise
    value = image.tag_v2.get(number, otherwise)
    return int(value[0] if isinstance(value, tuple) else value)
