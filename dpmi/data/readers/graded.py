"""Fundus photographs of both eyes, graded for retinopathy: EyePACS and Messidor-2."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from dpmi.base.errors import UserError
from dpmi.config.data_sets import GradedData
from dpmi.data.catalogue import Catalogue
from dpmi.data.files import image_files
from dpmi.data.readers.aptos import CLASSES
from dpmi.data.readers.archives import Listed, archive_catalogue, labels_of, no_archive
from dpmi.data.splitting import advice_on_fractions, patient_split
from dpmi.data.tables import Row, Table, read_table


def read_eyepacs(config: GradedData) -> Catalogue:
    """Read Kaggle's ``trainLabels.csv`` (image, level) and ``train/10_left.jpeg``.

    35,126 images of 17,563 patients, whose number begins the name (Gulshan et al. 2016).

    Raises:
        UserError: they are not there, or do not fit together.
    """
    root = Path(config.root)
    file, places = root / "trainLabels.csv", _places(root, ["train"])
    if not file.is_file() or not places:
        raise no_archive(
            config,
            root,
            "Kaggle's trainLabels.csv (columns image and level) and train/ of .jpeg files",
            "phantom_fundus",
        )
    table = read_table(file, ["image", "level"], others=False)
    images = []
    for row in table.rows:
        name = row.values["image"]
        patient, _, eye = name.rpartition("_")
        if not patient or eye not in ("left", "right"):
            raise UserError(
                f"{file}, line {row.line}: image {name!r} is not named PATIENT_left or "
                "PATIENT_right, so that it is not known whose it is."
            )
        where = f"{file}, line {row.line}: {name}"
        path = places.get(name.lower(), "")
        images.append(Listed(path, _grade(row, "level", file), patient, "train", where))
    return _catalogue(config, root, images, table.notes)


def read_messidor2(config: GradedData) -> Catalogue:
    """Read ``messidor_data.csv`` (grades), ``messidor-2.csv`` (pairs of eyes) and ``IMAGES``.

    1,748 images of 874 patients (Decenciere et al. 2014), of which 1,744 have the adjudicated
    grades of Krause et al. 2018; the others are left out.

    Raises:
        UserError: they are not there, or do not fit together.
    """
    root = Path(config.root)
    file, pairs_file = root / "messidor_data.csv", root / "messidor-2.csv"
    places = _places(root, ["IMAGES", "images", "."])
    if not file.is_file() or not pairs_file.is_file() or not places:
        raise no_archive(
            config,
            root,
            "messidor_data.csv (grades), messidor-2.csv (left and right eye of each patient) and "
            "IMAGES/",
            "phantom_fundus",
        )
    patients: dict[str, str] = {}
    pairs = read_table(pairs_file, ["left", "right"], others=False)
    for row in pairs.rows:
        patient = Path(row.values["left"] or row.values["right"]).stem
        for eye in row.values.values():
            patients[Path(eye).stem.lower()] = patient
    table = read_table(file, ["adjudicated_gradable"])
    image, grade = _columns(table)
    images, ungraded = [], 0
    for row in table.rows:
        name = row.values[image]
        stem, where = Path(name).stem.lower(), f"{file}, line {row.line}: {name}"
        if not row.values[grade]:
            ungraded += 1
            continue
        if stem not in patients:
            raise UserError(f"{where} is not in {pairs_file}, so that it is not known whose it is.")
        label = _grade(row, grade, file)
        images.append(Listed(places.get(stem, ""), label, patients[stem], "train", where))
    notes = [*pairs.notes, *table.notes]
    if ungraded:
        notes.append(f"{file}: {ungraded} images without a grade are left out.")
    return _catalogue(config, root, images, notes)


def _columns(table: Table) -> tuple[str, str]:
    """Names of the columns of image and grade, of which there are two versions."""
    for columns in (("image_id", "adjudicated_dr_grade"), ("id_code", "diagnosis")):
        if set(columns) <= table.rows[0].values.keys():
            return columns
    raise UserError(
        f"{table.file}: has {', '.join(table.rows[0].values)}; it must have image_id and "
        "adjudicated_dr_grade, or id_code and diagnosis."
    )


def _places(root: Path, folders: Iterable[str]) -> dict[str, str]:
    """Name without extension, in small letters, to path: of the first folder that has images."""
    for folder in folders:
        if files := image_files(root / folder):
            return {Path(file).stem.lower(): (Path(folder) / file).as_posix() for file in files}
    return {}


def _grade(row: Row, column: str, file: Path) -> int:
    value = row.values[column].removesuffix(".0")
    if value not in ("0", "1", "2", "3", "4"):
        raise UserError(
            f"{file}, line {row.line}: {column} {value!r} is not an integer from 0 ({CLASSES[0]}) "
            f"to 4 ({CLASSES[4]})."
        )
    return int(value)


def _catalogue(
    config: GradedData, root: Path, images: Sequence[Listed], notes: Sequence[str]
) -> Catalogue:
    splits = patient_split(
        labels_of(images),
        [image.patient for image in images],
        val_fraction=config.val_fraction,
        test_fraction=config.test_fraction,
        seed=config.split_seed,
        advice=advice_on_fractions(config),
    )
    dealt = [replace(image, split=split) for image, split in zip(images, splits, strict=True)]
    return archive_catalogue(
        config, root, dealt, classes=CLASSES, graded=True, channels=3, notes=notes
    )
