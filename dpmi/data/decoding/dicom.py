"""DICOM files, by pydicom and the decoders that it finds (``pip install 'dpmi[dicom]'``)."""

from __future__ import annotations

import functools
import io
import logging
import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dpmi.base.errors import UserError
from dpmi.data.decoding.depth import from_bits, from_range, from_window
from dpmi.data.decoding.geometry import check_size
from dpmi.data.decoding.settings import BadImageError, Decoding

if TYPE_CHECKING:
    from pydicom import Dataset

_MAGIC_AT, _MAGIC = 128, b"DICM"  # PS3.10, 7.1
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_JPEG_2000 = b"\xff\x4f\xff\x51"  # start of a codestream, and of its size
_MONOCHROME = ("MONOCHROME1", "MONOCHROME2")


def is_dicom(data: bytes) -> bool:
    """Whether a file's first 132 bytes, or all of them, are those of a DICOM file."""
    return data[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] == _MAGIC


def is_dicom_file(path: Path) -> bool:
    """The same of a regular file; False where it cannot be read."""
    try:
        if not path.is_file():  # a pipe would never end
            return False
        with path.open("rb") as stream:
            return is_dicom(stream.read(_MAGIC_AT + len(_MAGIC)))
    except OSError:
        return False


@functools.cache
def require_pydicom() -> None:
    """Make pydicom ready for files as they are.

    Raises:
        UserError: it is not installed.
    """
    try:
        import pydicom
    except ImportError as error:
        raise UserError(
            "there are DICOM files among the images, and what reads them is not installed: "
            "pip install 'dpmi[dicom]'"
        ) from error
    # Real files break small rules of DICOM everywhere, and pydicom would say so for each of them.
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="pydicom")


def decode_dicom(data: bytes, resize: int, settings: Decoding) -> Image.Image:
    """Decode to 8 bits a channel, of mode "L" or "RGB".

    Gray values go through the modality transform (LUT, or rescale slope and intercept), then the
    window: ``settings.window``, else the file's VOI LUT, else its first window, else all values
    that its Bits Stored can hold. After that MONOCHROME1 is inverted, and padding is black.

    Raises:
        BadImageError: see ``decode_image``.
        UserError: pydicom is not installed.
    """
    require_pydicom()
    from pydicom import dcmread

    if _DEFLATED in data[:4096]:
        raise BadImageError(
            "it is a DICOM file deflated as a whole, whose size cannot be known before it is "
            "inflated: store it in another transfer syntax"
        )
    dataset = dcmread(io.BytesIO(data))
    _check_header(dataset, resize)
    if dataset.PhotometricInterpretation in _MONOCHROME:
        image = Image.fromarray(_gray(dataset, settings))
    else:
        image = Image.fromarray(_colour(dataset))
    mode = "L" if settings.channels == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _check_header(dataset: Dataset, resize: int) -> None:
    """Refuse what is no single image of a size that can be decoded."""
    kind = getattr(dataset.get("SOPClassUID"), "name", "DICOM object")
    if not {"PixelData", "FloatPixelData", "DoubleFloatPixelData"} & set(dataset.dir()):
        raise BadImageError(f"it is a DICOM file without an image ({kind})")
    if (frames := int(dataset.get("NumberOfFrames") or 1)) > 1:
        raise BadImageError(
            f"it is a DICOM file of {frames} frames, and which of them is the image is not known: "
            "save each as a file of its own"
        )
    if "SharedFunctionalGroupsSequence" in dataset:
        raise BadImageError(f"it is an enhanced DICOM object ({kind}), which is not supported")
    check_size(int(dataset.Columns), int(dataset.Rows), resize)
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        _check_stream(dataset, resize)
        _check_decoder(dataset)


def _check_stream(dataset: Dataset, resize: int) -> None:
    """Refuse a compressed image that is larger than its header says."""
    from pydicom.encaps import get_frame

    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    if (start := frame.find(_JPEG_2000)) >= 0:
        right, bottom, left, top = struct.unpack_from(">4I", frame, start + 8)
        check_size(right - left, bottom - top, resize)
    elif frame.startswith(b"\xff\xd8"):
        at = 2
        while frame[at : at + 1] == b"\xff" and at + 9 <= len(frame):
            marker, length = frame[at + 1], int.from_bytes(frame[at + 2 : at + 4], "big")
            # Start of frame, of all ways to compress (T.81, table B.1), and of JPEG-LS.
            if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
                height, width = struct.unpack_from(">2H", frame, at + 5)
                check_size(width, height, resize)
                break
            at += 2 + length


def _check_decoder(dataset: Dataset) -> None:
    """Refuse a compression that nothing here decodes, by name."""
    from pydicom.pixels import get_decoder
    from pydicom.uid import JPEGExtended12Bit

    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        available = get_decoder(syntax)._available
    except NotImplementedError:
        available = {}
    if syntax == JPEGExtended12Bit and int(dataset.BitsStored) > 8:
        # The only one has a licence (GPL 3) that dpmi does not ask you to accept.
        available = {name: use for name, use in available.items() if name == "pylibjpeg"}
    if not available:
        raise BadImageError(
            f"it is a DICOM file in the transfer syntax {syntax.name}, {dataset.BitsStored} bits, "
            "for which no decoder is installed: store it uncompressed, or in JPEG Lossless"
        )


def _gray(dataset: Dataset, settings: Decoding) -> NDArray[np.uint8]:
    """(H, W): modality transform, window, then polarity and padding."""
    from pydicom.pixels import apply_modality_lut, pixel_array

    signed = bool(dataset.get("PixelRepresentation", 0)) and "PixelData" in dataset
    stored = pixel_array(dataset, raw=True, correct_unused_bits=signed)
    values = apply_modality_lut(stored, dataset)
    if settings.window is not None:
        pixels = from_window(values, *settings.window)
    elif (declared := _declared_window(values, dataset)) is not None:
        pixels = declared
    elif dataset.get("ModalityLUTSequence"):
        pixels = from_bits(values, dataset.ModalityLUTSequence[0].LUTDescriptor[2])
    elif stored.dtype.kind == "f" or int(dataset.BitsStored) > 16:
        if settings.value_range is None:
            raise BadImageError(
                "it has floats or integers of more than 16 bits and declares no window: set "
                "data.value_range=[LOW,HIGH], or data.window=[CENTRE,WIDTH]"
            )
        pixels = from_range(values, *settings.value_range)
    else:
        bits = settings.bit_depth or int(dataset.BitsStored)
        from_zero = stored.astype(np.int64) + ((1 << (bits - 1)) if signed else 0)
        if from_zero.min() < 0:
            raise BadImageError(f"it has values below what {bits} signed bits can hold")
        pixels = from_bits(from_zero, bits)
        if float(dataset.get("RescaleSlope") or 1) < 0:
            pixels = 255 - pixels
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        pixels = 255 - pixels
    pixels[_padding(stored, dataset)] = 0
    return pixels


def _declared_window(values: NDArray[Any], dataset: Dataset) -> NDArray[np.uint8] | None:
    """Gray values through the VOI LUT that the file declares; None where it declares none."""
    from pydicom.pixels import apply_voi

    if dataset.get("VOILUTSequence"):
        bits = dataset.VOILUTSequence[0].LUTDescriptor[2]
        return from_bits(apply_voi(np.rint(values).astype(np.int64), dataset), bits)
    centre, width = (_first(dataset.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None:
        return None
    return from_window(values, centre, width, str(dataset.get("VOILUTFunction") or "LINEAR"))


def _padding(stored: NDArray[Any], dataset: Dataset) -> NDArray[np.bool_]:
    """Where no patient is, but what fills the image up to a rectangle (PS3.3, C.7.5.1.1.2)."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, bool)
    limit = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted((int(value), int(value if limit is None else limit)))
    return (stored >= low) & (stored <= high)


def _first(value: Any) -> float | None:
    """The first of one or several numbers, or of none."""
    if value is None or value == "":
        return None
    if isinstance(value, str | float | int):
        return float(value)
    return float(value[0]) if len(value) else None


def _colour(dataset: Dataset) -> NDArray[np.uint8]:
    """(H, W, 3) in RGB; of a palette, and of luma and chroma, too."""
    from pydicom.pixels import apply_color_lut, pixel_array

    kind = dataset.PhotometricInterpretation
    if kind == "PALETTE COLOR":
        bits = dataset.RedPaletteColorLookupTableDescriptor[2]
        return from_bits(apply_color_lut(pixel_array(dataset), dataset)[..., :3], bits)
    if kind != "RGB" and not kind.startswith("YBR"):
        raise BadImageError(f"its photometric interpretation {kind} is not supported")
    return from_bits(pixel_array(dataset), int(dataset.BitsStored))
