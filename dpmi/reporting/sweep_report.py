"""What the end of a sweep prints and writes: Figure 4 from the records, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from dpmi.reporting.cells import Panel
from dpmi.reporting.charts.figure4 import figure4_chart
from dpmi.reporting.charts.style import save
from dpmi.reporting.sorting import figure4
from dpmi.reporting.table import as_markdown, footnote, runs_csv, terminal_table
from dpmi.reporting.together import as_text
from dpmi.run.records.reading import read_records

CSV_FILE, MARKDOWN_FILE, PLOT_FILE = "figure4.csv", "figure4.md", "figure4.svg"


def report_sweep(sweep: Path, console: Console) -> int:
    """Print the table of a sweep's records and write it beside them; return the runs that failed.

    Raises:
        UserError: a record is not readable, or of another version.
    """
    records = read_records(sweep)
    if not records:
        console.print(f"no run left a record in {sweep}", markup=False)
        return 0
    panels = figure4(records)
    print_tables(panels, console)
    (sweep / CSV_FILE).write_text(runs_csv(panels), encoding="utf-8")
    (sweep / MARKDOWN_FILE).write_text(as_markdown(panels), encoding="utf-8")
    save(figure4_chart(panels), sweep / PLOT_FILE)
    console.print(
        f"{len(records)} records, {CSV_FILE}, {MARKDOWN_FILE} and {PLOT_FILE} in {sweep}; "
        "the whole report: python -m dpmi.report FOLDER",
        markup=False,
    )
    for record in records:
        if record.stopped:
            console.print(f"{record.run}: {record.stopped}", style="yellow", markup=False)
    failed = [record for record in records if record.status != "completed"]
    for record in failed:
        console.print(f"{record.run} {record.status}: {record.reason}", style="red", markup=False)
    return len(failed)


def print_tables(panels: Sequence[Panel], console: Console) -> None:
    """Each panel's table, and what a reader must know."""
    for panel in panels:
        console.print(terminal_table(panel))
    console.print(footnote(panels), style="dim")
    if totals := as_text(panels):
        console.print(totals.replace("\n\n", "\n"), markup=False, highlight=False)
