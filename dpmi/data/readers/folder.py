"""A user's images, a folder for each class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dpmi.base.errors import UserError
from dpmi.config.sections import FolderData
from dpmi.data.catalogue import SPLITS, Catalogue
from dpmi.data.files import FileSource, first_outside, image_files, no_data, subfolders
from dpmi.data.readers.own import order_classes, several_findings
from dpmi.data.splitting import stratified_split


def read_folder(config: FolderData) -> Catalogue:
    """Read ``root/<class>/**`` or, where there are such folders, ``root/<split>/<class>/**``.

    Splits are train, val and test; without such folders the images are split at random, each
    class in the same proportions. Patients are unknown.

    Raises:
        UserError: there are no images, or they cannot be split, or other folders lie beside
            those of the splits, or one is a symbolic link that leads out of ``root``.
    """
    root = Path(config.root).expanduser()
    given = _has_splits(root)
    found = [
        (split, name, f"{folder}/{file}")
        for split in (SPLITS if given else ("",))
        for name in subfolders(root / split)
        for folder in [f"{split}/{name}" if given else name]
        for file in image_files(root / folder, recursive=True)
    ]
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
    # A folder without an image is a class too: one that is missing images, and that is told.
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
    return Catalogue(
        name=config.name,
        classes=classes,
        graded=config.graded,
        channels=config.channels,
        paths=tuple(path for _, _, path in found),
        labels=labels,
        patients=("",) * len(found),
        splits=tuple(split for split, _, _ in found)
        if given
        else stratified_split(
            labels,
            val_fraction=config.val_fraction,
            test_fraction=config.test_fraction,
            seed=config.split_seed,
        ),
        source=FileSource(root, config.channels),
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
