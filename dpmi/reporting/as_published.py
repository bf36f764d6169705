"""The authors' method: the epoch it would pick, and its predicted accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from dpmi.privacy.published import predicted_train_accuracy
from dpmi.reporting.cells import TITLES, Panel
from dpmi.run.records.record import RunRecord

Row = tuple[str, list[str]]  # title, a text a column

PUBLISHED_FOOTNOTE = (
    "As published: no ε holds; the claimed one is the authors'. The best epoch on test was picked "
    "by looking at the test images, and is too high. Predicted train accuracy: the majority "
    "class for images that the noise blanks, the original's accuracy for the others."
)


def published_rows(panel: Panel) -> list[Row]:
    """Rows for its table, a text a column; none where no run is as published."""
    cells = list(panel.columns.values())
    completed = [column for column, of in panel.columns.items() if of["test"].completed]
    if not any(column.mechanism.endswith("_published") for column in completed):
        return []
    original = train_accuracy_of_original(panel)
    predicted = [prediction(of["train"].completed, original)[1] for of in cells]
    rows = [
        ("best epoch on test", [_percent(of["test"].best_on_test) for of in cells]),
        ("train, predicted", [_percent(value) for value in predicted]),
    ]
    return [row for row in rows if any(row[1])]


def why_no_epsilon(panels: Sequence[Panel]) -> dict[str, str]:
    """Mechanism to the reason why no ε holds for it, as the runs' guarantees say it.

    The original, which is there to be compared with, needs none.
    """
    guarantees = [
        (column.mechanism, cells["test"].guarantee)
        for panel in panels
        for column, cells in panel.columns.items()
    ]
    return {
        TITLES[name]: its.reason
        for name, its in guarantees
        if its and its.reason and name != "none"
    }


def train_accuracy_of_original(panel: Panel) -> float | None:
    """In [0, 1], mean over its runs; None where it was not run."""
    return next(
        (of["train"].mean for column, of in panel.columns.items() if column.mechanism == "none"),
        None,
    )


def prediction(
    runs: Sequence[RunRecord], original: float | None
) -> tuple[float | None, float | None]:
    """Share of blank images that is expected, and the train accuracy that it predicts.

    Args:
        runs: of one cell.
        original: train accuracy without noise.

    Returns:
        Both in [0, 1], means over the runs; None where the runs' noise blanks nothing, or where
        there is no original.
    """
    blank = _mean_recorded(runs, "nonprivate/expected_blank_share")
    majority = _mean_recorded(runs, "nonprivate/majority_share")
    if blank is None or majority is None or original is None:
        return blank, None
    return blank, predicted_train_accuracy(blank, majority, original)


def blank_share(runs: Sequence[RunRecord]) -> float | None:
    """Of the images as they were drawn, mean over the runs; None where the noise blanks nothing."""
    return _mean_recorded(runs, "nonprivate/blank_share")


def _mean_recorded(runs: Sequence[RunRecord], name: str) -> float | None:
    values = [run.mechanism[name] for run in runs if name in run.mechanism]
    return mean(values) if values else None


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}%"
