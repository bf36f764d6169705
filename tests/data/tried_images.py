"""Image files that were tried: twelve of a kind in two classes, or such a file among others."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from dicom_files import dicom, object_without_pixels
from image_files import FULL, RAMP, png, tiff, twelve_bit_tiff
from PIL import Image
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from trials import SIDE, Make, Trial, count

from dpmi.data.prepare import PreparedData

CLASSES = ("ill", "well")
EIGHT = (RAMP >> 4).astype(np.uint8)


def rolled(values: np.ndarray, number: int) -> np.ndarray:
    """The same values in another order, so that no two images are alike."""
    return np.roll(values, 5 * number, axis=0)


def saved(values: np.ndarray, kind: str, mode: str | None = None, **options: Any) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(values)
    (image.convert(mode) if mode else image).save(stream, kind, **options)
    return stream.getvalue()


def place(root: Path, number: int, name: str) -> Path:
    """Where an image of the class whose turn it is lies."""
    path = root / CLASSES[number % 2] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def alike(make: Callable[[int], bytes], ending: str, images: int = 12) -> Make:
    """All images of one kind."""

    def write(root: Path) -> None:
        for number in range(images):
            place(root, number, f"{number}{ending}").write_bytes(make(number))

    return write


def of(values: np.ndarray, kind: str, mode: str | None = None, **options: Any) -> Make:
    """All images by Pillow."""
    ending = {"JPEG": ".jpg", "TIFF": ".tif"}.get(kind, f".{kind.lower()}")
    return alike(lambda number: saved(rolled(values, number), kind, mode, **options), ending)


def deep(encode: Callable[..., bytes], values: np.ndarray, ending: str, **options: Any) -> Make:
    """All images of more than 8 bits."""
    return alike(lambda number: encode(rolled(values, number), **options), ending)


def scans(values: np.ndarray = RAMP, bits: int = 12, ending: str = ".dcm", **elements: Any) -> Make:
    """All images in DICOM."""
    return alike(lambda number: dicom(rolled(values, number), bits, **elements), ending)


def among(write: Callable[[Path], None], images: int = 20) -> Make:
    """What ``write`` leaves below the root, beside plain images."""

    def both(root: Path) -> None:
        alike(lambda number: saved(rolled(EIGHT, number), "PNG"), ".png", images)(root)
        write(root)

    return both


def extra(*files: tuple[str, bytes]) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        for name, content in files:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)

    return write


def on_its_side(number: int) -> bytes:
    """White above and black below, stored turned by a quarter, as EXIF says."""
    upright = np.zeros((SIDE, SIDE), np.uint8)
    upright[: SIDE // 2], upright[-8:, : 8 * (number % 8)] = 255, 20 * number
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(np.rot90(upright), "JPEG", exif=exif.tobytes())


def upright(data: PreparedData) -> str:
    """Whether white is above."""
    pixels = data.splits["train"].pixels
    above = (pixels[:, :, :28] > 240).all() and (pixels[:, :, 36:-12] < 16).all()
    return "stand upright" if above else "do not stand upright"


def half_transparent(number: int) -> bytes:
    values = np.full((64, 64, 4), 255 - number, np.uint8)
    values[:, :32, 3] = 0
    return saved(values, "PNG")


def black_where_transparent(data: PreparedData) -> str:
    pixels = data.splits["train"].pixels
    black = (pixels[..., :32] == 0).all() and (pixels[..., 32:] > 200).all()
    return "black where transparent" if black else "not black where transparent"


def pages(number: int) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, np.stack([rolled(EIGHT, number)] * 3), photometric="minisblack")
    return stream.getvalue()


def film(number: int) -> bytes:
    stream = io.BytesIO()
    frames = [Image.fromarray(rolled(EIGHT, number + k)) for k in range(3)]
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    return stream.getvalue()


def colours(number: int) -> np.ndarray:
    return np.stack([rolled(EIGHT, number), EIGHT[::-1], EIGHT.T], 2)


def deep_colours(number: int) -> bytes:
    return png(np.stack([rolled(FULL, number), FULL[::-1], FULL.T], 2), colour=2)


def wide(number: int) -> bytes:
    values = np.zeros((64, 6400), np.uint8)
    values[:, 3168:3232] = rolled(EIGHT, number)
    return saved(values, "PNG")


def huge(number: int) -> bytes:
    data = bytearray(saved(rolled(EIGHT, number), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 60_000, 60_000)
    return bytes(data)


def frames(number: int) -> bytes:
    several = np.stack([rolled(EIGHT, number)] * 2)
    return dicom(several[0], 8, NumberOfFrames=2, PixelData=several.tobytes())


def of_patients(number: int) -> bytes:
    return dicom(rolled(RAMP, number), 12, PatientID=f"P-{number // 4}", PatientName="Doe^Jane")


def beyond(number: int) -> bytes:
    values = rolled(RAMP, number).copy()
    values[0, 0] = 4096
    return png(values)


def named(*names: str) -> Make:
    """Plain images by these names among others."""

    def write(root: Path) -> None:
        for number, name in enumerate(names):
            kind = {"jpg": "JPEG", "tiff": "TIFF"}.get(name.rpartition(".")[2].lower(), "PNG")
            path = root / "ill" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(saved(rolled(EIGHT.T, number), kind))

    return among(write)


def halved(path: Path) -> None:
    whole = saved(rolled(FULL >> 8, 1).astype(np.uint8) ^ EIGHT.T, "JPEG", quality=95)
    path.write_bytes(whole[: len(whole) // 2])


def one_away(root: Path) -> None:
    (root.parent / "away.png").write_bytes(saved(EIGHT, "PNG"))
    os.symlink(root.parent / "away.png", root / "ill" / "link.png")


DEPTH = "data.bit_depth=12"
FORMATS = [
    Trial("PNG, gray, 8 bits", of(EIGHT, "PNG")),
    Trial("PNG, gray, 16 bits", deep(png, FULL, ".png")),
    Trial("12 bits in a PNG of 16, without `sBIT`", deep(png, RAMP, ".png")),
    Trial("the same", deep(png, RAMP, ".png"), words=(DEPTH,)),
    Trial("12 bits in a PNG of 16, `sBIT` 12, scaled to 16 as PNG's standard has it",
          deep(png, FULL, ".png", significant=b"\x0c")),
    Trial("12 bits in a PNG of 16, `sBIT` 12, not scaled",
          deep(png, RAMP, ".png", significant=b"\x0c")),
    Trial("the same", deep(png, RAMP, ".png", significant=b"\x0c"), words=(DEPTH,)),
    Trial("PNG of 16 bits with the value 4096", alike(beyond, ".png"), False, (DEPTH,)),
    Trial("PNG in colour, 8 bits", alike(lambda n: saved(colours(n), "PNG"), ".png")),
    Trial("PNG in colour, 16 bits", alike(deep_colours, ".png")),
    Trial("the same", alike(deep_colours, ".png"), False, (DEPTH,)),
    Trial("PNG with a palette", alike(lambda n: saved(colours(n), "PNG", "P"), ".png")),
    Trial("PNG of one bit", of(EIGHT, "PNG", "1")),
    Trial("PNG with alpha", alike(half_transparent, ".png"), fact=black_where_transparent),
    Trial("JPEG, gray", of(EIGHT, "JPEG", quality=95)),
    Trial("JPEG, CMYK", alike(lambda n: saved(colours(n), "JPEG", "CMYK"), ".jpg")),
    Trial("JPEG on its side, EXIF orientation 6", alike(on_its_side, ".jpg"), fact=upright),
    Trial("TIFF, 8 bits", deep(tiff, EIGHT, ".tif")),
    Trial("TIFF, 12 bits (BitsPerSample)", deep(twelve_bit_tiff, RAMP, ".tif")),
    Trial("TIFF, 16 bits", deep(tiff, FULL, ".tif")),
    Trial("TIFF, 32-bit floats", deep(tiff, RAMP.astype(np.float32), ".tif"), False),
    Trial("the same", deep(tiff, RAMP.astype(np.float32), ".tif"),
          words=("data.value_range=[0,4095]",)),
    Trial("TIFF, 32-bit integers", deep(tiff, RAMP.astype(np.uint32), ".tif"), False),
    Trial("the same", deep(tiff, RAMP.astype(np.uint32), ".tif"),
          words=("data.value_range=[0,4095]",)),
    Trial("TIFF, 64-bit floats", deep(tiff, RAMP.astype(np.float64), ".tif"), False,
          ("data.value_range=[0,4095]",)),
    Trial("TIFF of three pages", alike(pages, ".tif"), False),
    Trial("animated GIF", alike(film, ".gif"), False),
    Trial("PGM of 12 bits",
          alike(lambda n: b"P5 64 64 4095\n" + rolled(RAMP, n).astype(">u2").tobytes(), ".pgm")),
    Trial("6400 x 64 pixels", alike(wide, ".png")),
    Trial("JPEG whose header says 60000 x 60000 pixels", alike(huge, ".jpg"), False),
    Trial("a file of zero bytes", among(extra(("ill/empty.png", b""))), False),
    Trial("the same", among(extra(("ill/empty.png", b""))), words=("data.on_corrupt=skip",),
          fact=count),
    Trial("half of a JPEG",
          among(lambda root: halved(root / "ill" / "half.jpg")), False),
]  # fmt: skip

WINDOW = {"WindowCenter": 1000, "WindowWidth": 500}
DICOM = [
    Trial("MONOCHROME2, 12 bits stored", scans()),
    Trial("MONOCHROME1", scans(kind="MONOCHROME1")),
    Trial("16 bits stored, of which 12 are used", scans(bits=16)),
    Trial("the same", scans(bits=16), words=(DEPTH,)),
    Trial("a window in the header", scans(**WINDOW)),
    Trial("the same", scans(**WINDOW), words=("data.window=[2000,4000]",)),
    Trial("RLE", scans(syntax=RLELossless)),
    Trial("JPEG Lossless", scans(syntax=JPEGLosslessSV1)),
    Trial("JPEG-LS", scans(syntax=JPEGLSLossless)),
    Trial("JPEG 2000", scans(syntax=JPEG2000Lossless)),
    Trial("JPEG baseline, 8 bits", scans(EIGHT, 8, syntax=JPEGBaseline8Bit)),
    Trial("JPEG Extended, 12 bits", scans(syntax=JPEGExtended12Bit), False),
    Trial("two frames", alike(frames, ".dcm"), False),
    Trial("a report without an image",
          among(extra(("ill/report.dcm", object_without_pixels()))), False),
    Trial("PatientID in each file, twelve images of three patients", alike(of_patients, ".dcm", 12),
          fact=count, words=("data.test_fraction=0.34", "data.val_fraction=0")),
    Trial("one PatientID in all files", scans(PatientID="ANON"), False),
    Trial("BurnedInAnnotation YES", scans(BurnedInAnnotation="YES"), fact=count),
    Trial("named as `IM1`, without an ending", scans(ending=""), fact=count),
    Trial("a DICOM file named `.jpg`", among(extra(("ill/x.jpg", dicom(RAMP, 12)))), False),
]  # fmt: skip

NAMES = [
    Trial("`A.PNG`, `B.JPG`, `C.Tiff` beside 20 images",
          named("A.PNG", "B.JPG", "C.Tiff"), fact=count),
    Trial("`Müller, Anna.png`, `肺 1.png`, `a b/c;d/x.png` beside 20 images",
          named("Müller, Anna.png", "肺 1.png", "a b/c;d/x.png"), fact=count),
    Trial("hidden files, `._1.png`, `.DS_Store`, `Thumbs.db`, `desktop.ini`, `DICOMDIR`",
          among(extra(*((f"ill/{name}", b"x") for name in (
              ".hidden.png", "._1.png", ".DS_Store", "Thumbs.db", "desktop.ini", "DICOMDIR")))),
          fact=count),
    Trial("a text file beside 20 images", among(extra(("ill/notes.txt", b"x"))), fact=count),
    Trial("4 text files beside 20 images",
          among(extra(*((f"ill/{n}.txt", b"x") for n in range(4)))), False),
    Trial("the same", among(extra(*((f"ill/{n}.txt", b"x") for n in range(4)))), fact=count,
          words=("data.max_left_out=0.2",)),
    Trial("one image in a class", among(extra(("rare/1.png", saved(EIGHT[::-1], "PNG")))), False),
    Trial("an image twice, in two splits", among(extra(
        ("train/ill/a.png", saved(EIGHT, "PNG")), ("train/well/b.png", saved(EIGHT.T, "PNG")),
        ("train/ill/c.png", saved(EIGHT[::-1], "PNG")),
        ("test/ill/c.png", saved(EIGHT, "PNG")), ("test/well/d.png", saved(EIGHT[:, ::-1], "PNG")),
    ), 0), fact=count),
    Trial("`valid/` beside `train/`", among(extra(
        ("train/ill/a.png", saved(EIGHT, "PNG")), ("valid/ill/b.png", saved(EIGHT.T, "PNG")),
        ("test/ill/c.png", saved(EIGHT[::-1], "PNG"))), 0), False),
    Trial("a class folder `Effusion|Mass`",
          among(extra(("Effusion|Mass/1.png", saved(EIGHT.T, "PNG")))), False),
    Trial("one class", extra(("ill/a.png", saved(EIGHT, "PNG"))), False),
    Trial("images without class folders", extra(("a.png", saved(EIGHT, "PNG"))), False),
    Trial("a link to an image elsewhere", among(one_away), False),
]  # fmt: skip
