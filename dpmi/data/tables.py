"""CSV files given by users, or published with a data set."""

from __future__ import annotations

import csv
import gzip
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

from dpmi.base.errors import UserError

# What stands between the columns; of those that fit a header line the first is taken.
_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}
# What .xlsx and .ods, and .xls begin with.
_ZIP, _OLE = b"PK\3\4", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


@dataclass(frozen=True)
class Row:
    """One line of a table; values are stripped of blanks around them."""

    line: int  # in the file, the first being 1
    values: dict[str, str]


@dataclass(frozen=True)
class Table:
    """A table that has rows.

    Attributes:
        file: where it was read.
        rows: in the file's order; lines without any value are left out.
        notes: one line for each way in which it is not as the documentation writes it, and how it
            was read.
    """

    file: Path
    rows: list[Row]
    notes: tuple[str, ...]


def read_table(
    file: Path, required: Sequence[str], optional: Sequence[str] = (), *, others: bool = True
) -> Table:
    """Read a CSV file with a header line, packed with gzip where its name ends in .gz.

    Columns are separated by commas, semicolons or tabs. The columns in ``required`` and
    ``optional`` are found in any case, and have the name that they have there; others keep theirs,
    and are left out where ``others`` is false.

    Raises:
        UserError: the file is a workbook, cannot be read, lacks a required column, has one twice,
            has a line of more values than columns, or has no rows.
    """
    refuse_workbook(file)
    try:
        with _open(file) as stream:
            header = stream.readline()
            separator = _separator_of(header, required)
            stream.seek(0)
            reader = csv.reader(stream, skipinitialspace=True, delimiter=separator)
            given = [column.strip() for column in next(reader, [])]
            columns = [_known_as(column, given, (*required, *optional)) for column in given]
            _check_columns(file, columns, required)
            kept = [
                (number, column)
                for number, column in enumerate(columns)
                if others or column in (*required, *optional)
            ]
            rows = []
            for values in reader:
                stripped = [value.strip() for value in values]
                if not any(stripped):
                    continue
                if any(stripped[len(columns) :]):
                    raise UserError(
                        f"{file}, line {reader.line_num}: {len(values)} values, where the first "
                        f"line names {len(columns)} columns. A value that holds a "
                        f'{_SEPARATORS[separator]} needs quotes: "a{separator.strip()}b".'
                    )
                stripped += [""] * (len(columns) - len(stripped))
                row = {column: stripped[number] for number, column in kept}
                rows.append(Row(reader.line_num, row))
    except (OSError, EOFError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{file}: the CSV file cannot be read: {why}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{file}: this is not a CSV file in UTF-8: {error}. Save it as CSV in UTF-8."
        ) from error
    if not rows:
        raise UserError(f"{file}: the table has no rows below its header.")
    return Table(file, rows, _notes(file, separator, given, columns))


def refuse_workbook(file: Path) -> None:
    """Refuse what a spreadsheet program saves by default, whatever the file is called.

    Raises:
        UserError: it is a workbook.
    """
    if kind := _workbook(file):
        raise UserError(
            f"{file}: this is {kind} workbook, not a CSV file. Open it, save the sheet as CSV in "
            "UTF-8, and give that file instead."
        )


def _workbook(file: Path) -> str | None:
    """Whose workbook a file is by its content; None where it is none, or cannot be read."""
    try:
        with file.open("rb") as stream:
            head = stream.read(len(_OLE))
        if head == _OLE:
            return "an Excel"
        if head.startswith(_ZIP):
            with zipfile.ZipFile(file) as archive:
                names = archive.namelist()
            if any(name.startswith("xl/") for name in names):
                return "an Excel"
            if {"mimetype", "content.xml"} <= set(names):
                return "an OpenDocument"
    except (OSError, zipfile.BadZipFile):
        pass  # whoever opens it next reports why
    return None


def _open(file: Path) -> TextIO:
    # utf-8-sig: Excel begins its CSV files with a byte order mark.
    if file.suffix == ".gz":
        return gzip.open(file, "rt", encoding="utf-8-sig", newline="")
    return file.open(encoding="utf-8-sig", newline="")


def _separator_of(header: str, required: Sequence[str]) -> str:
    """What separates the columns of a header line; else what would make the most columns."""
    columns = {
        separator: [
            column.strip().casefold()
            for column in next(csv.reader([header], skipinitialspace=True, delimiter=separator), [])
        ]
        for separator in _SEPARATORS
    }
    for separator, found in columns.items():
        if {name.casefold() for name in required} <= set(found):
            return separator
    return max(columns, key=lambda separator: len(columns[separator]))


def _known_as(column: str, given: Sequence[str], known: Sequence[str]) -> str:
    """The name by which a column is known, where its own differs in case alone."""
    if column in known:
        return column
    for name in known:
        if column.casefold() == name.casefold() and name not in given:
            return name
    return column


def _check_columns(file: Path, columns: Sequence[str], required: Sequence[str]) -> None:
    if missing := [column for column in required if column not in columns]:
        raise UserError(
            f"{file}: {_columns(missing, 'is')} missing. The first line names the "
            f"columns; it must have {_listed(required)} and has {_listed(columns)}."
        )
    if twice := [name for name in dict.fromkeys(columns) if name and columns.count(name) > 1]:
        raise UserError(
            f"{file}: two columns are named {_listed(twice)}. Rename or remove one of the two."
        )


def _notes(
    file: Path, separator: str, given: Sequence[str], columns: Sequence[str]
) -> tuple[str, ...]:
    notes = []
    if separator != ",":
        notes.append(f"{file}: read with a {_SEPARATORS[separator]} between its columns.")
    renamed = [f"{own} as {name}" for own, name in zip(given, columns, strict=True) if own != name]
    if renamed:
        notes.append(f"{file}: {_columns(renamed, 'was')} read.")
    return tuple(notes)


def _columns(names: Sequence[str], verb: Literal["is", "was"]) -> str:
    if len(names) == 1:
        return f"column {names[0]} {verb}"
    return f"columns {_listed(names)} {'are' if verb == 'is' else 'were'}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
