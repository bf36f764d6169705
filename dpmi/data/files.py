"""Images in files below a root."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpmi.base.errors import UserError
from dpmi.data.decode import decode_image

IMAGE_SUFFIXES = frozenset({".jpeg", ".jpg", ".png", ".bmp", ".tif", ".tiff", ".webp"})


class FileSource:
    """Images in files; a path is relative to ``root``, with forward slashes."""

    def __init__(self, root: Path, channels: int) -> None:
        self._root = str(root)  # joined as text: pathlib would take longer than reading
        self._channels = channels

    @property
    def place(self) -> str:
        """Absolute path of the root: whose stamps these are."""
        return os.path.realpath(self._root)

    def stamp(self, path: str) -> tuple[int, int]:
        """Size in bytes and time of the last change in nanoseconds."""
        file = os.path.join(self._root, path)
        try:
            status = os.stat(file)
        except OSError as error:
            raise _unreadable(file, error) from error
        return status.st_size, status.st_mtime_ns

    def fetch(self, path: str) -> bytes:
        """Return the file's content."""
        file = os.path.join(self._root, path)
        try:
            with open(file, "rb", buffering=0) as stream:
                return stream.read()
        except OSError as error:
            raise _unreadable(file, error) from error

    def load(self, path: str, resize: int) -> NDArray[np.uint8]:
        """Return the image as ``(resize, resize, channels)``; raises BadImageError."""
        return decode_image(self.fetch(path), resize, self._channels)


def _unreadable(path: str, error: OSError) -> UserError:
    return UserError(f"{path}: the image file cannot be read: {error.strerror}.")


def image_files(folder: Path, *, recursive: bool = False) -> list[str]:
    """Names of the image files of a folder, sorted, relative to it, with forward slashes.

    Hidden files are left out: macOS leaves ``._name.jpeg`` beside ``name.jpeg``, and it is no
    image. A folder that does not exist has no files.
    """
    names: list[str] = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        below = Path(place).relative_to(folder)
        names += [
            (below / name).as_posix()
            for name in files
            if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")
        ]
    return sorted(names)


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted; hidden ones and macOS's leftovers left out."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(
            entry.name
            for entry in entries
            if entry.is_dir() and not entry.name.startswith(".") and entry.name != "__MACOSX"
        )


def first_outside(root: Path, paths: Iterable[str]) -> str | None:
    """The first of normalised paths below ``root`` that a symbolic link leads out of it."""
    home = os.path.realpath(root)
    folders: dict[str, str] = {}  # a data set has few: resolving each image would take longer
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = os.path.realpath(os.path.join(home, folder))
        target = os.path.join(folders[folder], name)
        if os.path.islink(target):
            target = os.path.realpath(target)
        if not target.startswith(os.path.join(home, "")):
            return path
    return None


def no_data(name: str, root: Path, shape: str, *, download: bool, instead: str) -> UserError:
    """Say that there are no data at a root, and the ways to get some.

    Args:
        name: of the data set.
        root: where the images were looked for.
        shape: what must lie below the root.
        download: whether ``make data`` can fetch this set.
        instead: a data set of the same kind that needs no download.
    """
    fetch = "run `make data` (needs a Kaggle account), " if download else ""
    return UserError(
        f"data={name}: no images at data.root={root} ({root.resolve()}). It must hold {shape}. "
        f"Do one of these: {fetch}put the images there by hand or set data.root=FOLDER, "
        f"or train on images that need no download: data={instead}."
    )
