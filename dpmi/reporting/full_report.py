"""The report of one or several sweeps: a page, and the same as Markdown, CSV and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

from dpmi.base.errors import UserError
from dpmi.reporting.as_public import MADE_OF, as_far_as_public
from dpmi.reporting.attacks import Tried, attacks_tried
from dpmi.reporting.attacks import as_markdown as attacks_as_markdown
from dpmi.reporting.cells import Panel
from dpmi.reporting.charts.style import Chart, save
from dpmi.reporting.cost import Cost
from dpmi.reporting.figure2 import Noised
from dpmi.reporting.gap import EXPLANATION
from dpmi.reporting.page import page
from dpmi.reporting.risk import EXPLANATION as WHAT_RISK_IS
from dpmi.reporting.risk import MARKDOWN_HEADER, markdown_rows
from dpmi.reporting.sections import Sections, prices, sections
from dpmi.reporting.sorting import figure4, merge, with_missing
from dpmi.reporting.table import as_markdown, cells_csv, markdown_table, runs_csv
from dpmi.reporting.who_pays import EXPLANATION as WHO_PAYS
from dpmi.reporting.who_pays import INTERVALS
from dpmi.reporting.who_pays_tables import groups_csv, who_pays_markdown
from dpmi.run.records.reading import read_public_records, read_records
from dpmi.run.records.record import RunRecord

PAGE, MARKDOWN = "report.html", "report.md"
CELLS, RUNS, GROUPS = "cells.csv", "runs.csv", "groups.csv"


def write_report(
    folders: Sequence[Path],
    out: Path,
    *,
    public: bool = False,
    cards: Mapping[str, str] | None = None,
) -> list[RunRecord]:
    """Read every record below the folders and write the report into ``out``.

    Args:
        folders: with records below them.
        out: made where it is absent.
        public: read public records instead, so that the report may be published.
        cards: pages of runs' cards, from ``out``, by ``keyed_config``.

    Returns:
        The runs that it covers, each once.

    Raises:
        UserError: a folder is absent or has no record, or a record is unreadable or of another
            version; nothing is written.
    """
    sweeps = [_records(folder, public) for folder in folders]
    runs = merge(sweeps)
    panels = [with_missing(panel) for panel in figure4(runs)]
    made, on_one_axis = sections(panels), prices(panels)
    tried = None if public else attacks_tried(folders)
    repeated = sum(map(len, sweeps)) - len(runs)
    files = {
        PAGE: page(
            made, on_one_axis, runs, repeated, public=public, tried=tried, cards=cards or {}
        ),
        MARKDOWN: _markdown(panels, made, on_one_axis, public, tried),
        CELLS: cells_csv(panels),
        RUNS: runs_csv(panels),
    }
    if any(its.groups for its in made):
        files[GROUPS] = groups_csv(panels)
    out.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (out / name).write_text(text, encoding="utf-8")
    of_attacks = tried.charts if tried else []
    for chart in chain(on_one_axis, *(its.charts() for its in made), of_attacks):
        for suffix in (".svg", ".png"):
            save(chart, out / f"{chart.name}{suffix}")
    return runs


def _records(folder: Path, public: bool) -> list[RunRecord]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give one that holds run records")
    if public:
        records = [as_far_as_public(record) for record in read_public_records(folder)]
    else:
        records = read_records(folder)
    if not records:
        raise UserError(f"{folder}: no run record below it; python -m dpmi.train leaves one a run")
    return records


def _markdown(
    panels: Sequence[Panel],
    made: Sequence[Sections],
    on_one_axis: Sequence[Chart],
    public: bool,
    tried: Tried | None,
) -> str:
    parts = ["# Report", MADE_OF[public]]
    parts += [f"![{chart.title}]({chart.name}.svg)" for chart in on_one_axis]
    parts += ["## Accuracy by mechanism and β", as_markdown(panels)]
    for its in made:
        parts.append(f"## {its.panel.title}")
        parts += [f"![{chart.title}]({chart.name}.svg)" for chart in its.charts()]
        if its.groups:
            parts += [*who_pays_markdown(its.payers, its.groups), WHO_PAYS, INTERVALS]
        if rows := markdown_rows(its.risks):
            parts += [markdown_table(MARKDOWN_HEADER, rows)]
            parts += [WHAT_RISK_IS] * (WHAT_RISK_IS not in parts)  # once
            paragraphs = [
                (cell.column.title, sentence)
                for cell in its.risks
                for sentence in (*(risk.sentences[0] for risk in cell.risks), cell.of_largest)
            ]
            parts.append("\n".join(f"- {title}: {words}" for title, words in paragraphs if words))
        if its.gaps:
            header = ["train and test under LDP (%)", "whose", "train", "predicted", "test"]
            header += ["blank, expected", "blank, observed"]
            rows = [
                [g.cell, g.who]
                + [_percent(v) for v in (g.train, g.predicted, g.test, g.blank, g.observed)]
                for g in its.gaps
            ]
            parts += [markdown_table(header, rows), EXPLANATION]
        if its.figure2:
            header = ["one image after noise", "SSIM", "PSNR (dB)", "median SSIM", "median PSNR"]
            images = [image for row in its.figure2.rows.values() for image in row]
            parts.append(markdown_table(header, [_image_row(image) for image in images]))
        if its.costs:
            header = ["cost", "seconds in steps", "of the original's", "peak MB", "of its"]
            parts.append(markdown_table(header, [_cost_row(cost) for cost in its.costs]))
    parts += [attacks_as_markdown(tried)] if tried else []
    return "\n\n".join([*parts, ""])


def _image_row(image: Noised) -> list[str]:
    numbers = f"{image.ssim:.3f}", f"{image.psnr:.1f}"
    return [image.title, *numbers, f"{image.typical_ssim:.3f}", f"{image.typical_psnr:.1f}"]


def _cost_row(cost: Cost) -> list[str]:
    memory = "" if cost.memory is None else f"{cost.memory:.0f}"
    seconds = f"{cost.steps:.1f}", _ratio(cost.slowdown)
    return [cost.column.title, *seconds, memory, _ratio(cost.memory_ratio)]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
