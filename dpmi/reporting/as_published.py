"""What the authors' method says of itself: the epoch it would pick, accuracy as predicted."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from dpmi.models.names import TRAIN_METRICS
from dpmi.privacy.published import predicted_train_accuracy
from dpmi.run.record import RunRecord

Row = tuple[str, list[str]]  # title, a text a column

PUBLISHED_FOOTNOTE = (
    "As published: no ε holds, the claimed one is its authors' word. The best epoch on test was "
    "picked by looking at the test images, and is too high. Predicted train accuracy: the majority "
    "class for images that the noise blanks, the original's accuracy for the others."
)


def published_rows(columns: Sequence[Sequence[RunRecord]]) -> list[Row]:
    """Rows for a table of one data set; none where no run is as published.

    Args:
        columns: the completed runs of each column, in the table's order.
    """
    if not any(
        run.config["mechanism"]["name"].endswith("_published") for runs in columns for run in runs
    ):
        return []
    originals = [
        run.metrics[f"{TRAIN_METRICS}/accuracy"]
        for runs in columns
        for run in runs
        if run.config["mechanism"]["name"] == "none"
    ]
    original = mean(originals) if originals else None
    rows = [
        ("best epoch on test", [_selected(runs) for runs in columns]),
        ("train, predicted", [_predicted(runs, original) for runs in columns]),
    ]
    return [row for row in rows if any(row[1])]


def _selected(runs: Sequence[RunRecord]) -> str:
    best = [
        run.metrics["selected_on_test/accuracy"]
        for run in runs
        if "selected_on_test/accuracy" in run.metrics
    ]
    return f"{100 * mean(best):.1f}%" if best else ""


def _predicted(runs: Sequence[RunRecord], original: float | None) -> str:
    """In closed form, where the original was run too."""
    told = [run.mechanism for run in runs if "nonprivate/expected_blank_share" in run.mechanism]
    if original is None or not told:
        return ""
    predicted = [
        predicted_train_accuracy(
            of["nonprivate/expected_blank_share"], of["nonprivate/majority_share"], original
        )
        for of in told
    ]
    return f"{100 * mean(predicted):.1f}%"
