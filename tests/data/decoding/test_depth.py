from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_files import FULL, RAMP, png, tiff, twelve_bit_tiff
from PIL import Image

from dpmi.data.decoding.depth import from_bits, from_range
from dpmi.data.decoding.image import decode_image
from dpmi.data.decoding.settings import BadImageError, Decoding


def gray(data: bytes, **settings: Any) -> np.ndarray:
    return decode_image(data, 64, Decoding(1, **settings))[..., 0].astype(int)


def test_twelve_bits_in_a_png_of_16_keep_their_levels_under_a_public_depth() -> None:
    assert len(np.unique(gray(png(RAMP)))) == 16  # nothing in the file says 12
    assert np.array_equal(gray(png(RAMP), bit_depth=12), RAMP >> 4)
    assert len(np.unique(gray(png(RAMP), bit_depth=12))) == 256


@pytest.mark.parametrize("make", [png, tiff])
def test_the_depth_is_never_read_from_the_values_that_an_image_has(make: Any) -> None:
    dark = RAMP // 32
    assert np.array_equal(gray(make(dark), bit_depth=12), dark >> 4)
    assert np.array_equal(gray(make(dark)), dark >> 8)


def test_significant_bits_of_a_png_were_scaled_to_all_16_as_its_standard_wants_it() -> None:
    assert np.array_equal(gray(png(FULL, significant=b"\x0c")), RAMP >> 4)
    assert np.array_equal(gray(png(RAMP, significant=b"\x0c"), bit_depth=12), RAMP >> 4)


def test_bits_per_sample_of_a_tiff_are_its_depth() -> None:
    assert np.array_equal(gray(twelve_bit_tiff(RAMP)), RAMP >> 4)
    assert np.array_equal(gray(tiff(FULL)), FULL >> 8)
    assert np.array_equal(gray(tiff(RAMP), bit_depth=12), RAMP >> 4)


def test_the_highest_value_that_a_pgm_declares_is_white() -> None:
    twelve = b"P5 64 64 4095\n" + RAMP.astype(">u2").tobytes()
    sixteen = b"P5 64 64 65535\n" + RAMP.astype(">u2").tobytes()
    for settings in ({}, {"bit_depth": 12}):
        assert np.abs(gray(twelve, **settings) - (RAMP >> 4)).max() <= 1
    assert np.array_equal(gray(sixteen), RAMP >> 8)
    assert np.array_equal(gray(sixteen, bit_depth=12), RAMP >> 4)


@pytest.mark.parametrize("make", [png, tiff])
def test_a_value_beyond_the_depth_is_refused_by_name(make: Any) -> None:
    values = RAMP.copy()
    values[5, 7] = 4096
    with pytest.raises(
        BadImageError, match=r"up to 4096, and 12 bits end at 4095.*data\.bit_depth"
    ):
        gray(make(values), bit_depth=12)


def test_white_may_be_zero() -> None:
    assert np.array_equal(
        gray(tiff(RAMP, photometric="miniswhite"), bit_depth=12), 255 - (RAMP >> 4)
    )
    eight = (RAMP >> 4).astype(np.uint8)
    assert np.array_equal(gray(tiff(eight, photometric="miniswhite")), 255 - eight)


@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.int32, np.uint32])
def test_what_has_no_white_of_its_own_takes_the_public_range(dtype: type) -> None:
    data = tiff(RAMP.astype(dtype))
    with pytest.raises(BadImageError, match=r"no format says .* data\.value_range=\[LOW,HIGH\]"):
        gray(data)
    shown = gray(data, value_range=(1000, 3000))
    assert np.abs(shown - ((RAMP - 1000.0) / 2000).clip(0, 1) * 255).max() <= 0.5


def test_integers_of_32_bits_are_unsigned_where_the_tiff_says_so() -> None:
    values = np.linspace(0, 2**32 - 1, 64 * 64).reshape(64, 64).astype(np.uint32)
    assert np.abs(gray(tiff(values), value_range=(0, 2**32 - 1)) - values / 2**32 * 255).max() <= 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused(value: float) -> None:
    values = RAMP.astype(np.float32)
    values[3, 3] = value
    with pytest.raises(BadImageError, match="no finite numbers"):
        gray(tiff(values), value_range=(0, 4095))


def test_colours_of_16_bits_give_their_upper_8_and_no_other_depth() -> None:
    colours = np.stack([FULL, FULL[::-1], FULL.T], 2)
    for data in (png(colours, colour=2), tiff(colours, photometric="rgb")):
        assert np.array_equal(decode_image(data, 64, Decoding(3)), colours >> 8)
        assert np.array_equal(decode_image(data, 64, Decoding(3, bit_depth=16)), colours >> 8)
        with pytest.raises(BadImageError, match=r"16 bits a channel .* data\.bit_depth=12 cannot"):
            decode_image(data, 64, Decoding(3, bit_depth=12))


def test_a_tiff_that_is_not_supported_is_not_taken_for_no_image() -> None:
    for data in (tiff(RAMP.astype(np.float64)), tiff(RAMP.astype(np.complex64))):
        with pytest.raises(BadImageError, match="TIFF of a layout that is not supported"):
            gray(data, value_range=(0, 4095))


def test_signed_values_of_8_bits_are_refused() -> None:
    with pytest.raises(BadImageError, match="signed values of 8 bits"):
        gray(tiff((RAMP >> 5).astype(np.int8)))


def test_a_depth_leaves_images_of_8_bits_alone() -> None:
    eight = (RAMP >> 4).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(eight).save(stream, "PNG")
    assert np.array_equal(gray(stream.getvalue(), bit_depth=12), eight)


def test_a_transparent_value_of_a_deep_png_is_black() -> None:
    hidden = png(np.where(RAMP > 3000, 3500, RAMP), hidden=struct.pack(">H", 3500))
    assert np.array_equal(gray(hidden, bit_depth=12), np.where(RAMP > 3000, 0, RAMP >> 4))


@given(bits=st.integers(1, 16), value=st.integers(0, 65535))
def test_a_depth_maps_black_to_black_white_to_white_and_keeps_the_order(
    bits: int, value: int
) -> None:
    most = (1 << bits) - 1
    value &= most
    shown = from_bits(np.array([0, value // 2, value, most]), bits)
    assert shown[0] == 0
    assert shown[-1] == 255
    assert (np.diff(shown.astype(int)) >= 0).all()


@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=2, unique=True), st.integers())
def test_a_range_ends_at_its_ends(ends: list[int], value: int) -> None:
    low, high = sorted(ends)
    shown = from_range(np.array([low, high, max(-(2**31), min(value, 2**31))], float), low, high)
    assert shown[0] == 0
    assert shown[1] == 255
    assert shown[2] == 255 or value < high
