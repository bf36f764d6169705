"""The results of a search: a table, and files beside its runs, made from records only."""

from __future__ import annotations

import csv
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from optuna import Study
from optuna.trial import FrozenTrial
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dpmi.base.errors import UserError
from dpmi.run.records.reading import read_record
from dpmi.run.records.record import RECORD_FILE
from dpmi.search.space import Space
from dpmi.search.study import FOLDER

CSV_FILE, BEST_FILE = "search.csv", "best.yaml"
SHOWN = 10


@dataclass(frozen=True)
class Row:
    """One trial.

    Attributes:
        number: from 0, in the order in which they were chosen.
        value: of the metric; None where its run did not complete.
        status: of the run's record.
        guarantee: of what the run executed.
        values: that were chosen, by key.
        folder: of the run, within the sweep's.
        reason: why there is no value.
    """

    number: int
    value: float | None
    status: str
    guarantee: str
    values: dict[str, Any]
    folder: str
    reason: str


def report_search(study: Study, space: Space, metric: str, folder: Path, console: Console) -> bool:
    """Print the best trials and how to repeat the best, and write all of them down.

    Returns:
        Whether every trial has a value.
    """
    rows = sorted(_rows(study, folder), key=lambda row: (row.value is None, -(row.value or 0)))
    found = [row for row in rows if row.value is not None]
    _write(rows, list(space.varied), metric, folder / CSV_FILE)
    if found:
        best = found[0]
        overrides = [w for w in space.overrides(best.values) if not w.startswith("rerun=")]
        command = shlex.join(["python", "-m", "dpmi.train", *overrides])
        row_values = {
            "metric": metric,
            "value": best.value,
            "of": "drawn validation images, by the weights kept after the last epoch",
            "guarantee": best.guarantee,
            "trial": best.number,
            "of_trials": len(rows),
            "folder": best.folder,
            "overrides": overrides,
            "command": command,
        }
        OmegaConf.save(OmegaConf.create(row_values), folder / BEST_FILE)
        console.print(_table(found, list(space.varied), metric, len(rows)))
        console.print(
            "The best of several looks better than it is on its validation images.", style="dim"
        )
        console.print(f"the best: {command}", markup=False, highlight=False, soft_wrap=True)
        console.print(f"{CSV_FILE} and {BEST_FILE} in {folder}", markup=False, soft_wrap=True)
    for row in rows[len(found) :]:
        line = f"trial {row.number} {row.status}: {row.reason}"
        console.print(line, style="red", markup=False, soft_wrap=True)
    return len(found) == len(rows)


def _rows(study: Study, folder: Path) -> list[Row]:
    return [_row(trial, folder) for trial in study.trials]


def _row(trial: FrozenTrial, folder: Path) -> Row:
    value = trial.values[0] if trial.values else None
    name, status, promise, reason = str(trial.user_attrs[FOLDER]), "not run", "", ""
    try:
        record = read_record(folder / name / RECORD_FILE)
    except UserError as error:
        reason = str(error)
    else:
        status, reason = record.status, record.reason or "its metric is no number"
        guarantee = record.guarantee
        promise = (
            "" if guarantee is None else str(guarantee) if guarantee.epsilon is not None else "no ε"
        )
    reason = "" if value is not None else reason
    return Row(trial.number, value, status, promise, dict(trial.params), name, reason)


def _table(found: Sequence[Row], keys: Sequence[str], metric: str, trials: int) -> Table:
    table = Table(
        title=f"{min(SHOWN, len(found))} best of {trials} trials",
        title_justify="left",
        show_edge=False,
        caption=f"{metric}, the highest: of drawn validation images, by the weights that a run "
        "keeps after its last epoch",
        caption_justify="left",
    )
    table.add_column("trial", justify="right")
    table.add_column(metric, justify="right")
    table.add_column("guarantee", overflow="fold")
    for key in keys:
        table.add_column(escape(key), justify="right", overflow="fold")
    for row in found[:SHOWN]:
        values = (escape(_short(row.values[key])) for key in keys)
        table.add_row(str(row.number), f"{row.value:.4f}", escape(row.guarantee), *values)
    return table


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _write(rows: Sequence[Row], keys: Sequence[str], metric: str, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["trial", metric, "status", "guarantee", *keys, "folder", "reason"])
        for row in rows:
            chosen = [row.values[key] for key in keys]
            row_values = [row.number, row.value, row.status, row.guarantee]
            writer.writerow([*row_values, *chosen, row.folder, row.reason])
