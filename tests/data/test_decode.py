from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import v2

from dpmi.data import decode
from dpmi.data.decode import BadImageError, decode_image


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def torchvision_square(data: bytes, mode: str, size: int) -> np.ndarray:
    image = Image.open(io.BytesIO(data)).convert(mode)
    return np.asarray(v2.Compose([v2.Resize(size), v2.CenterCrop(size)])(image))


@pytest.mark.parametrize("size", [64, 224, 256])
def test_original_xrays_are_resized_and_cropped_as_torchvision_does(
    real_images: Path, size: int
) -> None:
    files = sorted((real_images / "chest_xray_original").rglob("*.jpeg"))
    assert len(files) == 20
    for file in files:
        data = file.read_bytes()
        expected = torchvision_square(data, "L", size)
        assert np.array_equal(decode_image(data, size, channels=1)[..., 0], expected)


def test_an_rgb_xray_gives_the_gray_values_of_a_conversion(real_images: Path) -> None:
    files = sorted((real_images / "chest_xray").rglob("*.jpeg"))[::40]
    assert {Image.open(file).mode for file in files} == {"RGB"}
    for file in files:
        data = file.read_bytes()
        expected = torchvision_square(data, "L", 64)
        assert np.array_equal(decode_image(data, 64, channels=1)[..., 0], expected)


@pytest.mark.parametrize("size", [(40, 33), (33, 40), (20, 20), (500, 7), (64, 64)])
def test_any_shape_gives_the_square_that_torchvision_gives(
    draw: Callable[..., Path], tmp_path: Path, size: tuple[int, int]
) -> None:
    data = draw(tmp_path / "image.png", size=size).read_bytes()
    pixels = decode_image(data, 64, channels=3)
    assert pixels.shape == (64, 64, 3)
    assert np.array_equal(pixels, torchvision_square(data, "RGB", 64))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_common_pixel_format_is_read(mode: str, channels: int) -> None:
    image = Image.new("RGB", (40, 40), (255, 255, 255)).convert(mode)
    data = encoded(image, "JPEG" if mode in ("CMYK", "YCbCr") else "PNG")
    pixels = decode_image(data, 32, channels)
    assert pixels.shape == (32, 32, channels)
    assert (pixels > 250).all()


def test_a_16_bit_xray_keeps_its_gray_levels() -> None:
    levels = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    pixels = decode_image(encoded(Image.fromarray(levels)), 64, channels=1)
    assert np.array_equal(pixels[..., 0], levels >> 8)


def test_damaged_files_are_told_as_bad(real_images: Path) -> None:
    whole = next((real_images / "chest_xray_original").rglob("*.jpeg")).read_bytes()
    png = encoded(Image.new("L", (64, 64), 7))
    broken = png[:60] + b"\0" * 20 + png[80:]
    for data in [b"", b"no image at all", whole[: len(whole) // 2], whole[:100], png[:50], broken]:
        with pytest.raises(BadImageError):
            decode_image(data, 32, channels=1)


def test_an_image_of_too_many_pixels_is_told_as_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MAX_PIXELS", 1000)
    with pytest.raises(BadImageError, match="40 x 40 pixels"):
        decode_image(encoded(Image.new("L", (40, 40))), 32, channels=1)


def test_a_decompression_bomb_is_told_as_bad_before_it_is_unpacked() -> None:
    png = bytearray(encoded(Image.new("1", (8, 8))))
    png[16:24] = (60_000).to_bytes(4, "big") * 2  # width and height in the header
    png[29:33] = zlib.crc32(png[12:29]).to_bytes(4, "big")
    with pytest.raises(BadImageError, match="pixels"):
        decode_image(bytes(png), 32, channels=1)


def test_a_format_that_has_no_8_bit_meaning_is_told_as_bad() -> None:
    floats = Image.fromarray(np.zeros((40, 40), dtype=np.float32))
    with pytest.raises(BadImageError, match="pixel format F"):
        decode_image(encoded(floats, "TIFF"), 32, channels=1)
