"""Pixels on disk: made once, whole or not at all, and shared by every run that asks for them.

A folder holds ``pixels.npy`` (uint8, ``(n, C, R, R)``) and ``images.json``, which tells what else
is known of them and the checksum of all.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from dpmi.base.errors import UserError

log = logging.getLogger(__name__)

_SECONDS_BEFORE_SAYING_WAIT = 2.0


@dataclass(frozen=True)
class StoredPixels:
    """What a folder holds.

    Attributes:
        pixels: uint8 (n, C, R, R), memory-mapped, read-only.
        facts: what was written beside them, in JSON's values.
        made: by this call, not found.
    """

    pixels: NDArray[np.uint8]
    facts: dict[str, Any]
    made: bool = False


class PixelWriter:
    """Writes images to an .npy file, one after another.

    Args:
        stream: at the start of an empty file.
        shape: (C, R, R) of an image.
        most: images that will be written at most.
    """

    def __init__(self, stream: BinaryIO, shape: tuple[int, ...], most: int) -> None:
        self.crc, self.rows = 0, 0
        self.shape, self._stream, self._most = shape, stream, most
        self._write_header(most)

    def add(self, images: bytes, count: int = 1) -> None:
        """Append the values of ``count`` images."""
        self._stream.write(images)
        self.crc = zlib.crc32(images, self.crc)
        self.rows += count

    def finish(self) -> None:
        """Make the header tell how many there are, and flush to the disk."""
        if self.rows != self._most:
            self._write_header(self.rows)
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def _write_header(self, rows: int) -> None:
        """Numpy pads the header so that any number of rows fits."""
        self._stream.seek(0)
        description = {
            "descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)),
            "fortran_order": False,
            "shape": (rows, *self.shape),
        }
        np.lib.format.write_array_header_1_0(self._stream, description)


Write = Callable[[PixelWriter], dict[str, Any]]  # writes all images, returns the facts


def stored_pixels(
    home: Path, write: Write, shape: tuple[int, ...], *, verb: str, again: str
) -> StoredPixels:
    """Return the pixels that ``home`` holds, making them first where it holds none.

    Any number of processes may ask for the same at the same moment: one makes them, the others
    wait for it. A reader never sees a half-written folder: it is built beside its place and renamed
    into it. One that was damaged since is reported, and made anew.

    Args:
        home: the folder, two below ``cache_dir``.
        write: makes the pixels.
        shape: (n, C, R, R) of what is made, n at most.
        verb: what is done to the images, for messages: "decoded".
        again: what a warning says was done where they were damaged.

    Raises:
        UserError: they cannot be written, or not be read back.
    """
    if (found := _open(home)) is None:
        with _disk_errors(home, verb, int(np.prod(shape))):
            home.parent.mkdir(parents=True, exist_ok=True)
            with _alone(home):
                if (found := _open(home)) is None:
                    found = _build(home, write, shape, verb, again)
    if found is None:
        cache_dir = home.parent.parent
        raise UserError(f"cache_dir={cache_dir}: {home} cannot be read back; remove it and retry.")
    return found


def _open(home: Path) -> StoredPixels | None:
    """Open a finished folder; None where there is none, or a damaged one, which is as good."""
    try:
        facts = json.loads((home / "images.json").read_text(encoding="utf-8"))
        crc = facts.pop("crc32")
        pixels = np.load(home / "pixels.npy", mmap_mode="r")
        whole = crc == _checksum(pixels, facts)
    except Exception:  # what is damaged may raise anything
        return None
    return StoredPixels(pixels, facts) if whole else None


def _checksum(pixels: NDArray[np.uint8], facts: dict[str, Any]) -> int:
    """CRC-32 of the pixels, their shape, and the facts: 3 GB a second."""
    if pixels.dtype != np.uint8 or not pixels.flags.c_contiguous:
        raise ValueError("not what was written")
    return _sealed(zlib.crc32(pixels.reshape(-1).data), pixels.shape, facts)


def _sealed(crc: int, shape: tuple[int, ...], facts: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps([shape, facts], sort_keys=True).encode(), crc)


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Hold the lock of one folder."""
    lock = FileLock(home.with_suffix(".lock"))
    try:
        lock.acquire(timeout=_SECONDS_BEFORE_SAYING_WAIT)
    except Timeout:
        log.info("Another run is at work on the same images; waiting for it.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _build(
    home: Path, write: Write, shape: tuple[int, ...], verb: str, again: str
) -> StoredPixels | None:
    """Write into a folder beside ``home``, then rename it; leaves nothing behind on failure.

    Returns:
        The pixels, None where the disk did not keep what was written.
    """
    started = time.perf_counter()
    partial = home.with_suffix(".partial")
    _remove_leftovers(home)
    partial.mkdir()
    try:
        # Written, not memory-mapped: a full disk then raises an error instead of killing the
        # process.
        with (partial / "pixels.npy").open("wb") as stream:
            writer = PixelWriter(stream, shape[1:], shape[0])
            facts = write(writer)
            writer.finish()
        crc = _sealed(writer.crc, (writer.rows, *writer.shape), facts)
        (partial / "images.json").write_text(json.dumps({"crc32": crc} | facts), encoding="utf-8")
        found = _open(partial)  # remains open, wherever it is moved
        if home.exists():
            log.warning("%s: damaged; %s.", home, again)
            shutil.rmtree(home, ignore_errors=True)
        os.replace(partial, home)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if found is None:
        return None
    log.info(
        "%s %d images of %d x %d px in %.1f s, kept in %s.",
        verb.capitalize(),
        writer.rows,
        *shape[2:],
        time.perf_counter() - started,
        home,
    )
    return StoredPixels(found.pixels, found.facts, made=True)


def _remove_leftovers(home: Path) -> None:
    """Remove what killed runs left half-built; the lock of ``home`` is held."""
    shutil.rmtree(home.with_suffix(".partial"), ignore_errors=True)
    for partial in home.parent.glob("*.partial"):
        # A lock that can be had belongs to no run at work. Only that one's folder is removed.
        with contextlib.suppress(Timeout), FileLock(partial.with_suffix(".lock"), timeout=0):
            shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def _disk_errors(home: Path, verb: str, size: int) -> Iterator[None]:
    """Name the key to change where the disk of the cache takes no writing."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cache_dir={home.parent.parent}: the {verb} images cannot be written there (about "
            f"{size / 1e6:.0f} MB): {error.strerror or error}. "
            "Make room, or set cache_dir to a folder that can be written."
        ) from error
