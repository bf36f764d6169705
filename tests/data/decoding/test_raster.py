from __future__ import annotations

import contextlib
import io
import os
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import v2

from dpmi.base.errors import UserError
from dpmi.data.decoding import geometry
from dpmi.data.decoding.image import decode_image, read_image
from dpmi.data.decoding.settings import BadImageError, Decoding


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
        assert np.array_equal(decode_image(data, size, Decoding(1))[..., 0], expected)


def test_an_rgb_xray_gives_the_gray_values_of_a_conversion(real_images: Path) -> None:
    files = sorted((real_images / "chest_xray").rglob("*.jpeg"))[::40]
    assert {Image.open(file).mode for file in files} == {"RGB"}
    for file in files:
        data = file.read_bytes()
        expected = torchvision_square(data, "L", 64)
        assert np.array_equal(decode_image(data, 64, Decoding(1))[..., 0], expected)


@pytest.mark.parametrize("size", [(40, 33), (33, 40), (20, 20), (500, 7), (64, 64)])
def test_any_shape_gives_the_square_that_torchvision_gives(
    draw: Callable[..., Path], tmp_path: Path, size: tuple[int, int]
) -> None:
    data = draw(tmp_path / "image.png", size=size).read_bytes()
    pixels = decode_image(data, 64, Decoding(3))
    assert pixels.shape == (64, 64, 3)
    assert np.array_equal(pixels, torchvision_square(data, "RGB", 64))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_common_pixel_format_is_read(mode: str, channels: int) -> None:
    image = Image.new("RGB", (40, 40), (255, 255, 255)).convert(mode)
    data = encoded(image, "JPEG" if mode in ("CMYK", "YCbCr") else "PNG")
    pixels = decode_image(data, 32, Decoding(channels))
    assert pixels.shape == (32, 32, channels)
    assert (pixels > 250).all()


def test_a_16_bit_xray_keeps_its_gray_levels() -> None:
    levels = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    pixels = decode_image(encoded(Image.fromarray(levels)), 64, Decoding(1))
    assert np.array_equal(pixels[..., 0], levels >> 8)


def test_damaged_files_are_reported_as_bad(real_images: Path) -> None:
    whole = next((real_images / "chest_xray_original").rglob("*.jpeg")).read_bytes()
    png = encoded(Image.new("L", (64, 64), 7))
    broken = png[:60] + b"\0" * 20 + png[80:]
    for data in [b"", b"no image at all", whole[: len(whole) // 2], whole[:100], png[:50], broken]:
        with pytest.raises(BadImageError):
            decode_image(data, 32, Decoding(1))


def test_an_image_of_too_many_pixels_is_reported_as_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "MAX_PIXELS", 1000)
    with pytest.raises(BadImageError, match="40 x 40 pixels"):
        decode_image(encoded(Image.new("L", (40, 40))), 32, Decoding(1))


def chunk(name: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 0) -> bytes:
    """A PNG that promises what is asked, and holds a few pixels."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 100_000)
    parts = (chunk(b"IHDR", head), *chunks, chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(width: int, height: int, tile: int = 0) -> bytes:
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: 100}
    if tile:
        tags |= {322: tile, 323: tile, 324: 8, 325: 100}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0" * 200


def resized_header(kind: str, mark: bytes, at: int, size: bytes, **options: Any) -> bytes:
    """A small image whose header tells another size."""
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, kind, **options)
    data = bytearray(stream.getvalue())
    start = data.index(mark) + at
    data[start : start + len(size)] = size
    return bytes(data)


def scans(count: int) -> bytes:
    """A progressive JPEG with its last scan again and again."""
    stream = io.BytesIO()
    Image.new("L", (4096, 4096), 128).save(stream, "JPEG", progressive=True)
    data = stream.getvalue()
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * count + data[-2:]


ZEROS = zlib.compress(b"\0" * 200_000_000, 9)
TWO = Image.new("RGB", (8, 8), 9)
BOMBS = {
    "png": lambda: png(100_000, 100_000),
    "png of 2^31": lambda: png(2**31 - 1, 2**31 - 1),
    "png of 16 bits": lambda: png(60_000, 60_000, depth=16, colour=6),
    "long png": lambda: png(1, 1_700_000),
    "longer png": lambda: png(1, 80_000_000),
    "wide png": lambda: png(80_000_000, 1),
    "png with text": lambda: png(8, 8, chunk(b"zTXt", b"a\0\0" + ZEROS)),
    "png with international text": lambda: png(8, 8, chunk(b"iTXt", b"a\0\1\0\0\0" + ZEROS)),
    "png with a profile": lambda: png(8, 8, chunk(b"iCCP", b"a\0\0" + ZEROS)),
    "png with many texts": lambda: png(
        8, 8, chunk(b"zTXt", b"a\0\0" + zlib.compress(b"\0" * 1_000_000)) * 200
    ),
    "png whose chunk claims 2 GB": lambda: png(8, 8)[:33] + struct.pack(">I", 2**31 - 1) + b"zTXt",
    "tiff": lambda: tiff(100_000, 100_000),
    "tiff of one long strip": lambda: tiff(1, 80_000_000),
    "tiff of one large tile": lambda: tiff(64, 64, tile=60_000),
    "jpeg": lambda: resized_header("JPEG", b"\xff\xc0", 5, struct.pack(">HH", 65_500, 65_500)),
    "jpeg of many scans": lambda: scans(1000),
    "gif": lambda: resized_header("GIF", b"GIF8", 6, struct.pack("<HH", 65_535, 65_535)),
    "bmp": lambda: resized_header("BMP", b"BM", 18, struct.pack("<ii", 100_000, -(2**31))),
    "webp": lambda: resized_header(
        "WEBP", b"VP8X", 12, b"\xfe\x3f\x00\xfe\x3f\x00", save_all=True, append_images=[TWO]
    ),
}  # fmt: skip

MEASURE = """
import resource, sys, time
from pathlib import Path
from dpmi.data.decoding.image import decode_image
from dpmi.data.decoding.settings import BadImageError, Decoding
data = Path(sys.argv[1]).read_bytes()
before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
try:
    decode_image(data, 224, Decoding(3))
except BadImageError as error:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print((peak - before) // 1024, time.process_time() - started, str(error), sep="|")
"""


def test_a_header_that_promises_too_much_is_refused_before_a_pixel_is_decoded(
    tmp_path: Path,
) -> None:
    """Each in a process of its own: the most memory that a process had says it all."""

    def measure(name: str) -> str:
        file = tmp_path / name.replace(" ", "_")
        file.write_bytes(BOMBS[name]())
        command = [sys.executable, "-c", MEASURE, str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout

    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(BOMBS, pool.map(measure, BOMBS), strict=True))
    for name, line in found.items():
        assert line, f"{name} was decoded"
        megabytes, seconds, reason = line.split("|", 2)
        assert int(megabytes) < 64, (name, line)
        assert float(seconds) < 1, (name, line)
        assert reason.count("\n") == 1, (name, line)


def test_an_image_with_a_huge_exif_is_read() -> None:
    stream = io.BytesIO()
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 5000) + b"\xff" * 60_000
    Image.new("L", (64, 64), 7).save(stream, "JPEG", exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert (decode_image(stream.getvalue(), 32, Decoding(1)) == 7).all()


def test_postscript_under_the_name_of_an_image_starts_no_other_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "#!/bin/sh\ntouch ran\n"
    (tmp_path / "gs").write_text(script)
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.chdir(tmp_path)
    page = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    with contextlib.suppress(Exception):
        Image.open(io.BytesIO(page)).load()
    assert (tmp_path / "ran").exists()  # what Pillow does when it is let
    (tmp_path / "ran").unlink()
    with pytest.raises(BadImageError, match="known format"):
        decode_image(page, 32, Decoding(1))
    assert not (tmp_path / "ran").exists()


def several(kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    frames = [Image.new("RGB", (40, 40), (value, 0, 0)) for value in (9, 99, 200)]
    frames[0].save(stream, kind, save_all=True, append_images=frames[1:], **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "PNG", "WEBP"])
def test_several_pages_or_frames_are_refused_by_name(kind: str) -> None:
    with pytest.raises(BadImageError, match=f"it is a {kind} of several pages or frames"):
        decode_image(several(kind), 32, Decoding(3))


def test_of_a_photograph_with_other_pictures_behind_it_the_photograph_is_read() -> None:
    pixels = decode_image(several("MPO", quality=95), 32, Decoding(3)).astype(int)
    assert np.abs(pixels - [9, 0, 0]).max() <= 3


TURNED = {  # EXIF's orientation to what undoes it
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(np.transpose(stored), 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_image_stands_upright_as_its_exif_says(kind: str, orientation: int) -> None:
    stored = np.zeros((48, 32), np.uint8)
    stored[:24, :16], stored[24:, :16] = 255, 128
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    Image.fromarray(stored).convert("RGB").save(stream, kind, exif=exif.tobytes())
    upright = Image.fromarray(np.ascontiguousarray(TURNED[orientation](stored)))
    expected = decode_image(encoded(upright), 32, Decoding(1)).astype(int)
    pixels = decode_image(stream.getvalue(), 32, Decoding(1)).astype(int)
    assert np.abs(pixels - expected).mean() < 6  # of edges that JPEG and WebP blur


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_what_is_transparent_stands_on_black(mode: str, channels: int) -> None:
    white = Image.new("RGBA", (64, 64), (255, 255, 255, 255))
    white.paste((255, 255, 255, 0), (0, 0, 32, 64))
    white.paste((255, 255, 255, 128), (32, 0, 64, 32))
    if mode == "P":  # a palette of which one colour is transparent
        image = Image.fromarray(np.asarray(white)[..., 3] // 128).convert("P")
        image.putpalette([255, 255, 255] * 3)
        image.info["transparency"] = 0
    else:
        image = white.convert(mode)
    pixels = decode_image(encoded(image), 64, Decoding(channels))
    assert (pixels[:, :32] == 0).all()
    assert (pixels[32:, 32:] == 255).all()
    assert (pixels[:32, 32:] == (255 if mode == "P" else 128)).all()


def test_an_inverted_cmyk_jpeg_is_read_as_its_writer_meant_it() -> None:
    image = Image.new("CMYK", (40, 40), (0, 200, 200, 10))  # red
    pixels = decode_image(encoded(image, "JPEG"), 32, Decoding(3))
    assert np.abs(pixels.astype(int) - np.asarray(image.convert("RGB"))[:32, :32]).max() < 12


def test_an_image_a_hundred_times_as_wide_as_high_gives_its_middle() -> None:
    wide = np.zeros((32, 3200), np.uint8)
    wide[:, 1584:1616] = np.arange(32)
    assert np.array_equal(
        decode_image(encoded(Image.fromarray(wide)), 32, Decoding(1))[..., 0], wide[:, 1584:1616]
    )


def test_a_file_is_read_from_its_place_and_named_where_it_cannot_be(tmp_path: Path) -> None:
    good, empty = tmp_path / "Müller, Anna.PNG", tmp_path / "empty.png"
    Image.new("L", (40, 40), 7).save(good)
    empty.touch()
    assert (read_image(good, 32, Decoding(1)) == 7).all()
    for path, reason in ((empty, "cannot be decoded: it is empty"), (tmp_path, "be read")):
        with pytest.raises(UserError, match=reason) as caught:
            read_image(path, 32, Decoding(1))
        assert str(caught.value).startswith(f"{path}: ")
