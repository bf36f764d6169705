"""Which images, which labels, whose are they: a data set before a single pixel is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "val", "test")


class Source(Protocol):
    """Where the images of a catalogue come from."""

    def fetch(self, path: str) -> bytes:
        """Return bytes that identify the content of an image: equal bytes, equal image."""
        ...

    def load(self, path: str, resize: int) -> NDArray[np.uint8]:
        """Return an image as a ``(resize, resize, channels)`` array.

        Raises:
            BadImageError: the image cannot be decoded (see ``dpmi.data.decode``).
        """
        ...


@dataclass(frozen=True)
class Catalogue:
    """A data set as its reader found it; row i of every sequence speaks of the same image."""

    name: str
    classes: tuple[str, ...]
    graded: bool  # the classes are ordered, so that quadratic weighted kappa makes sense
    channels: int  # 1 gray, 3 colour
    paths: tuple[str, ...]  # unique, in the source's terms; for files: posix, below the root
    labels: NDArray[np.int64]  # (n,), an index into classes
    patients: tuple[str, ...]  # "" where unknown
    splits: tuple[str, ...]  # "train", "val" or "test"
    source: Source

    def __post_init__(self) -> None:
        lengths = {len(self.paths), len(self.labels), len(self.patients), len(self.splits)}
        if len(lengths) != 1:
            raise ValueError(f"catalogue {self.name}: columns of different lengths {lengths}")
        if unknown := set(self.splits) - set(SPLITS):
            raise ValueError(f"catalogue {self.name}: unknown splits {unknown}")
