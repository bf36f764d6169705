"""Which images, which labels, whose are they: a data set before a single pixel is decoded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "val", "test")
Labels = NDArray[np.int64] | NDArray[np.float32]  # classes (n,); findings (n, K), see targets
UNKNOWN = "unknown"  # the group of images of which it is not known


class Source(Protocol):
    """Where the images of a catalogue come from."""

    def fetch(self, path: str) -> bytes:
        """Return bytes that identify the content of an image: equal bytes, equal image."""
        ...

    def load(self, path: str, resize: int) -> NDArray[np.uint8]:
        """Return an image as a ``(resize, resize, channels)`` array.

        Raises:
            BadImageError: the image cannot be decoded (see ``dpmi.data.decoding``).
        """
        ...


@dataclass(frozen=True)
class Catalogue:
    """A data set as its reader found it; row i of every sequence speaks of the same image."""

    name: str
    classes: tuple[str, ...]  # or findings, of which an image may have any number
    graded: bool  # the classes are ordered, so that quadratic weighted kappa makes sense
    channels: int  # 1 gray, 3 colour
    paths: tuple[str, ...]  # unique, in the source's terms; for files: posix, below the root
    labels: Labels  # (n,) indices into classes; or (n, K) findings: 1, 0, NaN where not known
    patients: tuple[str, ...]  # "" where unknown
    splits: tuple[str, ...]  # "train", "val" or "test"
    source: Source
    # Column to the group of each image, by which test metrics can be told apart; "" where unknown.
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    # One line for each way in which the set was read otherwise than as documented.
    notes: tuple[str, ...] = ()
    # What the files' pixels depend on beside channels, where a config says it (``Decoding.key``).
    decoding: Mapping[str, Any] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()  # files in class folders that are no image, as ``paths``

    def __post_init__(self) -> None:
        columns = (self.paths, self.labels, self.patients, self.splits, *self.groups.values())
        lengths = {len(column) for column in columns}
        if len(lengths) != 1:
            raise ValueError(f"catalogue {self.name}: columns of different lengths {lengths}")
        if self.multilabel and self.labels.shape[1] != len(self.classes):
            raise ValueError(f"catalogue {self.name}: findings of shape {self.labels.shape}")
        if unknown := set(self.splits) - set(SPLITS):
            raise ValueError(f"catalogue {self.name}: unknown splits {unknown}")

    @property
    def multilabel(self) -> bool:
        """Whether the labels are several findings of an image."""
        return self.labels.ndim == 2

    def of_rows(self, rows: Sequence[int]) -> Catalogue:
        """The catalogue of these images alone, in this order."""

        def chosen(column: Sequence[str]) -> tuple[str, ...]:
            return tuple(column[row] for row in rows)

        return replace(
            self,
            paths=chosen(self.paths),
            labels=self.labels[list(rows)],
            patients=chosen(self.patients),
            splits=chosen(self.splits),
            groups={name: chosen(column) for name, column in self.groups.items()},
        )

    def grouped_by(self, columns: Iterable[str]) -> Catalogue:
        """The same images with these of its groups alone; an unknown group is ``UNKNOWN``."""
        chosen = {name: tuple(g or UNKNOWN for g in self.groups[name]) for name in columns}
        return replace(self, groups=chosen)
