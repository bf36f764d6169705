"""A user's images, listed in a CSV file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dpmi.base.errors import UserError
from dpmi.config.data_sets import CsvData
from dpmi.data.catalogue import SPLITS, Catalogue, Labels
from dpmi.data.decoding.settings import Decoding
from dpmi.data.files import FileSource, first_outside, no_data
from dpmi.data.readers.dicom_headers import patients_of_files
from dpmi.data.readers.listed import ListedPaths, leads_out
from dpmi.data.readers.listed_findings import findings_of_table, listed_findings
from dpmi.data.readers.own import order_classes, several_findings
from dpmi.data.splitting import advice_on_fractions, random_split
from dpmi.data.tables import Row, Table, read_table

_OF_ITS_OWN = ("path", "label", "patient", "split")  # every other column can be grouped by


def read_csv_file(config: CsvData) -> Catalogue:
    """Read a table with the columns path and label and, where there are, patient and split.

    Under ``data.task=multilabel`` findings may be in columns of their own, in place of label. Any
    other column tells which group an image is of.

    Paths are relative to ``root`` and stay below it. Without a split column the images are split
    at random: by patient where patients are known, else each class in the same proportions. Without
    a patient column, DICOM files name theirs.

    Raises:
        UserError: the table or an image it names cannot be used.
    """
    root = Path(config.root)
    needed = _OF_ITS_OWN[: 1 if config.task == "multilabel" else 2]
    table = read_table(_find_table(config, root), needed, _OF_ITS_OWN[len(needed) :])
    rows, listed = table.rows, ListedPaths(root)

    paths: dict[str, Row] = {}
    for row in rows:
        where = f"{table.file}, line {row.line}"
        path = listed.resolve(_value(table, row, "path"), where)
        if path in paths:
            raise UserError(
                f"{where}: {path} is listed a second time (first in line {paths[path].line}). "
                "Remove one of the two."
            )
        paths[path] = row
    if (outside := first_outside(root, paths)) is not None:
        line = paths[outside].line
        raise leads_out(paths[outside].values["path"], root, f"{table.file}, line {line}")
    classes, labels, columns, notes = _labels(config, table)
    settings = Decoding.of(config)
    patients = tuple(row.values.get("patient", "") for row in rows)
    of_files: tuple[str, ...] = ()
    if "patient" not in rows[0].values:
        patients, of_files = patients_of_files(root, tuple(paths))
    return Catalogue(
        name=config.name,
        classes=classes,
        graded=config.graded,
        channels=config.channels,
        paths=tuple(paths),
        labels=labels,
        patients=patients,
        splits=_splits(config, table, classes, labels, patients),
        source=FileSource(root, settings),
        decoding=settings.key,
        groups={
            column: tuple(row.values[column] for row in rows)
            for column in rows[0].values
            if column and column not in (*_OF_ITS_OWN, *columns)
        },
        notes=(*table.notes, *listed.notes(table.file), *notes, *of_files),
    )


def labelled_findings(config: CsvData, findings: Sequence[str]) -> tuple[str, ...]:
    """Which of some findings the table of a config labels.

    Raises:
        UserError: the table cannot be read.
    """
    table = read_table(_find_table(config, Path(config.root)), _OF_ITS_OWN[:1], _OF_ITS_OWN[1:])
    return findings_of_table(table, findings)


def _find_table(config: CsvData, root: Path) -> Path:
    """Where data.csv lies: as given from the current folder, or from ``root``."""
    given = Path(config.csv)
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


def _value(table: Table, row: Row, column: str) -> str:
    value = row.values[column]
    if not value:
        raise UserError(f"{table.file}, line {row.line}: the column {column} is empty.")
    return value


def _labels(
    config: CsvData, table: Table
) -> tuple[tuple[str, ...], Labels, tuple[str, ...], tuple[str, ...]]:
    """Classes or findings, labels by them, the columns that hold these, and notes on them."""
    if config.task == "multilabel":
        found = listed_findings(config, table)
        return found.names, found.labels, found.columns, found.notes
    names, notes = _class_names(table)
    classes = order_classes(
        names, names, graded=config.graded, many=config.many_classes, where=str(table.file)
    )
    index = {name: label for label, name in enumerate(classes)}
    return classes, np.asarray([index[name] for name in names], np.int64), (), notes


def _class_names(table: Table) -> tuple[list[str], tuple[str, ...]]:
    """The class of each row, and a note where it is not as written."""
    names = [_value(table, row, "label") for row in table.rows]
    for name, row in zip(names, table.rows, strict=True):
        if refusal := several_findings(name):
            raise UserError(f"{table.file}, line {row.line}: {refusal}")
    # Integers are written so by pandas where a value of their column was missing once.
    whole = {name: re.fullmatch(r"([+-]?\d+)(\.0*)?", name) for name in set(names)}
    if not all(whole.values()) or not any(match and match[2] for match in whole.values()):
        return names, ()
    read = [match[1] for match in map(whole.get, names) if match]
    return read, (f"{table.file}: labels such as {names[0]} were read as {read[0]}.",)


def _splits(
    config: CsvData,
    table: Table,
    classes: tuple[str, ...],
    labels: Labels,
    patients: tuple[str, ...],
) -> tuple[str, ...]:
    if "split" in table.rows[0].values:
        for row in table.rows:
            if row.values["split"].lower() not in SPLITS:
                raise UserError(
                    f"{table.file}, line {row.line}: split {row.values['split']!r} is not one of "
                    f"{', '.join(SPLITS)}. Correct it, or remove the column to split at random."
                )
        return tuple(row.values["split"].lower() for row in table.rows)
    return random_split(
        labels,
        patients,
        val_fraction=config.val_fraction,
        test_fraction=config.test_fraction,
        seed=config.split_seed,
        classes=classes,
        where=str(table.file),
        advice=advice_on_fractions(config, "give the splits in a column split"),
    )
