"""The table of Figure 4 from the records of a sweep: rows data set and split, columns the cells."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from dataclasses import dataclass
from statistics import mean

from rich.table import Table

from dpmi.models.names import TRAIN_METRICS
from dpmi.reporting.as_published import PUBLISHED_FOOTNOTE, Row, published_rows
from dpmi.reporting.poster import poster_accuracy
from dpmi.run.record import RunRecord

SPLITS = {"train": TRAIN_METRICS, "test": "test"}  # a row of the table to its metrics' prefix
_TITLES = {
    "none": "original",
    "ldp": "LDP",
    "dpsgd": "DP-SGD",
    "ldp_published": "LDP as published",
    "dpsgd_published": "DP-SGD as published",
}
_CSV_HEADER = (
    *("dataset", "split", "mechanism", "beta", "seed", "status", "accuracy", "auroc"),
    "poster_accuracy",
    *("epsilon", "delta", "unit", "adjacency", "claimed_epsilon", "best_epoch_on_test", "reason"),
)
FOOTNOTE = (
    "Accuracy of the last epoch, never of one picked on test images. Train accuracy is computed on "
    "the training images without noise: no ε covers it. Below it: the poster's "
    "accuracy where it has one; AUROC (macro); the guarantee of the run."
)


@dataclass(frozen=True, order=True)
class Column:
    """One column of the table: a mechanism at a β (0 where there is none)."""

    rank: int
    beta: float
    mechanism: str

    @property
    def title(self) -> str:
        """As the poster heads it."""
        title = _TITLES[self.mechanism]
        return f"{title} β={self.beta:g}" if self.mechanism != "none" else title


@dataclass(frozen=True)
class Cell:
    """The runs of one data set in one column; several where there are several seeds."""

    runs: tuple[RunRecord, ...]
    poster: float | None
    split: str

    @property
    def completed(self) -> list[RunRecord]:
        """The runs that have something to tell."""
        return [r for r in self.runs if r.status == "completed"]

    @property
    def accuracies(self) -> list[float]:
        """Of the completed runs, in [0, 1]."""
        return [r.metrics[f"{SPLITS[self.split]}/accuracy"] for r in self.completed]

    @property
    def accuracy(self) -> str:
        """Mean over the completed runs, or how the run ended."""
        values = self.accuracies
        if not values:
            return self.runs[0].status
        told = f"{100 * mean(values):.1f}%"
        if len(values) == 1:
            return told
        seeds = {r.config["seed"] for r in self.completed}
        return f"{told} ({len(values)} {'seeds' if len(seeds) == len(values) else 'runs'})"

    @property
    def beside(self) -> str:
        """The poster's number."""
        return "" if self.poster is None else f"poster {100 * self.poster:.1f}%"

    @property
    def auroc(self) -> str:
        """Macro AUROC, mean over the completed runs: what no threshold moves."""
        name = f"{SPLITS[self.split]}/auroc"
        values = [r.metrics[name] for r in self.runs if name in r.metrics]
        return f"{mean(values):.3f}" if values else ""

    @property
    def promise(self) -> tuple[str, ...]:
        """ε, δ and unit of the worst of the completed runs, or that there is no ε; in pieces."""
        guarantees = [r.guarantee for r in self.completed if r.guarantee]
        if not guarantees:
            return ()
        worst = max(guarantees, key=lambda g: float("inf") if g.epsilon is None else g.epsilon)
        if worst.epsilon is None or worst.delta is None:
            claims = {f"{g.claim.epsilon:.3g}" for g in guarantees if g.claim}
            return ("no ε", *(f"(claimed {claim})" for claim in sorted(claims)))
        return f"ε={worst.epsilon:.3g}", f"δ={_scientific(worst.delta)}", f"per {worst.unit}"

    @property
    def failures(self) -> tuple[str, ...]:
        """Why runs of the cell did not complete."""
        return tuple(f"{r.status}: {r.reason}" for r in self.runs if r.status != "completed")


def _scientific(value: float) -> str:
    """1e-4, not 0.0001: it fits a narrow column, and no zero is miscounted."""
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}" if value else "0"


Figure4 = dict[str, dict[Column, dict[str, Cell]]]  # data set → column → split → cell


def figure4(records: list[RunRecord]) -> Figure4:
    """Sort records into the cells of Figure 4."""
    runs: dict[str, dict[Column, list[RunRecord]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        mechanism = record.config["mechanism"]["name"]
        beta = 0.0 if mechanism == "none" else float(record.config["beta"])
        column = Column(list(_TITLES).index(mechanism), beta, mechanism)
        runs[record.config["data"]["name"]][column].append(record)
    return {
        dataset: {
            column: {
                split: _cell(dataset, column, split, runs[dataset][column]) for split in SPLITS
            }
            for column in sorted(runs[dataset])
        }
        for dataset in sorted(runs)
    }


def _cell(dataset: str, column: Column, split: str, runs: list[RunRecord]) -> Cell:
    beta = None if column.mechanism == "none" else column.beta
    mechanism = column.mechanism.removesuffix("_published")  # the poster's cell is the same
    poster = poster_accuracy().get((dataset, mechanism, beta, split))
    return Cell(tuple(runs), poster, split)


def _published_rows(columns: dict[Column, dict[str, Cell]]) -> list[Row]:
    return published_rows([by_split["test"].completed for by_split in columns.values()])


def terminal_table(dataset: str, columns: dict[Column, dict[str, Cell]]) -> Table:
    """One data set's rows for the terminal: the seven columns fit in 80 characters."""
    table = Table(
        title=f"{dataset}: accuracy by mechanism and β",
        show_lines=True,
        show_edge=False,
        # Long titles: every character counts where seven columns share 80.
        padding=(0, 0) if any("published" in column.title for column in columns) else (0, 1, 0, 0),
    )
    table.add_column("split", overflow="fold")
    for column in columns:
        table.add_column(column.title, justify="right", overflow="fold")
    for split in SPLITS:
        cells = [columns[column][split] for column in columns]
        texts = []
        for cell in cells:
            style = "bold" if cell.accuracies else "red"
            texts.append(
                f"[{style}]{cell.accuracy}[/]" + (f"\n{cell.beside}" if cell.beside else "")
            )
        table.add_row(split, *texts)
    table.add_row("test AUROC", *[columns[column]["test"].auroc for column in columns])
    for title, texts in _published_rows(columns):
        table.add_row(title, *texts)
    promises = []
    for column in columns:  # why a run failed is said below the table, where there is room
        cell = columns[column]["test"]
        promises.append("\n".join([*cell.promise, *(["see below"] if cell.failures else [])]))
    table.add_row("privacy", *promises, style="dim")
    return table


def as_markdown(cells: Figure4) -> str:
    """The same as Markdown, a table a data set."""
    parts = []
    for dataset, columns in cells.items():
        parts.append("| " + " | ".join(["", *[c.title for c in columns]]) + " |")
        parts.append("|---" + "|---:" * len(columns) + "|")
        for split in SPLITS:
            row = [columns[column][split] for column in columns]
            texts = [
                f"**{cell.accuracy}**" + (f"<br>{cell.beside}" if cell.beside else "")
                for cell in row
            ]
            parts.append("| " + " | ".join([f"{dataset}, {split}", *texts]) + " |")
        ranks = [columns[column]["test"].auroc for column in columns]
        parts.append("| " + " | ".join([f"{dataset}, test AUROC", *ranks]) + " |")
        parts += [
            "| " + " | ".join([f"{dataset}, {title}", *texts]) + " |"
            for title, texts in _published_rows(columns)
        ]
        promises = [_in_markdown(columns[column]["test"]) for column in columns]
        parts.append("| " + " | ".join(["privacy", *promises]) + " |")
        parts.append("")
    return "\n".join([*parts, footnote(cells), ""])


def footnote(cells: Figure4) -> str:
    """What a reader of the table must know."""
    published = any(_published_rows(columns) for columns in cells.values())
    return f"{FOOTNOTE} {PUBLISHED_FOOTNOTE}" if published else FOOTNOTE


def _in_markdown(cell: Cell) -> str:
    failures = [" ".join(failure.replace("|", "\\|").split()) for failure in cell.failures]
    return "<br>".join(filter(None, [" ".join(cell.promise), *failures]))


def as_csv(cells: Figure4) -> str:
    """The same as CSV, a line a run and split."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_CSV_HEADER)
    for dataset, columns in cells.items():
        for column, by_split in columns.items():
            for split, cell in by_split.items():
                for run in cell.runs:
                    promise = run.guarantee
                    writer.writerow(
                        [
                            dataset,
                            split,
                            column.mechanism,
                            "" if column.mechanism == "none" else f"{column.beta:g}",
                            run.config["seed"],
                            run.status,
                            run.metrics.get(f"{SPLITS[split]}/accuracy", ""),
                            run.metrics.get(f"{SPLITS[split]}/auroc", ""),
                            "" if cell.poster is None else f"{cell.poster:.4f}",
                            *(
                                (promise.epsilon, promise.delta, promise.unit, promise.adjacency)
                                if promise
                                else ("", "", "", "")
                            ),
                            promise.claim.epsilon if promise and promise.claim else "",
                            run.metrics.get("selected_on_test/accuracy", "")
                            if split == "test"
                            else "",
                            run.reason or "",
                        ]
                    )
    return out.getvalue()
