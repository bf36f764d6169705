"""Several findings of an image, each by itself: AUROC and average precision on test images."""

from __future__ import annotations

from dataclasses import dataclass

from dpmi.reporting.cells import Panel

EXPLANATION = (
    "Each finding by itself, and their mean over those of which the test images have some with and "
    "some without. AUROC and average precision do not depend on the decision threshold; balanced "
    "accuracy is the mean of sensitivity and specificity, a finding being taken for present from a "
    "probability of 0.5 on."
)
SHORT = (
    "Of several findings AUROC, average precision (AP) and balanced accuracy (mean of sensitivity "
    "and specificity) are means over the findings of which they are defined."
)
MEASURES = {
    "auroc": ("AUROC", "{:.3f}"),
    "average_precision": ("average precision", "{:.3f}"),
    "balanced_accuracy": ("balanced accuracy", "{:.1%}"),
}


@dataclass(frozen=True)
class FindingRow:
    """One measure of one finding, or of their mean, in each cell of a panel.

    Attributes:
        finding: its name; "mean" of all.
        measure: its title.
        shown: mean over the runs of each cell, in the order of the panel's columns.
    """

    finding: str
    measure: str
    shown: tuple[str, ...]


def finding_rows(panel: Panel) -> list[FindingRow]:
    """A row for the mean and each finding and measure; none of a panel of classes."""
    if not panel.multilabel:
        return []
    tests = [cells["test"] for cells in panel.columns.values()]
    prefix = "test/auroc/"
    names = dict.fromkeys(
        name.removeprefix(prefix)
        for cell in tests
        for run in cell.completed
        for name in run.metrics
        if name.startswith(prefix)
    )
    return [
        FindingRow(
            finding or "mean",
            title,
            tuple(cell.shown(f"{name}/{finding}" if finding else name, form) for cell in tests),
        )
        for finding in ("", *names)
        for name, (title, form) in MEASURES.items()
    ]
