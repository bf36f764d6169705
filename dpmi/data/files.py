"""Images in files below a root."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpmi.base.errors import UserError
from dpmi.data.decoding.dicom import is_dicom, is_dicom_file
from dpmi.data.decoding.image import decode_image
from dpmi.data.decoding.settings import BadImageError, Decoding

IMAGE_SUFFIXES = frozenset({
    *(".jpeg", ".jpg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif"),
    *(".pgm", ".ppm", ".pnm"),
})  # fmt: skip
DICOM_SUFFIXES = frozenset({".dcm", ".dicom"})
# What Windows and DICOM's media leave in folders: views of the images, and lists of them.
_LEFTOVERS = frozenset({"thumbs.db", "desktop.ini", "dicomdir"})


class FileSource:
    """Images in files; a path is relative to ``root``, with forward slashes."""

    def __init__(self, root: Path, settings: Decoding) -> None:
        self._root = str(root)  # joined as text: pathlib would take longer than reading
        self._settings = settings

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
        data = self.fetch(path)
        if is_dicom(data) and os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES:
            raise BadImageError(
                "it is a DICOM file under another format's name, so that its patient was not "
                "looked for: give its name the ending .dcm"
            )
        return decode_image(data, resize, self._settings)


def _unreadable(path: str, error: OSError) -> UserError:
    return UserError(f"{path}: the image file cannot be read: {error.strerror}.")


def image_files(folder: Path) -> list[str]:
    """Names of the image files in a folder, by their endings, sorted.

    Hidden files are left out: macOS leaves ``._name.jpeg`` beside ``name.jpeg``, and it is no
    image. A folder that does not exist has no files.
    """
    return sorted(
        name
        for name in _files(folder, deep=False)
        if Path(name).suffix.lower() in IMAGE_SUFFIXES | DICOM_SUFFIXES
    )


def class_files(folder: Path) -> tuple[list[str], list[str]]:
    """Files of a folder and of all below it: images, and others; sorted, with forward slashes.

    A DICOM file is known by its ending, or by what it begins with. What operating systems leave in
    folders is in neither list.
    """
    images: list[str] = []
    others: list[str] = []
    for name in _files(folder, deep=True):
        known = Path(name).suffix.lower() in IMAGE_SUFFIXES | DICOM_SUFFIXES
        (images if known or is_dicom_file(folder / name) else others).append(name)
    return sorted(images), sorted(others)


def _files(folder: Path, *, deep: bool) -> Iterator[str]:
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if deep and not _is_hidden(name)]
        below = Path(place).relative_to(folder)
        for name in files:
            if not _is_hidden(name) and name.lower() not in _LEFTOVERS:
                yield (below / name).as_posix()


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted; hidden ones and macOS's leftovers left out."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(
            entry.name for entry in entries if entry.is_dir() and not _is_hidden(entry.name)
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
    whole = "" if root.is_absolute() else f" ({root.resolve()})"
    fetch = "run `make data` (needs a Kaggle account), " if download else ""
    return UserError(
        f"data={name}: no images at data.root={root}{whole}. It must hold {shape}. "
        f"Do one of these: {fetch}put the images there by hand or set data.root=FOLDER, "
        f"or train on images that need no download: data={instead}."
    )
