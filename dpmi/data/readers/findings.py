"""Findings as CheXpert's labeller gives them: present, absent, uncertain (Irvin et al. 2019)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from dpmi.base.errors import UserError
from dpmi.config.data_sets import ChexpertData, MimicData, NihData
from dpmi.data.readers.archives import Listed
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


def report_label(
    row: Row, config: ChexpertData | MimicData, file: Path
) -> int | tuple[float, ...] | None:
    """The label of a row, as the task has it.

    Returns:
        Whether it has the one finding, None where the image is to be left out; or each of several:
        1, 0, or NaN where it is uncertain and to be ignored.

    Raises:
        UserError: as ``finding_label``.
    """
    found = [finding_label(row, name, file, config.uncertain) for name in config.learned]
    if config.task == "classes":
        return found[0]
    return tuple(math.nan if label is None else float(label) for label in found)


def classes_of(config: NihData | ChexpertData | MimicData) -> tuple[str, ...]:
    """Names of the classes: one finding against the rest, or several findings."""
    return finding_classes(config.learned[0]) if config.task == "classes" else config.learned


def unknown_findings(images: Sequence[Listed], file: Path, names: Sequence[str]) -> list[str]:
    """The note that some findings of some images are left out of loss and metrics; none of none."""
    labels = np.asarray([image.label for image in images], np.float32)
    if labels.ndim < 2 or not (unknown := np.isnan(labels).sum(0)).any():
        return []
    each = ", ".join(f"{n} of {name}" for name, n in zip(names, unknown, strict=True) if n)
    return [
        f"{file}: uncertain findings are left out of the loss and of the metrics, their "
        f"images kept (data.uncertain=ignore): {each}."
    ]


def left_out(file: Path, images: int, finding: str) -> str:
    """The note that images were left out since a finding is uncertain."""
    return (
        f"{file}: {images} images are left out, for {finding} is uncertain (data.uncertain=ignore)."
    )
