"""A user's images, a folder for each class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dpmi.base.errors import UserError
from dpmi.config.data_sets import FolderData
from dpmi.data.catalogue import SPLITS, Catalogue
from dpmi.data.decoding.settings import Decoding
from dpmi.data.files import FileSource, class_files, first_outside, no_data, subfolders
from dpmi.data.readers.dicom_headers import patients_of_files
from dpmi.data.readers.own import order_classes, several_findings
from dpmi.data.splitting import advice_on_fractions, random_split


def read_folder(config: FolderData) -> Catalogue:
    """Read ``root/<class>/**`` or, where there are such folders, ``root/<split>/<class>/**``.

    Splits are train, val and test; without such folders the images are split at random: by patient
    where DICOM files name theirs, else each class in the same proportions.

    Raises:
        UserError: there are no images, or they cannot be split, or other folders lie beside
            those of the splits, or one is a symbolic link that leads out of ``root``.
    """
    root = Path(config.root)
    given = _has_splits(root)
    found: list[tuple[str, str, str]] = []  # split, class, path
    unknown: list[str] = []
    for split in SPLITS if given else ("",):
        for name in subfolders(root / split):
            folder = f"{split}/{name}" if given else name
            images, others = class_files(root / folder)
            found += [(split, name, f"{folder}/{file}") for file in images]
            unknown += [f"{folder}/{file}" for file in others]
    if not found:
        raise no_data(
            config.name,
            root,
            "a folder of images for each class, or folders train/, val/ and test/ with these",
            download=False,
            instead="phantom_xray",
        )
    if (outside := first_outside(root, (path for _, _, path in found))) is not None:
        raise UserError(
            f"{root / outside}: leads out of data.root={root} by a symbolic link. Copy what it "
            "leads to, or remove it."
        )
    # A folder without an image is a class too: one that lacks images, which is an error.
    names = {name for split in (SPLITS if given else ("",)) for name in subfolders(root / split)}
    for name in names:
        if refusal := several_findings(name):
            raise UserError(f"{root}: {refusal}")
    classes = order_classes(
        names,
        (name for _, name, _ in found),
        graded=config.graded,
        many=config.many_classes,
        where=str(root),
    )
    labels = np.asarray([classes.index(name) for _, name, _ in found], dtype=np.int64)
    paths = tuple(path for _, _, path in found)
    patients, notes = patients_of_files(root, paths)
    settings = Decoding.of(config)
    return Catalogue(
        name=config.name,
        classes=classes,
        graded=config.graded,
        channels=config.channels,
        paths=paths,
        labels=labels,
        patients=patients,
        splits=tuple(split for split, _, _ in found)
        if given
        else random_split(
            labels,
            patients,
            val_fraction=config.val_fraction,
            test_fraction=config.test_fraction,
            seed=config.split_seed,
            classes=classes,
            where=str(root),
            advice=advice_on_fractions(config, "put each split into a folder: train/, val/, test/"),
        ),
        source=FileSource(root, settings),
        notes=notes,
        decoding=settings.key,
        unknown=tuple(unknown),
    )


def _has_splits(root: Path) -> bool:
    """Whether the folders in ``root`` are splits, not classes."""
    outer = set(subfolders(root))
    if "train" not in outer or len(outer & set(SPLITS)) < min(2, len(outer)):
        return False
    if others := sorted(outer - set(SPLITS)):
        raise UserError(
            f"data.root={root}: {', '.join(others)} lies beside train/; folders of splits are "
            f"{', '.join(SPLITS)}. Rename it to one of these, or move it away."
        )
    return True
