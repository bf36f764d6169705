"""What the readers of public archives share: images that tables list, and of whom."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from dpmi.base.errors import UserError
from dpmi.config.data_sets import ArchiveData
from dpmi.data.catalogue import Catalogue, Labels
from dpmi.data.decoding.settings import Decoding
from dpmi.data.files import FileSource, no_data
from dpmi.data.splitting import deal_patients


@dataclass(frozen=True)
class Listed:
    """An image as a table lists it.

    Attributes:
        path: posix, below the root; "" where no folder holds a file of the name.
        label: index of its class; or of each finding 1, 0, or NaN where it is not known.
        patient: "" where unknown.
        split: "train", "val" or "test".
        where: the table, the line and the name, for messages.
        groups: column to the group of the image.
    """

    path: str
    label: int | tuple[float, ...]
    patient: str
    split: str
    where: str
    groups: Mapping[str, str] = field(default_factory=dict)


def archive_catalogue(
    config: ArchiveData,
    root: Path,
    images: Sequence[Listed],
    *,
    classes: tuple[str, ...],
    graded: bool,
    channels: Literal[1, 3],
    notes: Sequence[str],
) -> Catalogue:
    """The catalogue of the images that are there.

    Raises:
        UserError: an image is not there, and ``data.on_missing`` does not leave it out; or none is.
    """
    there = [image for image in images if image.path and os.path.isfile(root / image.path)]
    missing = len(images) - len(there)
    if missing:
        known = {id(image) for image in there}
        first = next(image for image in images if id(image) not in known)
        if config.on_missing == "error":
            raise UserError(
                f"{first.where}: there is no such image below {root} ({missing} of {len(images)} "
                "listed are not there). Put them there; where only a part of the set is wanted, "
                "data.on_missing=skip leaves out what is not there."
            )
        notes = [
            *notes,
            f"data.on_missing=skip: {missing} of {len(images)} images that are listed are not "
            f"there and are left out, the first: {first.where}.",
        ]
    if not there:
        raise UserError(
            f"data={config.name}: none of the {len(images)} images that are listed lies below "
            f"data.root={root}."
        )
    return Catalogue(
        name=config.name,
        classes=classes,
        graded=graded,
        channels=channels,
        paths=tuple(image.path for image in there),
        labels=labels_of(there),
        patients=tuple(image.patient for image in there),
        splits=tuple(image.split for image in there),
        source=FileSource(root, Decoding(channels)),
        groups={name: tuple(image.groups[name] for image in there) for name in there[0].groups},
        notes=tuple(notes),
    )


def labels_of(images: Sequence[Listed]) -> Labels:
    """(n,) classes, or (n, K) findings."""
    labels = [image.label for image in images]
    if isinstance(labels[0], int):
        return np.asarray(labels, np.int64)
    return np.asarray(labels, np.float32)


def with_validation(images: Sequence[Listed], fraction: float, seed: int) -> list[Listed]:
    """The same images, some of the training patients to validate on.

    Args:
        images: of any splits.
        fraction: of the training images; 0 for none.
        seed: the same gives the same patients.

    Raises:
        UserError: there are too few patients.
    """
    train = [number for number, image in enumerate(images) if image.split == "train"]
    if not fraction or not train:
        return list(images)
    splits = deal_patients(
        labels_of([images[number] for number in train]),
        [images[number].patient for number in train],
        {"train": 1 - fraction, "val": fraction},
        seed=seed,
        advice=f"change data.val_fraction={fraction:g} (0 for no validation images)",
    )
    chosen = list(images)
    for number, split in zip(train, splits, strict=True):
        chosen[number] = replace(images[number], split=split)
    return chosen


def no_archive(config: ArchiveData, root: Path, shape: str, instead: str) -> UserError:
    """Say that the set's own files are not at the root."""
    return no_data(config.name, root, shape, download=False, instead=instead)


def first_file(root: Path, patterns: Sequence[str]) -> Path | None:
    """The last by name of the files of a folder that fit the first pattern which any fits."""
    for pattern in patterns:
        if found := sorted(path for path in root.glob(pattern) if path.is_file()):
            return found[-1]
    return None
