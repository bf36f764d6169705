"""Figure 4 in text: on the terminal, as Markdown, and as CSV by run and by cell."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

from rich.table import Table

from dpmi.models.names import UNDEFINED
from dpmi.reporting.as_published import PUBLISHED_FOOTNOTE, published_rows, why_no_epsilon
from dpmi.reporting.cells import SPLITS, WORST_RECALL, Cell, Column, Panel, protected
from dpmi.reporting.findings import SHORT as FINDINGS
from dpmi.reporting.findings import finding_table
from dpmi.reporting.intervals import Interval
from dpmi.reporting.risk import CSV_HEADER as _RISK_HEADER
from dpmi.reporting.risk import csv_values
from dpmi.reporting.together import as_text
from dpmi.reporting.who_pays import balanced_accuracy, groups_of, lost, payers
from dpmi.run.records.record import RunRecord

_PROMISE_HEADER = (
    *("epsilon", "delta", "unit", "adjacency", "claimed_epsilon"),
    *("replace_one_epsilon", "epsilon_at_1e-5", "epsilon_at_1e-6"),
)
_BESIDE = ("balanced_accuracy", "auroc", "average_precision", "ece", "kappa", WORST_RECALL)
_RUN_HEADER = (
    *("dataset", "setup", "split", "mechanism", "beta", "seed", "status", "accuracy", "auroc"),
    "poster_accuracy",
    *_PROMISE_HEADER,
    *("best_epoch_on_test", "reason"),
)
_CELL_HEADER = (
    *("dataset", "setup", "split", "mechanism", "beta", "variant", "status", "runs", "seeds"),
    *("accuracy", "low_95", "high_95", "interval_over", "majority_class"),
    *_BESIDE,
    *("poster_accuracy", "poster_epoch", "authors_last_epoch"),
    *_PROMISE_HEADER,
    *("worst_group", "worst_group_balanced_accuracy", "group_that_loses_most", "its_loss"),
    *_RISK_HEADER,
)
FOOTNOTE = (
    "AUROC (macro), balanced accuracy (mean recall of the classes) and accuracy are of the last "
    "epoch, not of one picked on test images. Below accuracy: its 95 % interval, over seeds where "
    "there are several, else over the images; the poster's accuracy where it has one; the expected "
    "calibration error; the guarantee of the run, ε rounded up. Zero-out: an image (or a patient) "
    "is replaced by one that contributes nothing; replace-one: by any other. No ε covers "
    "validation and test images."
)
TRAIN = (
    "Train accuracy is that of the images as training saw them, under LDP noised; no ε covers it."
)
STAR = "* the poster's number is its best epoch on the test images; the last is lower."


def interval_text(interval: Interval | None) -> str:
    """Its two ends in per cent."""
    return "" if interval is None else f"{100 * interval.low:.1f}–{100 * interval.high:.1f}"


def terminal_table(panel: Panel) -> Table:
    """One panel's rows for the terminal: the seven columns fit in 80 characters."""
    columns = panel.columns
    table = Table(
        title=f"{panel.title}: {panel.measure} by mechanism and β",
        show_lines=True,
        show_edge=False,
        # Long titles: every character counts where seven columns share 80.
        padding=(0, 0) if any("published" in column.title for column in columns) else (0, 1, 0, 0),
    )
    table.add_column("split", overflow="fold")
    for column in columns:
        table.add_column(column.title, justify="right", overflow="fold")
    for title, texts in _ranked_first(panel):
        table.add_row(title, *texts)
    for split in panel.splits:
        texts = []
        for cells in columns.values():
            cell = cells[split]
            style = "bold" if cell.accuracies else "red"
            span = ""
            if cell.interval:
                span = f"{100 * cell.interval.low:.0f}–{100 * cell.interval.high:.0f}"
            lines = (f"[{style}]{cell.accuracy}[/]", span, cell.beside)
            texts.append("\n".join(filter(None, lines)))
        table.add_row(split, *texts)
    for title, texts in (*_calibration(panel), *published_rows(panel)):
        table.add_row(title, *texts)
    promises = []
    for cells in columns.values():  # why a run failed or stopped stands below, where there is room
        cell = cells["test"]
        below = ["see below"] if cell.failures or cell.stopped else []
        promises.append(_hyphenated("\n".join([*cell.promise, *below])))
    table.add_row("privacy", *promises, style="dim")
    if any(replaced := [cells["test"].if_replaced for cells in columns.values()]):
        table.add_row(_hyphenated(_if_replaced(panel)), *replaced, style="dim")
    if any(audited := [cells["test"].audited for cells in columns.values()]):
        table.add_row("audited", *audited, style="dim")
    return table


def _ranked_first(panel: Panel) -> list[tuple[str, list[str]]]:
    """Rows of test metrics above accuracy, which depend less on the threshold."""
    tests = [cells["test"] for cells in panel.columns.values()]
    balanced = [cell.balanced for cell in tests]
    rows = [("test AUROC", [cell.auroc for cell in tests])]
    if panel.multilabel:  # AUROC stands where accuracy would
        rows = [("test AP", [cell.shown("average_precision") for cell in tests])]
    return [*rows, ("test balanced", balanced)] if any(balanced) else rows


def _calibration(panel: Panel) -> list[tuple[str, list[str]]]:
    """The row of the calibration error below accuracy, where a record has one."""
    values = [cells["test"].ece for cells in panel.columns.values()]
    return [("test ECE", values)] if any(values) else []


def _if_replaced(panel: Panel) -> str:
    """Title of the row of ε where an image, or a patient, is replaced by any other."""
    return f"{' or '.join(protected([panel]))}, replace-one"


def _hyphenated(text: str) -> str:
    """The longest word in two: it would make a column wider than its numbers do."""
    return text.replace("replace-one", "replace-\none")


def as_markdown(panels: Sequence[Panel]) -> str:
    """The same as Markdown, a table a panel."""
    parts = []
    for panel in panels:
        tests = [cells["test"] for cells in panel.columns.values()]
        named = "" if panel.setup else f"{panel.dataset}, "
        parts += [f"**{in_markdown(panel.title)}**", ""] if panel.setup else []
        rows = [[f"{named}{title}", *texts] for title, texts in _ranked_first(panel)]
        rows += [
            [f"{named}{split}"]
            + [_accuracy_in_markdown(cells[split]) for cells in panel.columns.values()]
            for split in panel.splits
        ]
        below = (*_calibration(panel), *published_rows(panel))
        rows += [[f"{named}{title}", *texts] for title, texts in below]
        rows.append(["privacy", *[_promise_in_markdown(cell) for cell in tests]])
        if any(replaced := [cell.if_replaced for cell in tests]):
            rows.append([_if_replaced(panel), *replaced])
        if any(audited := [cell.audited for cell in tests]):
            rows.append(["audited", *audited])
        parts += [markdown_table(["", *[c.title for c in panel.columns]], rows), ""]
        if found := finding_table(panel):
            parts += [markdown_table(["test", "finding", *found.columns], found.rows), ""]
    totals = as_text(panels)
    return "\n".join([*parts, *([totals, ""] if totals else []), footnote(panels), ""])


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    lines = ["| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
    lines += ["| " + " | ".join(in_markdown(text) for text in row) + " |" for row in rows]
    return "\n".join(lines)


def in_markdown(text: str) -> str:
    """A text that may hold what ends a cell or a line."""
    return " ".join(text.replace("|", "\\|").split())


def footnote(panels: Sequence[Panel]) -> str:
    """What a reader of the table must know."""
    picked = any(c["test"].picked_on_test for p in panels for c in p.columns.values())
    published = any(published_rows(panel) for panel in panels)
    train = any("train" in panel.splits for panel in panels)
    parts = [
        FOOTNOTE,
        *([FINDINGS] if any(panel.multilabel for panel in panels) else []),
        *(f"Protocol: {', '.join(protocol)}." for protocol in protocols(panels)),
        *([TRAIN] if train else []),
        *absent(panels),
        *([STAR] if picked else []),
        *([PUBLISHED_FOOTNOTE] * published),
    ]
    return " ".join(
        [*parts, *(f"{title}: {why}." for title, why in why_no_epsilon(panels).items())]
    )


def absent(panels: Sequence[Panel]) -> list[str]:
    """Which classes the test images lack, and what the means over classes are then of."""
    lines = []
    for panel in panels:
        tests = [cells["test"] for cells in panel.columns.values()]
        lacking = dict.fromkeys(name for cell in tests for name in cell.absent_classes)
        if lacking:
            lines.append(
                f"{panel.title}: no test image is of class {', '.join(lacking)}, whose recall is "
                f"{UNDEFINED}; AUROC, balanced accuracy and F1 are means over the classes that are "
                "there."
            )
    return lines


def protocols(panels: Sequence[Panel]) -> list[tuple[str, ...]]:
    """How the runs learned, averaged and decided, as their configs say it; each once."""
    keys = ("schedule", "average", "prior")
    found = []
    for config in (run.config for panel in panels for run in panel.runs):
        model, views = config["model"], config["data"].get("multiplicity", 1)
        if all(key in model for key in keys):
            several = (f"data.multiplicity={views}",) * (views > 1)
            found.append((*(f"model.{key}={model[key]}" for key in keys), *several))
    return list(dict.fromkeys(found))


def runs_csv(panels: Sequence[Panel]) -> str:
    """A line a run and split."""
    lines = [
        [
            *(panel.dataset, panel.setup, split, column.mechanism),
            *("" if column.mechanism == "none" else f"{column.beta:g}", run.config["seed"]),
            run.status,
            _of_run(run, f"{SPLITS[split]}/accuracy"),
            _of_run(run, f"{SPLITS[split]}/auroc"),
            "" if cell.poster is None else f"{cell.poster.accuracy:.4f}",
            *_promise(run.guarantee),
            run.metrics.get("selected_on_test/accuracy", "") if split == "test" else "",
            run.reason or run.stopped or "",
        ]
        for panel, split, column, cell in _each(panels)
        for run in cell.runs
    ]
    return csv_text(_RUN_HEADER, lines)


def _of_run(run: RunRecord, metric: str) -> float | str:
    value = run.metrics.get(metric)
    if value is None:
        return ""
    return value if math.isfinite(value) else UNDEFINED


def cells_csv(panels: Sequence[Panel]) -> str:
    """A line a cell and split, missing and failed ones too."""
    lines = []
    for panel, split, column, cell in _each(panels):
        majority = panel.majority(split)
        interval = None if panel.multilabel else cell.interval  # of accuracy
        lines.append(
            [
                *(panel.dataset, panel.setup, split, column.mechanism),
                *("" if column.mechanism == "none" else f"{column.beta:g}", column.variant),
                *(cell.status, len(cell.completed), cell.seeds),
                _places(cell.mean_of("accuracy")),
                *(
                    (f"{interval.low:.6f}", f"{interval.high:.6f}", interval.over)
                    if interval
                    else ("", "", "")
                ),
                _places(majority),
                *(cell.shown(name, "{:.6f}") for name in _BESIDE),
                *(
                    (f"{cell.poster.accuracy:.4f}", cell.poster.epoch, f"{cell.poster.last:.4f}")
                    if cell.poster
                    else ("", "", "")
                ),
                *_promise(cell.guarantee),
                *(_paid(panel, column) if split == "test" else ("",) * 4),
                *csv_values(cell),
            ]
        )
    return csv_text(_CELL_HEADER, lines)


def _paid(panel: Panel, column: Column) -> tuple[str, ...]:
    """The worst group of all that were asked for, and the one that loses most; with its loss."""
    its = [payer for payer in payers(panel, groups_of(panel)) if payer.cell == column]
    worst = min((p.worst for p in its if p.worst), key=balanced_accuracy, default=None)
    most = max((p.most for p in its if p.most), key=lost, default=None)
    fares = (worst.title, _places(balanced_accuracy(worst))) if worst else ("", "")
    return (*fares, *((most.title, _places(lost(most))) if most else ("", "")))


def _places(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _each(panels: Sequence[Panel]) -> Iterable[tuple[Panel, str, Any, Cell]]:
    for panel in panels:
        for column, by_split in panel.columns.items():
            for split in panel.splits:
                yield panel, split, column, by_split[split]


def _promise(promise: Any) -> tuple[Any, ...]:
    if promise is None:
        return ("",) * len(_PROMISE_HEADER)
    claimed = promise.claim.epsilon if promise.claim else ""
    stricter = [promise.epsilons.get(delta) for delta in ("1e-5", "1e-6")]
    stated = promise.epsilon, promise.delta, promise.unit, promise.adjacency, claimed
    return *stated, promise.replace_one_epsilon, *stricter


def csv_text(header: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """CSV with a header line."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return out.getvalue()


def _accuracy_in_markdown(cell: Cell) -> str:
    lines = (f"**{cell.accuracy}**", interval_text(cell.interval), cell.beside)
    return "<br>".join(filter(None, lines))


def _promise_in_markdown(cell: Cell) -> str:
    return "<br>".join(filter(None, [" ".join(cell.promise), *cell.stopped, *cell.failures]))
