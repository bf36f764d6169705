from __future__ import annotations

import io
import struct
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from dicom_files import dicom, lut, object_without_pixels, written
from pydicom import Dataset, dcmread
from pydicom.pixels import apply_windowing
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from dpmi.data.decoding.image import decode_image
from dpmi.data.decoding.settings import BadImageError, Decoding

RAMP = np.linspace(0, 4095, 64 * 64).reshape(64, 64).astype(np.uint16)  # 12 bits, unsigned
GRAY = Decoding(1)


def gray(data: bytes, settings: Decoding = GRAY) -> np.ndarray:
    return decode_image(data, 64, settings)[..., 0].astype(int)


@pytest.mark.parametrize(
    "syntax",
    [
        ExplicitVRLittleEndian,
        RLELossless,
        JPEGLossless,
        JPEGLosslessSV1,
        JPEGLSLossless,
        JPEG2000Lossless,
    ],
    ids=lambda syntax: syntax.name,
)
def test_twelve_stored_bits_keep_their_gray_levels_however_they_are_compressed(syntax: UID) -> None:
    assert np.array_equal(gray(dicom(RAMP, 12, syntax)), RAMP >> 4)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless])
@pytest.mark.parametrize("kind", ["RGB", "YBR_FULL"])
def test_colours_become_rgb(syntax: UID, kind: str) -> None:
    if syntax == JPEGBaseline8Bit and kind == "RGB":
        pytest.skip("JPEG of three channels stores luma and chroma")
    red = np.broadcast_to(np.array([200, 30, 60], np.uint8), (32, 32, 3))
    stored = red
    if kind == "YBR_FULL":
        weights = np.array([
            [0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]
        ])  # fmt: skip
        stored = np.rint(red @ weights.T + [0, 128, 128]).astype(np.uint8)
    pixels = decode_image(dicom(stored, 8, syntax, kind), 32, Decoding(3))
    assert np.abs(pixels.astype(int) - red).max() <= 3


def test_a_palette_becomes_rgb() -> None:
    entries = np.arange(256, dtype=np.uint16) * 257
    palette = {}
    for number, colour in enumerate(("Red", "Green", "Blue")):
        palette[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        values = np.roll(entries, number)
        palette[f"{colour}PaletteColorLookupTableData"] = values.astype("<u2").tobytes()
    stored = np.full((32, 32), 100, np.uint8)
    pixels = decode_image(dicom(stored, 8, kind="PALETTE COLOR", **palette), 32, Decoding(3))
    assert (pixels == [100, 99, 98]).all()


WINDOWS: list[dict[str, Any]] = [
    {"WindowCenter": 1000, "WindowWidth": 500},
    {"WindowCenter": [1000, 5], "WindowWidth": [500, 6]},  # the first of several views
    {"WindowCenter": 1000, "WindowWidth": 1},
    {"WindowCenter": 1000, "WindowWidth": 300, "VOILUTFunction": "LINEAR_EXACT"},
    {"WindowCenter": 1000, "WindowWidth": 300, "VOILUTFunction": "SIGMOID"},
    {"WindowCenter": -20, "WindowWidth": 900, "RescaleSlope": 0.5, "RescaleIntercept": -1024},
    {"WindowCenter": -900, "WindowWidth": 900, "RescaleSlope": -1, "RescaleIntercept": 0},
]


def as_pydicom_windows(stored: np.ndarray, elements: dict[str, Any]) -> np.ndarray:
    """pydicom's window, from its range of output to 0..255."""
    dataset = Dataset()
    dataset.PhotometricInterpretation, dataset.BitsStored = "MONOCHROME2", 12
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    for name, value in elements.items():
        setattr(dataset, name, value)
    slope, intercept = elements.get("RescaleSlope", 1), elements.get("RescaleIntercept", 0)
    low, high = (0, 4095) if stored.dtype.kind == "u" else (-2048, 2047)
    shown = apply_windowing(stored * float(slope) + intercept, dataset)
    darkest, brightest = low * slope + intercept, high * slope + intercept
    return np.rint((shown - darkest) / (brightest - darkest) * 255)


@pytest.mark.parametrize("elements", WINDOWS)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_a_declared_window_is_pydicoms_and_monochrome1_is_inverted_after_it(
    elements: dict[str, Any], signed: bool, kind: str
) -> None:
    stored = (RAMP.astype(np.int16) - 2048) if signed else RAMP
    expected = as_pydicom_windows(stored, elements)
    if kind == "MONOCHROME1":
        expected = 255 - expected
    assert np.abs(gray(dicom(stored, 12, kind=kind, **elements)) - expected).max() <= 1


def test_a_window_of_the_config_replaces_that_of_the_file() -> None:
    elements = {"RescaleSlope": 1, "RescaleIntercept": -1024}
    files = [
        dicom(RAMP, 12, WindowCenter=7, WindowWidth=9, **elements),
        dicom(RAMP, 12, VOILUTSequence=[lut(np.zeros(4096, np.uint16), 0, 16)], **elements),
        dicom(RAMP, 12, **elements),
    ]
    units = RAMP.astype(int) - 1024
    for file in files:
        pixels = gray(file, Decoding(1, window=(40, 400)))
        assert (pixels[units <= -160] == 0).all()
        assert (pixels[units >= 240] == 255).all()
        assert abs(pixels[units == 40].mean() - 128) <= 1


def test_luts_are_applied_modality_before_voi() -> None:
    turned = lut(np.arange(4095, -1, -1, dtype=np.uint16), 0, 16)
    root = lut((np.sqrt(np.arange(4096) / 4095) * 65535).astype(np.uint16), 0, 16)
    file = dicom(RAMP, 12, ModalityLUTSequence=[turned], VOILUTSequence=[root])
    expected = np.sqrt((4095 - RAMP) / 4095) * 255
    assert np.abs(gray(file) - expected).max() <= 1
    assert np.array_equal(
        gray(dicom(RAMP, 12, ModalityLUTSequence=[turned])), (4095 - RAMP.astype(int)) >> 8
    )


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_without_a_window_all_that_bits_stored_can_hold_is_shown(kind: str) -> None:
    signed = RAMP.astype(np.int16) - 2048
    turn = (lambda shown: 255 - shown) if kind == "MONOCHROME1" else (lambda shown: shown)
    assert np.array_equal(gray(dicom(RAMP, 12, kind=kind)), turn(RAMP >> 4))
    assert np.array_equal(gray(dicom(signed, 12, kind=kind)), turn(RAMP >> 4))
    falling = {"RescaleSlope": -1, "RescaleIntercept": 4095}
    assert np.array_equal(gray(dicom(RAMP, 12, kind=kind, **falling)), 255 - turn(RAMP >> 4))


def test_a_depth_of_the_config_replaces_a_wrong_one_of_the_file() -> None:
    file = dicom(RAMP, 16)
    assert np.array_equal(gray(file), RAMP >> 8)
    assert np.array_equal(gray(file, Decoding(1, bit_depth=12)), RAMP >> 4)
    with pytest.raises(BadImageError, match=r"values up to 4095, and 10 bits end at 1023"):
        gray(file, Decoding(1, bit_depth=10))


def test_values_beyond_the_bits_that_a_file_declares_are_refused() -> None:
    with pytest.raises(BadImageError, match=r"values up to 4095, and 10 bits .* data.bit_depth"):
        gray(dicom(RAMP, 10))


def test_padding_is_black_whatever_the_polarity() -> None:
    stored = RAMP.copy()
    stored[:8] = 4000
    for kind in ("MONOCHROME1", "MONOCHROME2"):
        pixels = gray(dicom(stored, 12, kind=kind, PixelPaddingValue=4000))
        assert (pixels[:8] == 0).all()
        assert pixels[20:-20].std() > 1


def frames() -> bytes:
    several = np.zeros((2, 32, 32), np.uint8)
    return dicom(several[0], 8, NumberOfFrames=2, PixelData=several.tobytes())


def larger_than_it_says() -> bytes:
    data = bytearray(dicom(RAMP, 12, JPEG2000Lossless))
    at = data.index(b"\xff\x4f\xff\x51") + 8
    data[at : at + 8] = struct.pack(">II", 60_000, 60_000)
    return bytes(data)


def larger_jpeg_than_it_says() -> bytes:
    data = bytearray(dicom((RAMP >> 4).astype(np.uint8), 8, JPEGBaseline8Bit))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 60_000, 60_000)
    return bytes(data)


def deflated() -> bytes:
    dataset = dcmread(io.BytesIO(dicom(RAMP, 12)))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    return written(dataset)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (frames, "DICOM file of 2 frames"),
        (object_without_pixels, r"without an image \(Basic Text SR Storage\)"),
        (lambda: dicom(RAMP, 12)[:3000], "pixel data is less than expected"),
        (lambda: dicom(RAMP, 12, Rows=60_000, Columns=60_000), "60000 x 60000 pixels"),
        (larger_than_it_says, "60000 x 60000 pixels"),
        (larger_jpeg_than_it_says, "60000 x 60000 pixels"),
        (deflated, "deflated as a whole"),
        (lambda: dicom(RAMP, 12, SharedFunctionalGroupsSequence=[Dataset()]), "enhanced"),
        (lambda: dicom(RAMP, 12, kind="HSV"), "photometric interpretation HSV"),
        (lambda: dicom(RAMP, 12, JPEGExtended12Bit), "Extended .* 12 bits, .* no decoder"),
        (lambda: dicom(RAMP, 12, WindowCenter=1, WindowWidth=0), "window has a width of 0"),
        (lambda: dicom(RAMP.astype(np.uint32), 32), r"more than 16 bits .* data\.value_range"),
    ],
)
def test_what_is_no_single_image_that_can_be_decoded_is_refused_by_name(
    make: Any, reason: str
) -> None:
    with pytest.raises(BadImageError, match=reason) as caught:
        gray(make())
    assert "\n" not in str(caught.value)


def test_integers_of_32_bits_take_the_public_range() -> None:
    file = dicom(RAMP.astype(np.uint32), 32)
    pixels = gray(file, Decoding(1, value_range=(0, 4095)))
    assert np.abs(pixels - RAMP / 4095 * 255).max() <= 0.5


WITHOUT_PYDICOM = """
import sys
sys.modules["pydicom"] = None
from dpmi.base.errors import UserError
from dpmi.data.decoding.image import decode_image
from dpmi.data.decoding.settings import Decoding
try:
    decode_image(b"\\0" * 128 + b"DICM", 32, Decoding(1))
except UserError as error:
    print(error)
"""


def test_without_the_extra_one_line_names_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PYDICOM], capture_output=True, text=True, check=True
    )
    assert "pip install 'dpmi[dicom]'" in done.stdout
    assert done.stdout.count("\n") == 1
