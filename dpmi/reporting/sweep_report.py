"""What the end of a sweep prints and writes: Figure 4 from the records, and nothing else."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from dpmi.reporting.plot import save_plot
from dpmi.reporting.table import as_csv, as_markdown, figure4, footnote, terminal_table
from dpmi.run.record import read_records

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
    cells = figure4(records)
    for dataset, columns in cells.items():
        console.print(terminal_table(dataset, columns))
    console.print(footnote(cells), style="dim")
    (sweep / CSV_FILE).write_text(as_csv(cells))
    (sweep / MARKDOWN_FILE).write_text(as_markdown(cells))
    save_plot(cells, sweep / PLOT_FILE)
    console.print(
        f"{len(records)} records, {CSV_FILE}, {MARKDOWN_FILE} and {PLOT_FILE} in {sweep}",
        markup=False,
    )
    failed = [record for record in records if record.status != "completed"]
    for record in failed:
        console.print(f"{record.run} {record.status}: {record.reason}", style="red", markup=False)
    return len(failed)
