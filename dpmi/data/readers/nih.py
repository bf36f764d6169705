"""NIH ChestX-ray14: 112,120 chest X-rays of 30,805 patients (Wang et al. 2017)."""

from __future__ import annotations

from pathlib import Path

from dpmi.base.errors import UserError
from dpmi.config.data_sets import NihData
from dpmi.data.catalogue import Catalogue
from dpmi.data.files import image_files
from dpmi.data.readers.archives import (
    Listed,
    archive_catalogue,
    first_file,
    no_archive,
    with_validation,
)
from dpmi.data.readers.findings import classes_of
from dpmi.data.tables import read_table

_LISTS = {"train_val_list.txt": "train", "test_list.txt": "test"}
# Releases of the table differ in the name of one column.
_SEX = ("Patient Gender", "Patient Sex")
_VIEW = "View Position"


def read_nih(config: NihData) -> Catalogue:
    """Read the table, both lists and ``images_001/images`` to ``images_012/images``, or ``images``.

    An image shows the findings that its labels name, which ``|`` separates; where one is asked for,
    it is of the second of two classes where they name that one. The official lists share no
    patient; some of the training patients are to validate on.

    Raises:
        UserError: the table, the lists or the images are not there, or do not fit together.
    """
    root = Path(config.root)
    file = first_file(root, ["Data_Entry_2017*.csv"])
    if file is None or not all((root / name).is_file() for name in _LISTS):
        raise no_archive(
            config,
            root,
            "NIH's Data_Entry_2017.csv, train_val_list.txt, test_list.txt and the folders "
            "images_001/images/ to images_012/images/, or images/",
            "phantom_xray",
        )
    folders = [root / "images", *sorted(root.glob("images_*/images"))]
    places = {
        name: f"{folder.relative_to(root).as_posix()}/{name}"
        for folder in folders
        for name in image_files(folder)
    }
    splits = {
        name: split
        for listed, split in _LISTS.items()
        for name in (root / listed).read_text(encoding="utf-8-sig").split()
    }
    required = ["Image Index", "Finding Labels", "Patient ID"]
    table = read_table(file, required, [*_SEX, _VIEW], others=False)
    images = []
    for row in table.rows:
        name = row.values["Image Index"]
        named = {finding.strip() for finding in row.values["Finding Labels"].split("|")}
        shown = [finding in named for finding in config.learned]
        where = f"{file}, line {row.line}: {name}"
        if name not in splits:
            raise UserError(f"{where} is neither in train_val_list.txt nor in test_list.txt.")
        sex = next((row.values[column] for column in _SEX if column in row.values), "")
        images.append(
            Listed(
                path=places.get(name, ""),
                label=int(shown[0]) if config.task == "classes" else tuple(map(float, shown)),
                patient=row.values["Patient ID"],
                split=splits[name],
                where=where,
                groups={"sex": sex, "view": row.values.get(_VIEW, "")},
            )
        )
    return archive_catalogue(
        config,
        root,
        with_validation(images, config.val_fraction, config.split_seed),
        classes=classes_of(config),
        graded=False,
        channels=1,
        notes=table.notes,
    )
