"""Decoded images on disk: decoded once, shared by every run that asks for the same pixels.

``cache_dir/images/<key>/`` holds ``pixels.npy`` (uint8, ``(n, C, R, R)``) and ``images.json``,
which tells the images left out and the checksum of all. The key is made of the images' contents
and the preprocessing, never of where the files lie, so that data that were moved are not decoded
again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import time
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track

from dpmi.data.catalogue import Source
from dpmi.data.decode import PREPROCESSING_VERSION, BadImageError
from dpmi.data.parallel import in_threads
from dpmi.errors import UserError

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

_SECONDS_BEFORE_SAYING_WAIT = 2.0


@dataclass(frozen=True)
class CachedPixels:
    """Decoded images.

    ``pixels`` holds the readable images only, in the order asked; ``bad`` maps the positions of
    the others to the reason.
    """

    pixels: NDArray[np.uint8]  # (readable, C, R, R), memory-mapped, read-only
    bad: dict[int, str]


@dataclass(frozen=True)
class ImageList:
    """Which images to decode, and how."""

    source: Source
    paths: Sequence[str]
    digests: Sequence[str]  # of the contents
    size: int  # side R of the square, in pixels
    channels: int

    @property
    def key(self) -> str:
        """Name of the pixels these images give."""
        asked = [PREPROCESSING_VERSION, self.size, self.channels, *self.digests]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:32]

    @property
    def bytes(self) -> int:
        """What the decoded images take on disk."""
        return len(self.paths) * self.channels * self.size**2


def cached_pixels(images: ImageList, cache_dir: Path, *, skip_bad: bool) -> CachedPixels:
    """Return the decoded images, from the cache where they are there, else decoding them.

    Any number of processes may ask for the same images at the same moment: one decodes, the
    others wait for it. A reader never sees a half-written cache: it is built beside its place
    and renamed into it. One that was damaged since is told, and made anew.

    Raises:
        UserError: an image is unreadable and ``skip_bad`` is false; or the cache cannot be
            written.
    """
    home = cache_dir / "images" / images.key
    if (found := _open(home)) is None:
        with _cache_errors(cache_dir, images):
            home.parent.mkdir(parents=True, exist_ok=True)
            with _alone(home):
                if (found := _open(home)) is None:
                    found = _build(images, home, skip_bad=skip_bad)
    if found is None:
        raise UserError(f"cache_dir={cache_dir}: {home} cannot be read back; remove it and retry.")
    if found.bad and not skip_bad:
        first = min(found.bad)
        raise _unreadable(images.paths[first], found.bad[first])
    return found


def _open(home: Path) -> CachedPixels | None:
    """Open a finished cache; None where there is none, or a damaged one, which is as good."""
    try:
        content = json.loads((home / "images.json").read_text(encoding="utf-8"))
        bad = {int(row): str(reason) for row, reason in content["bad"].items()}
        pixels = np.load(home / "pixels.npy", mmap_mode="r")
        whole = content["crc32"] == _checksum(pixels, bad)
    except Exception:  # what is damaged may raise anything
        return None
    return CachedPixels(pixels, bad) if whole else None


def _checksum(pixels: NDArray[np.uint8], bad: dict[int, str]) -> int:
    """CRC-32 of the pixels, their shape, and what was left out: 3 GB a second."""
    if pixels.dtype != np.uint8 or not pixels.flags.c_contiguous:
        raise ValueError("not what was written")
    return _sealed(zlib.crc32(pixels.reshape(-1).data), pixels.shape, bad)


def _sealed(crc: int, shape: tuple[int, ...], bad: dict[int, str]) -> int:
    return zlib.crc32(json.dumps([shape, sorted(bad.items())]).encode(), crc)


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Hold the lock of one cache entry."""
    lock = FileLock(home.with_suffix(".lock"))
    try:
        lock.acquire(timeout=_SECONDS_BEFORE_SAYING_WAIT)
    except Timeout:
        log.info("Another run is decoding the same images; waiting for it.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _build(images: ImageList, home: Path, *, skip_bad: bool) -> CachedPixels | None:
    """Decode into a folder beside ``home``, then rename it; leaves nothing behind on failure.

    Returns:
        The pixels, None where the disk did not keep what was written.
    """
    started = time.perf_counter()
    partial = home.with_suffix(".partial")
    _remove_leftovers(home)
    partial.mkdir()
    try:
        bad, crc = _decode_all(images, partial / "pixels.npy", skip_bad=skip_bad)
        content = json.dumps({"bad": bad, "crc32": crc})
        (partial / "images.json").write_text(content, encoding="utf-8")
        found = _open(partial)  # remains open, wherever it is moved
        if home.exists():
            log.warning("%s: damaged; its images were decoded again.", home)
            shutil.rmtree(home, ignore_errors=True)
        os.replace(partial, home)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    log.info(
        "Decoded %d images to %d x %d px in %.1f s, kept in %s.",
        len(images.paths) - len(bad),
        images.size,
        images.size,
        time.perf_counter() - started,
        home,
    )
    return found


def _decode_all(images: ImageList, file: Path, *, skip_bad: bool) -> tuple[dict[int, str], int]:
    """Write the readable images to an .npy file.

    Returns:
        Why the others are not readable, by position; and the checksum.
    """

    def decode(path: str) -> bytes | BadImageError:
        try:
            return images.source.load(path, images.size).transpose(2, 0, 1).tobytes()
        except BadImageError as error:
            return error

    bad: dict[int, str] = {}
    crc = 0
    # Written, not memory-mapped: a full disk then raises an error instead of killing the process.
    with file.open("wb") as stream, _bombs_are_errors():
        _write_header(stream, len(images.paths), images)
        decoded = in_threads(decode, images.paths)
        for row, result in enumerate(_with_progress(decoded, len(images.paths))):
            if isinstance(result, BadImageError):
                if not skip_bad:
                    raise _unreadable(images.paths[row], str(result))
                bad[row] = str(result)
            else:
                stream.write(result)
                crc = zlib.crc32(result, crc)
        rows = len(images.paths) - len(bad)
        if bad:
            _write_header(stream, rows, images)
        stream.flush()
        os.fsync(stream.fileno())
    return bad, _sealed(crc, (rows, images.channels, images.size, images.size), bad)


def _write_header(stream: BinaryIO, rows: int, images: ImageList) -> None:
    """Write the header of an .npy file; numpy pads it so that any number of rows fits."""
    stream.seek(0)
    description = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)),
        "fortran_order": False,
        "shape": (rows, images.channels, images.size, images.size),
    }
    np.lib.format.write_array_header_1_0(stream, description)


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
def _bombs_are_errors() -> Iterator[None]:
    """Let Pillow raise, rather than print, on images above its limit of pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _remove_leftovers(home: Path) -> None:
    """Remove what killed runs left half-built; the lock of ``home`` is held."""
    shutil.rmtree(home.with_suffix(".partial"), ignore_errors=True)
    for partial in home.parent.glob("*.partial"):
        # A lock that can be had belongs to no run at work. Only that one's folder is removed.
        with contextlib.suppress(Timeout), FileLock(partial.with_suffix(".lock"), timeout=0):
            shutil.rmtree(partial, ignore_errors=True)


def _unreadable(path: str, reason: str) -> UserError:
    return UserError(
        f"{path}: the image cannot be decoded: {reason}. Replace or remove it, "
        "or set data.on_corrupt=skip to train without it."
    )


@contextlib.contextmanager
def _cache_errors(cache_dir: Path, images: ImageList) -> Iterator[None]:
    """Name the key to change where the disk of the cache takes no writing."""
    try:
        yield
    except OSError as error:
        megabytes = images.bytes / 1e6
        raise UserError(
            f"cache_dir={cache_dir}: the decoded images cannot be written there (about "
            f"{megabytes:.0f} MB): {error.strerror or error}. "
            "Make room, or set cache_dir to a folder that can be written."
        ) from error
