"""Why LDP's test accuracy is above its train accuracy, and what each would be in closed form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.lines import Line2D

from dpmi.privacy.published import predicted_train_accuracy
from dpmi.reporting.as_published import blank_share, prediction, train_accuracy_of_original
from dpmi.reporting.cells import Column, Panel
from dpmi.reporting.charts.style import COLOURS, INK, MARKERS, Chart, legend_above, new_figure
from dpmi.reporting.poster import TRAIN_MAJORITY, Published, published

EXPLANATION = (
    "The poster's LDP networks do better on test than on train, in every cell of pneumonia. Under "
    "LDP the training images carry noise and the test images do not, so the two figures are "
    "not of the same task: the gap is no sign that noise made the network generalise. With the "
    "published noise, one number an image, an image goes wholly black or white with probability "
    "e^(-1/β) or more. Of those the network can only guess the majority class; the others, of "
    "which the contrast is untouched, it knows as well as the original. So train accuracy is "
    "blank · majority + (1 - blank) · original, and test accuracy hardly moves. That is a mark "
    "reached late: in a few epochs a network learns less from the images that are left."
)


@dataclass(frozen=True)
class Gap:
    """Train and test accuracy of one LDP cell, and train accuracy as predicted, in [0, 1].

    Attributes:
        who: "ours" or "poster".
        cell: title of the cell.
        mechanism: of ``COLOURS``.
        train, test: as measured.
        blank: share of wholly black or white images that the prediction takes; None where the
            noise blanks none.
        observed: share of them in the runs; None for the poster, and where ``blank`` is.
        predicted: train accuracy in closed form; None where there is none.
    """

    who: str
    cell: str
    mechanism: str
    train: float
    test: float
    blank: float | None
    observed: float | None
    predicted: float | None


def gaps(panel: Panel) -> list[Gap]:
    """Those of the panel's own cells, then those of the poster's; none of findings."""
    if panel.multilabel:
        return []
    ours, posters = [], {}
    original = train_accuracy_of_original(panel)
    for column, cells in panel.columns.items():
        train, test = cells["train"], cells["test"]
        if not column.mechanism.startswith("ldp"):
            continue
        if train.mean is not None and test.mean is not None:
            blank, predicted = prediction(train.completed, original)
            observed = blank_share(train.completed)
            ours.append(
                Gap(
                    "ours", column.title, column.mechanism, train.mean, test.mean, blank, observed,
                    predicted,
                )
            )  # fmt: skip
        if train.poster and test.poster:
            posters[column.beta] = _of_poster(panel.dataset, column, train.poster, test.poster)
    return ours + [gap for _, gap in sorted(posters.items())]


def _of_poster(dataset: str, column: Column, train: Published, test: Published) -> Gap:
    """With e^(-1/β) for the blank share, the least it can be, and the poster's own original."""
    blank = math.exp(-1 / column.beta)
    original = published()[(dataset, "none", None, "train")].accuracy
    predicted = predicted_train_accuracy(blank, TRAIN_MAJORITY[dataset], original)
    title = f"LDP β={column.beta:g}"
    return Gap("poster", title, "none", train.accuracy, test.accuracy, blank, None, predicted)


def gap_chart(panel: Panel, found: Sequence[Gap], name: str) -> Chart | None:
    """Train (hollow), test (filled) and the prediction (a bar) of each cell."""
    if not found:
        return None
    figure, ((axes,),) = new_figure(1, 1, 1.4 + 1.05 * max(len(found), 4), 3.3)
    for x, gap in enumerate(found):
        colour, shape = COLOURS[gap.mechanism], MARKERS[gap.mechanism]
        axes.plot([x, x], [100 * gap.train, 100 * gap.test], color=colour, linewidth=1.2)
        axes.plot(
            x, 100 * gap.train, shape, color=colour, markerfacecolor="#ffffff", markersize=7.5
        )
        axes.plot(x, 100 * gap.test, shape, color=colour, markersize=7.5)
        if gap.predicted is not None:
            axes.plot(x, 100 * gap.predicted, "_", color=INK, markersize=22, markeredgewidth=2)
    labels = [
        f"{g.cell.replace(' as published', chr(10) + 'as published' + chr(10))}\n({g.who})"
        for g in found
    ]
    axes.set_xticks(range(len(found)), labels)
    axes.set_xlim(-0.6, len(found) - 0.4)
    axes.set_ylabel("accuracy (%)")
    axes.grid(visible=False, axis="x")
    legend_above(axes, [
        Line2D([], [], ls="", marker="o", color=INK, mfc="#ffffff", label="train"),
        Line2D([], [], ls="", marker="o", color=INK, label="test"),
        Line2D([], [], ls="", marker="_", ms=14, mew=2, color=INK, label="train, in closed form"),
    ])  # fmt: skip
    words = "; ".join(
        f"{g.cell} ({g.who}): train {100 * g.train:.1f} %, test {100 * g.test:.1f} %"
        + (f", predicted train {100 * g.predicted:.1f} %" if g.predicted is not None else "")
        for g in found
    )
    return Chart(name, f"Train and test accuracy under LDP: {panel.title}", words + ".", figure)
