"""A user's images, listed in a CSV file."""

from __future__ import annotations

import posixpath
from pathlib import Path, PureWindowsPath

import numpy as np
from numpy.typing import NDArray

from dpmi.base.errors import UserError
from dpmi.config.sections import CsvData
from dpmi.data.catalogue import SPLITS, Catalogue
from dpmi.data.decoding.settings import Decoding
from dpmi.data.files import FileSource, first_outside, no_data
from dpmi.data.readers.dicom_headers import patients_of_files
from dpmi.data.readers.own import order_classes
from dpmi.data.splitting import patient_split, stratified_split
from dpmi.data.tables import Row, read_table

_OF_ITS_OWN = ("path", "label", "patient", "split")  # every other column can be grouped by


def read_csv_file(config: CsvData) -> Catalogue:
    """Read a table with the columns path and label and, where there are, patient and split.

    Any other column tells which group an image is of.

    Paths are relative to ``root`` and stay below it. Without a split column the images are split
    at random: by patient where patients are known, else each class in the same proportions. Without
    a patient column, DICOM files name theirs.

    Raises:
        UserError: the table or an image it names cannot be used.
    """
    root = Path(config.root).expanduser()
    table = _find_table(config, root)
    rows = read_table(table, ["path", "label"])

    paths: dict[str, Row] = {}
    for row in rows:
        path = _image_path(table, row, root)
        if path in paths:
            raise UserError(
                f"{table}, line {row.line}: {path} is listed a second time (first in line "
                f"{paths[path].line}). Remove one of the two."
            )
        paths[path] = row
    if (outside := first_outside(root, paths)) is not None:
        raise _leads_out(table, paths[outside], root)
    names = [_value(table, row, "label") for row in rows]
    classes = order_classes(names, graded=config.graded, where=str(table))
    index = {name: label for label, name in enumerate(classes)}
    labels = np.asarray([index[name] for name in names], dtype=np.int64)
    settings = Decoding.of(config)
    patients = tuple(row.values.get("patient", "") for row in rows)
    notes: tuple[str, ...] = ()
    if "patient" not in rows[0].values:
        patients, notes = patients_of_files(root, tuple(paths))
    return Catalogue(
        name=config.name,
        classes=classes,
        graded=config.graded,
        channels=config.channels,
        paths=tuple(paths),
        labels=labels,
        patients=patients,
        splits=_splits(config, table, rows, labels, patients),
        source=FileSource(root, settings),
        notes=notes,
        decoding=settings.key,
        groups={
            column: tuple(row.values[column] for row in rows)
            for column in rows[0].values
            if column and column not in _OF_ITS_OWN
        },
    )


def _find_table(config: CsvData, root: Path) -> Path:
    """Where data.csv lies: as given from the current folder, or from ``root``."""
    given = Path(config.csv).expanduser()
    for table in (given, root / given):
        if table.is_file():
            return table
    if not root.is_dir():
        raise no_data(
            config.name,
            root,
            "the images, and data.csv must name a table of them (columns path and label)",
            download=False,
            instead="phantom_xray",
        )
    raise UserError(
        f"data.csv={config.csv}: there is no such file, neither from the current folder nor "
        f"below data.root={root}. It must be a table with the columns path and label, and "
        "optionally patient and split."
    )


def _image_path(table: Path, row: Row, root: Path) -> str:
    given = _value(table, row, "path")
    path = posixpath.normpath(given.replace("\\", "/"))
    out = posixpath.isabs(path) or PureWindowsPath(path).drive or path.split("/")[0] == ".."
    if "\0" in path or out:
        raise _leads_out(table, row, root)
    if not (root / path).is_file():
        raise UserError(
            f"{table}, line {row.line}: there is no image {root / path}. Paths are relative to "
            "data.root: put the image there, correct the path, or remove the line."
        )
    return path


def _leads_out(table: Path, row: Row, root: Path) -> UserError:
    return UserError(
        f"{table}, line {row.line}: path {row.values['path']!r} leads out of data.root={root}, as "
        "written or by a symbolic link. Paths are relative to data.root: correct it, copy the "
        "image to where the link is, or set data.root to a folder above all images."
    )


def _value(table: Path, row: Row, column: str) -> str:
    value = row.values[column]
    if not value:
        raise UserError(f"{table}, line {row.line}: the column {column} is empty.")
    return value


def _splits(
    config: CsvData,
    table: Path,
    rows: list[Row],
    labels: NDArray[np.int64],
    patients: tuple[str, ...],
) -> tuple[str, ...]:
    if "split" in rows[0].values:
        for row in rows:
            if row.values["split"] not in SPLITS:
                raise UserError(
                    f"{table}, line {row.line}: split {row.values['split']!r} is not one of "
                    f"{', '.join(SPLITS)}. Correct it, or remove the column to split at random."
                )
        return tuple(row.values["split"] for row in rows)
    fractions = {"val_fraction": config.val_fraction, "test_fraction": config.test_fraction}
    if any(patients):
        return patient_split(labels, patients, **fractions, seed=config.split_seed)
    return stratified_split(labels, **fractions, seed=config.split_seed)
