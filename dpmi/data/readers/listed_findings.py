"""Findings of a user's table: several in the column label, or a column for each."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpmi.base.errors import UserError
from dpmi.config.data_sets import CsvData
from dpmi.data.findings import NO_FINDING
from dpmi.data.readers.own import check_number
from dpmi.data.tables import Row, Table

_VALUES = {"1": 1.0, "1.0": 1.0, "0": 0.0, "0.0": 0.0, "": math.nan}


@dataclass(frozen=True)
class ListedFindings:
    """What a table says of findings.

    Attributes:
        names: of the K findings.
        labels: (n, K): 1, 0, NaN where not known.
        columns: of the table that hold them.
        notes: one line on what of it is not learned.
    """

    names: tuple[str, ...]
    labels: NDArray[np.float32]
    columns: tuple[str, ...]
    notes: tuple[str, ...] = ()


def listed_findings(config: CsvData, table: Table) -> ListedFindings:
    """Read a column for each of ``data.findings``, or else the column label.

    In the column label, ``Effusion|Mass`` names all findings of an image, nothing or No Finding
    says that there are none: what is not named is absent. In a column of its own, 1 is present, 0
    absent, and nothing not known.

    Raises:
        UserError: the table has neither, or a value is another.
    """
    columns, given = table.rows[0].values, tuple(config.findings or ())
    if given and all(name in columns for name in given):
        rows = [[_value(table, row, name) for name in given] for row in table.rows]
        return ListedFindings(given, np.asarray(rows, np.float32), given)
    if "label" not in columns:
        raise UserError(
            f"{table.file}: findings are in a column label, as Effusion|Mass, or each in a column "
            "that data.findings names, as data.findings=[Effusion,Mass]; the columns are "
            f"{', '.join(columns)}"
            + (f", and data.findings names {', '.join(given)}." if given else ".")
        )
    named = [_named(row.values["label"]) for row in table.rows]
    counts = Counter(name for names in named for name in names)
    if not given:
        if not counts:
            raise UserError(
                f"{table.file}: no label names a finding; write them as Effusion|Mass, and nothing "
                f"or {NO_FINDING} where there is none."
            )
        if not config.many_classes:
            check_number(set(counts), counts, str(table.file), "finding")
    names = given or tuple(sorted(counts))
    labels = np.asarray([[name in its for name in names] for its in named], np.float32)
    others = sorted(set(counts) - set(names))
    notes = [f"{table.file}: data.findings leaves out {', '.join(others)}."] if others else []
    return ListedFindings(names, labels, ("label",), tuple(notes))


def findings_of_table(table: Table, findings: Sequence[str]) -> tuple[str, ...]:
    """Which of some findings a table labels: has columns of, or else names in the column label."""
    columns = table.rows[0].values
    if found := tuple(name for name in findings if name in columns):
        return found
    named = {name for row in table.rows for name in _named(row.values.get("label", ""))}
    return tuple(name for name in findings if name in named)


def _named(label: str) -> set[str]:
    """The findings that a label names."""
    parts = {part.strip() for part in label.split("|")}
    return {part for part in parts if part and part.casefold() != NO_FINDING.casefold()}


def _value(table: Table, row: Row, column: str) -> float:
    value = row.values[column]
    if value not in _VALUES:
        raise UserError(
            f"{table.file}, line {row.line}: {column} is {value!r}; allowed are 1 (present), 0 "
            "(absent) and nothing (not known)."
        )
    return _VALUES[value]
