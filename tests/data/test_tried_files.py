"""docs/tried-files.md says what happens with each file that was tried."""

from __future__ import annotations

from pathlib import Path

import pytest
from trials import Trial
from tried_files import INTRODUCTION, TRIED

PAGE = (Path(__file__).resolve().parents[2] / "docs/tried-files.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and "| tried |" not in line]
ALL = [trial for trials in TRIED.values() for trial in trials]


def test_the_page_has_a_row_for_each_file_and_no_other() -> None:
    assert PAGE.startswith(INTRODUCTION)
    assert len(ROWS) == len(ALL)


@pytest.mark.parametrize(
    ("trial", "row"), zip(ALL, ROWS, strict=False), ids=[trial.title for trial in ALL[: len(ROWS)]]
)
def test_a_file_is_read_or_refused_as_its_row_says(trial: Trial, row: str, tmp_path: Path) -> None:
    read, found = trial.outcome(tmp_path)
    assert read == trial.reads, found
    assert "\n" not in found
    assert trial.row(read, found) == row
