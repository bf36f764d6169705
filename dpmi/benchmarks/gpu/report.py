"""What the bench of a GPU has found so far: as a file, as tables on the screen, as Markdown."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from dpmi.benchmarks.gpu.cells import FAILED, NO_TIME, Cell, Result
from dpmi.benchmarks.gpu.correctness import BOUND, CONTRIBUTIONS, ERRORS, Check
from dpmi.benchmarks.gpu.whole_run import CELLS, EPOCHS_OF_A_CELL, WholeRun

_STEP_TITLES = ("network", "image", "batch", "setting", "method", "images/s",
                "of plain speed", "peak MB", "of plain", "in a pass")  # fmt: skip
_CHECK_TITLES = ("setting, norm layers", *ERRORS.values(), *CONTRIBUTIONS.values())
CHECKED = (
    "Errors relative to float64, of what is allowed (twice those of plain training); contributions "
    f"of one example in units of C, of which {BOUND:.6f} is allowed (of the "
    "second and the last: in float32)"
)
_WORDS = ("network", "setting", "method")  # columns that are no numbers


@dataclass
class Report:
    """Filled in as results come.

    Attributes:
        machine: what the figures hold for.
        state: running, done, interrupted, or "correctness failed".
        checks: of correctness.
        broken: why they were not made to the end; empty where they were.
        run: the whole run, when it was measured.
        cells: in the order in which they were measured.
    """

    machine: dict[str, object]
    state: str = "running"
    checks: list[Check] = field(default_factory=list)
    broken: str = ""
    run: WholeRun | None = None
    cells: dict[Cell, tuple[Result, ...]] = field(default_factory=dict)

    @property
    def failures(self) -> list[str]:
        """What does not hold, or could not be checked."""
        failed = [str(check) for check in self.checks if not check.holds]
        return [*failed, self.broken] if self.broken else failed

    @property
    def not_measured(self) -> list[Cell]:
        """Cells for which there was no time."""
        return [cell for cell, found in self.cells.items()
                if all(one.note == NO_TIME for one in found)]  # fmt: skip

    def write(self, path: Path) -> None:
        """Write JSON, and Markdown beside it; each whole or not at all.

        Raises:
            OSError: they cannot be written.
        """
        texts = {path: json.dumps(self._values(), indent=1), markdown_of(path): self.markdown()}
        for file, text in texts.items():
            part = file.with_name(f"{file.name}.part")
            try:
                part.write_text(text + "\n", encoding="utf-8")
                os.replace(part, file)
            finally:
                part.unlink(missing_ok=True)

    def _values(self) -> dict[str, Any]:
        run = self.run
        return {
            "machine": self.machine,
            "state": self.state,
            "failures": self.failures,
            "checks": [asdict(check) | {"holds": check.holds} for check in self.checks],
            "run": run and asdict(run) | {
                "extrapolated_cell_seconds": run.cell_seconds,
                "extrapolated_figure_seconds": run.figure_seconds,
            },
            "cells": [
                asdict(cell) | {"results": [asdict(one) for one in found]}
                for cell, found in self.cells.items()
            ],
        }  # fmt: skip

    def markdown(self) -> str:
        """Tables for docs/performance.md."""
        about = ", ".join(f"{key} {value}" for key, value in self.machine.items())
        checks = _markdown(_CHECK_TITLES, self._check_rows("**{}**"))
        parts = [f"{about}; {self.state}.", "", f"{CHECKED}:", "", *checks]
        for line in self.other_checks():
            parts += ["", f"{line}."]
        for failure in self.failures:
            parts += ["", f"**Failed**: {failure}."]
        if self.run:
            parts += ["", self.run_in_words()]
        rows = self._step_rows()
        if rows:
            parts += ["", "One training step:", "", *_markdown(_STEP_TITLES, rows)]
        for line in self.broken_cells():
            parts += ["", f"{line}."]
        if missing := self.not_measured:
            parts += ["", f"Not measured, for lack of time: {'; '.join(map(str, missing))}."]
        return "\n".join(parts)

    def run_in_words(self) -> str:
        """The whole run and what is extrapolated from it, in a sentence or two."""
        run = self.run
        assert run is not None
        what = f"One cell of Figure 4 (DP-SGD, {run.epochs} epochs, {run.images} images)"
        if run.seconds is None or run.cell_seconds is None or run.figure_seconds is None:
            return f"{what}: {run.note}."
        parts = ", ".join(f"{name} {took:.1f}" for name, took in (run.timings or {}).items()
                          if name != "total" and took >= 0.1)  # fmt: skip
        return (
            f"{what}: {run.seconds:.0f} s from the command to its end ({parts} s). Extrapolated, "
            f"not measured: {run.cell_seconds / 60:.1f} min for {EPOCHS_OF_A_CELL} epochs, and "
            f"{run.figure_seconds / 3600:.1f} h for all {CELLS} cells one after another, if each "
            "took as long as this one."
        )

    def broken_cells(self) -> list[str]:
        """What failed otherwise than for lack of memory, and why."""
        return [f"{cell}, {one.method} {one.note}" for cell, found in self.cells.items()
                for one in found if one.note.startswith(FAILED)]  # fmt: skip

    def _step_rows(self) -> list[list[str]]:
        return [row for cell, found in self.cells.items() for row in step_rows(cell, found)
                if row[5] != NO_TIME]  # fmt: skip

    def table_of_steps(self) -> Table:
        """What was measured of steps."""
        table = Table(title="one training step; ratios are to the plain step in the same setting")
        for title in _STEP_TITLES:
            table.add_column(title, justify="left" if title in _WORDS else "right")
        for cell, found in self.cells.items():
            rows = [row for row in step_rows(cell, found) if row[5] != NO_TIME]
            for row in rows:
                table.add_row(*row)
            if rows:
                table.add_section()
        return table

    def table_of_checks(self) -> Table:
        """What was checked, a row for each setting and kind of norm layers."""
        table = Table(title="correctness", caption=CHECKED)
        for title in _CHECK_TITLES:
            table.add_column(title, justify="left" if title == _CHECK_TITLES[0] else "right")
        for row in self._check_rows("[red]{}[/]"):
            table.add_row(*row)
        return table

    def _check_rows(self, wrong: str) -> list[list[str]]:
        rows: dict[str, dict[str, str]] = {}
        for check in self.checks:
            if check.what in (ERRORS | CONTRIBUTIONS):
                shown = f"{check.value:.7f}"
                if check.what in ERRORS:
                    shown = f"{check.value:.2g} of {check.limit:.2g}"
                own = rows.setdefault(check.where, {})
                own[check.what] = shown if check.holds else wrong.format(shown)
        return [
            [where, *(own.get(what, "") for what in ERRORS | CONTRIBUTIONS)]
            for where, own in rows.items()
        ]

    def other_checks(self) -> list[str]:
        """Those that are no column of the table: the audit."""
        return [str(c) for c in self.checks if c.what not in ERRORS | CONTRIBUTIONS]


def markdown_of(path: Path) -> Path:
    """Where the tables are that belong to a file of results."""
    return path.with_suffix(".md")


def step_rows(cell: Cell, found: Sequence[Result]) -> list[list[str]]:
    """A row for each method; what it has instead of figures is in the column of images/s."""
    shape = cell.shape
    start = [cell.model, f"{shape.image_size} px", str(shape.batch_size), str(cell.setting)]
    rows = []
    for one in found:
        note = FAILED if one.note.startswith(FAILED) else one.note
        speed = note or f"{one.images_per_second:.0f}"
        rest = (one.speed_ratio, one.peak_mb, one.memory_ratio)
        formats = (".2f", ".0f", ".2f")
        cells = ["" if v is None else format(v, f) for v, f in zip(rest, formats, strict=True)]
        in_a_pass = "" if one.images_in_a_pass is None else str(one.images_in_a_pass)
        rows.append([*start, one.method, speed, *cells, in_a_pass])
        start = [""] * len(start)
    return rows


def in_short(found: Sequence[Result]) -> str:
    """Images per second of each method, and the ratio to the plain step, in one line."""
    lines = []
    for one in found:
        ratio = "" if one.speed_ratio is None else f" ({one.speed_ratio:.2f})"
        lines.append(f"{one.method} {one.note or f'{one.images_per_second:.0f} images/s'}{ratio}")
    return "; ".join(lines)


def _limit(check: Check) -> str:
    return "" if check.limit is None else f"{check.limit:.7g}"


def _markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    words = {*_WORDS, _CHECK_TITLES[0]}
    lines = ["|".join("---" if title in words else "---:" for title in titles)]
    return [f"| {' | '.join(titles)} |", f"|{lines[0]}|",
            *(f"| {' | '.join(row)} |" for row in rows)]  # fmt: skip
