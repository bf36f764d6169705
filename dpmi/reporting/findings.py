"""Several findings of an image, each by itself: their metrics on test images."""

from __future__ import annotations

from dataclasses import dataclass

from dpmi.reporting.cells import Panel

EXPLANATION = (
    "Each finding by itself, and their mean over those of which the test images have some with and "
    "some without. AUROC and average precision do not depend on the decision threshold; balanced "
    "accuracy is the mean of sensitivity and specificity, a finding being taken for present from a "
    "probability of 0.5 on. The calibration error (ECE) is that of the probability that a finding "
    "is present."
)
SHORT = (
    "Of several findings AUROC, average precision (AP) and balanced accuracy (mean of sensitivity "
    "and specificity) are means over the findings of which they are defined."
)
MEASURES = {
    "auroc": ("AUROC", "{:.3f}"),
    "average_precision": ("average precision", "{:.3f}"),
    "balanced_accuracy": ("balanced accuracy", "{:.1%}"),
    "ece": ("calibration error", "{:.3f}"),
}


@dataclass(frozen=True)
class FindingTable:
    """Measures of each finding, and of their mean, in the cells of a panel that have results.

    Attributes:
        columns: titles of the cells.
        rows: measure, finding ("mean" of all), and the mean over the runs of each cell.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def finding_table(panel: Panel) -> FindingTable | None:
    """Measure by measure; None of a panel of classes, and where no run completed."""
    tests = {column.title: cells["test"] for column, cells in panel.columns.items()}
    tests = {title: cell for title, cell in tests.items() if cell.completed}
    if not (panel.multilabel and tests):
        return None
    prefix = "test/auroc/"
    findings = dict.fromkeys(
        name.removeprefix(prefix)
        for cell in tests.values()
        for run in cell.completed
        for name in run.metrics
        if name.startswith(prefix)
    )
    rows = tuple(
        (
            title,
            of or "mean",
            *(cell.shown(f"{name}/{of}" if of else name, form) for cell in tests.values()),
        )
        for name, (title, form) in MEASURES.items()
        for of in ("", *findings)
    )
    return FindingTable(tuple(tests), rows)
