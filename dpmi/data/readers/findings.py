"""Findings as CheXpert's labeller gives them: present, absent, uncertain (Irvin et al. 2019)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from dpmi.base.errors import UserError
from dpmi.data.tables import Row

PRESENT, ABSENT, UNCERTAIN = 1, 0, -1


def finding_label(
    row: Row, finding: str, file: Path, uncertain: Literal["ignore", "positive", "negative"]
) -> int | None:
    """Whether a row has a finding; one that is not mentioned counts as absent.

    Args:
        row: of a table with a column of the finding's name: 1, 0, -1, or nothing.
        finding: the column.
        file: the table, for messages.
        uncertain: what becomes of -1.

    Returns:
        1 or 0; None where it is uncertain and the image is to be left out.

    Raises:
        UserError: the value is another.
    """
    value = row.values[finding]
    try:
        number = float(value or ABSENT)
    except ValueError:
        number = float("nan")
    if number not in (PRESENT, ABSENT, UNCERTAIN):
        raise UserError(
            f"{file}, line {row.line}: {finding} is {value!r}; allowed are 1 (present), 0 "
            "(absent), -1 (uncertain) and nothing (not mentioned)."
        )
    if number != UNCERTAIN:
        return int(number)
    return {"ignore": None, "positive": PRESENT, "negative": ABSENT}[uncertain]


def finding_classes(finding: str) -> tuple[str, str]:
    """Classes of one finding against the rest, without it first."""
    return ("any finding" if finding == "No Finding" else f"no {finding}", finding)


def left_out(file: Path, images: int, finding: str) -> str:
    """The note that images were left out since a finding is uncertain."""
    return (
        f"{file}: {images} images are left out, for {finding} is uncertain (data.uncertain=ignore)."
    )
