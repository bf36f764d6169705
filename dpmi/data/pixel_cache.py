"""Decoded images: decoded once, shared by every run that asks for the same pixels.

They are kept in ``cache_dir/images/<key>/`` (see pixel_store), which also tells the images left
out, and whether all are gray. The key is made of the images' contents and the preprocessing, never
of where the files lie, so that data that were moved are not decoded again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track

from dpmi.base.errors import UserError
from dpmi.data.catalogue import Source
from dpmi.data.decoding.image import is_gray
from dpmi.data.decoding.settings import PREPROCESSING_VERSION, BadImageError
from dpmi.data.parallel import in_threads
from dpmi.data.pixel_store import PixelWriter, stored_pixels

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class CachedPixels:
    """Decoded images.

    ``pixels`` holds the readable images only, in the order asked, and one channel where all of
    them are gray; ``bad`` maps the positions of the others to the reason.
    """

    pixels: NDArray[np.uint8]  # (readable, C, R, R), memory-mapped, read-only
    bad: dict[int, str]
    levels: int  # from the darkest to the brightest value of all of them, both counted


@dataclass(frozen=True)
class ImageList:
    """Which images to decode, and how."""

    source: Source
    paths: Sequence[str]
    digests: Sequence[str]  # of the contents
    size: int  # side R of the square, in pixels
    channels: int
    decoding: Mapping[str, Any] = field(default_factory=dict)  # see Catalogue

    @property
    def key(self) -> str:
        """Name of the pixels these images give."""
        parts = [PREPROCESSING_VERSION, self.size, self.channels, self.decoding, *self.digests]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def cached_pixels(images: ImageList, cache_dir: Path, *, skip_bad: bool) -> CachedPixels:
    """Return the decoded images, from the cache where they are there, else decoding them.

    Raises:
        UserError: an image is unreadable and ``skip_bad`` is false; or the cache cannot be
            written.
    """
    found = stored_pixels(
        cache_dir / "images" / images.key,
        lambda writer: _decode_all(images, writer, skip_bad=skip_bad),
        (len(images.paths), images.channels, images.size, images.size),
        verb="decoded",
        again="its images were decoded again",
    )
    bad = {int(row): str(reason) for row, reason in found.facts["bad"].items()}
    if bad and not skip_bad:
        first = min(bad)
        raise _unreadable(images.paths[first], bad[first])
    pixels = found.pixels[:, :1] if found.facts["gray"] else found.pixels
    return CachedPixels(pixels, bad, found.facts["levels"])


def _decode_all(images: ImageList, writer: PixelWriter, *, skip_bad: bool) -> dict[str, Any]:
    """Write the readable images.

    Returns:
        Why the others are not readable, by position; whether all are gray; and how many levels lie
        between the darkest and the brightest value of all.
    """

    def decode(path: str) -> tuple[bytes, bool, int, int] | BadImageError:
        try:
            pixels = images.source.load(path, images.size).transpose(2, 0, 1)
            return pixels.tobytes(), is_gray(pixels), int(pixels.min()), int(pixels.max())
        except BadImageError as error:
            return error

    bad: dict[str, str] = {}
    gray, darkest, brightest = True, 255, 0
    with bombs_are_errors():
        decoded = in_threads(decode, images.paths)
        for row, result in enumerate(_with_progress(decoded, len(images.paths))):
            if isinstance(result, BadImageError):
                if not skip_bad:
                    raise _unreadable(images.paths[row], str(result))
                bad[str(row)] = str(result)
            else:
                writer.add(result[0])
                gray &= result[1]
                darkest, brightest = min(darkest, result[2]), max(brightest, result[3])
    return {"bad": bad, "gray": gray, "levels": brightest - darkest + 1}


def _with_progress(results: Iterable[_Result], total: int) -> Iterable[_Result]:
    console = Console(stderr=True)
    return track(
        results,
        description="Decoding images",
        total=total,
        console=console,
        disable=not console.is_terminal,
    )


@contextlib.contextmanager
def bombs_are_errors() -> Iterator[None]:
    """Let Pillow raise on images above its limit of pixels, and print nothing of the others."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL|pydicom")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _unreadable(path: str, reason: str) -> UserError:
    return UserError(
        f"{path}: the image cannot be decoded: {reason}. Replace or remove it, "
        "or set data.on_corrupt=skip to train without it."
    )
