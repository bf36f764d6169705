"""Sets of MedMNIST v2, which the medmnist package downloads (Yang et al. 2023)."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import tempfile
import threading
import zipfile
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image

from dpmi.base.errors import UserError
from dpmi.config.data_sets import MedmnistData
from dpmi.data.catalogue import SPLITS, Catalogue
from dpmi.data.decoding.geometry import square
from dpmi.data.readers.medmnist_sets import MEDMNIST

_SECONDS_WITHOUT_ANSWER = 30.0
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR}


def read_medmnist(config: MedmnistData, cache_dir: Path) -> Catalogue:
    """Read medmnist's .npz file in ``root`` (null: ``cache_dir/medmnist``), downloading it there.

    Raises:
        UserError: the file is absent and cannot be downloaded, or is damaged.
    """
    root = Path(config.root) if config.root else cache_dir / "medmnist"
    size = "" if config.size == 28 else f"_{config.size}"
    file = root / f"{config.name}{size}.npz"
    if not file.is_file():
        _download(config, file)
    try:
        with np.load(file) as arrays:
            labels = {split: arrays[f"{split}_labels"].reshape(-1) for split in SPLITS}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise _damaged(file, error) from error
    counts = {split: len(labels[split]) for split in SPLITS}
    total, its = sum(counts.values()), MEDMNIST[config.name]
    return Catalogue(
        name=config.name,
        classes=its.classes,
        graded=its.graded,
        channels=its.channels,
        paths=tuple(f"{split}/{row}" for split in SPLITS for row in range(counts[split])),
        labels=np.concatenate([labels[split] for split in SPLITS]).astype(np.int64),
        patients=("",) * total,
        splits=tuple(split for split in SPLITS for _ in range(counts[split])),
        source=_NpzSource(file),
    )


class _NpzSource:
    """Images in medmnist's archive; a path is ``<split>/<row>``."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._arrays: dict[str, NDArray[np.uint8]] = {}
        self._reading = threading.Lock()

    @property
    def place(self) -> str:
        """Absolute path of the archive."""
        return str(self._file.resolve())

    def stamp(self, path: str) -> tuple[int, int]:
        """Size and time of last change of the archive, whichever the image."""
        status = self._file.stat()
        return status.st_size, status.st_mtime_ns

    def fetch(self, path: str) -> bytes:
        """Return the image's values, with their shape."""
        image = self._image(path)
        return str(image.shape).encode() + image.tobytes()

    def load(self, path: str, resize: int) -> NDArray[np.uint8]:
        """Return the image as ``(resize, resize, channels)``."""
        return square(Image.fromarray(self._image(path)), resize)

    def _image(self, path: str) -> NDArray[np.uint8]:
        split, _, row = path.partition("/")
        with self._reading:
            if split not in self._arrays:
                try:
                    with np.load(self._file) as arrays:
                        self._arrays[split] = arrays[f"{split}_images"]
                except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
                    raise _damaged(self._file, error) from error
        image: NDArray[np.uint8] = self._arrays[split][int(row)]
        return image


def _damaged(file: Path, error: Exception) -> UserError:
    return UserError(
        f"{file}: medmnist's archive is damaged ({error}). Remove the file; it will be "
        "downloaded again."
    )


def _download(config: MedmnistData, file: Path) -> None:
    """Let medmnist download an archive; whatever the moment, ``file`` is whole or absent."""
    import medmnist  # its import reads a folder in the user's home: not for other data sets

    info = medmnist.INFO[config.name]
    before = socket.getdefaulttimeout()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            if file.is_file():
                return
            partial = Path(tempfile.mkdtemp(dir=file.parent, suffix=".partial"))
            socket.setdefaulttimeout(_SECONDS_WITHOUT_ANSWER)
            try:
                make = getattr(medmnist, info["python_class"])
                make(split="test", root=str(partial), size=config.size, download=True)
                os.replace(partial / file.name, file)
            finally:
                socket.setdefaulttimeout(before)
                shutil.rmtree(partial, ignore_errors=True)
    except (RuntimeError, OSError) as error:
        # medmnist turns every failure, that of the disk too, into one RuntimeError.
        cause = error.__context__ if isinstance(error, RuntimeError) else error
        if isinstance(cause, OSError) and cause.errno in _DISK_ERRORS:
            raise UserError(
                f"{'data.root' if config.root else 'cache_dir'}: {file.parent} cannot be "
                f"written: {cause.strerror}. Make room, or set the key to another folder."
            ) from error
        url = info["url" if config.size == 28 else f"url_{config.size}"]
        raise UserError(
            f"data=medmnist data.name={config.name}: {file.name} is not in {file.parent} and "
            f"cannot be downloaded from {url} (is this machine offline?). Download it elsewhere "
            "and put it in that folder, or train on images that need no download: "
            "data=phantom_xray."
        ) from error
