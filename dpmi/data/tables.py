"""CSV files given by users."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dpmi.base.errors import UserError


@dataclass(frozen=True)
class Row:
    """One line of a table; values are stripped of blanks around them."""

    line: int  # in the file, the first being 1
    values: dict[str, str]


def read_table(file: Path, required: Sequence[str]) -> list[Row]:
    """Read a CSV file with a header line.

    Raises:
        UserError: the file cannot be read, lacks a required column, or has no rows.
    """
    try:
        # utf-8-sig: Excel begins its CSV files with a byte order mark.
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            columns = [(column or "").strip() for column in reader.fieldnames or []]
            reader.fieldnames = columns
            if missing := [column for column in required if column not in columns]:
                raise UserError(
                    f"{file}: column {_listed(missing)} is missing. The first line names the "
                    f"columns; it must have {_listed(required)} and has {_listed(columns)}."
                )
            rows = [
                Row(reader.line_num, {name: (values.get(name) or "").strip() for name in columns})
                for values in reader
            ]
    except OSError as error:
        raise UserError(f"{file}: the CSV file cannot be read: {error.strerror}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: this is not a CSV file in UTF-8: {error}.") from error
    if not rows:
        raise UserError(f"{file}: the table has no rows below its header.")
    return rows


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
