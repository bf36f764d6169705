"""Accuracy, AUROC, kappa and worst-class recall against ε, for each unit apart."""

from __future__ import annotations

import math
from statistics import mean

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from dpmi.privacy.guarantee import printed_epsilon
from dpmi.reporting.cells import TITLES, WORST_RECALL, Cell, Column, Panel, of_whom
from dpmi.reporting.charts.style import (
    COLOURS,
    INK,
    MARKERS,
    RULE,
    Chart,
    headline,
    legend_on_top,
    new_figure,
)  # fmt: skip

METRICS = {
    "accuracy": "accuracy",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "kappa": "weighted κ",
    WORST_RECALL: "worst recall",
}
_LEAST_RANGE = 0.1
_OF_A_PIXEL = ("ldp", "ldp_published")
_SIDES = {  # an ε is of something: one axis for each, and the mechanisms that are on it
    "ε of a pixel": _OF_A_PIXEL,
    "ε of an image": ("dpsgd", *(m for m in TITLES if m not in ("none", "dpsgd", *_OF_A_PIXEL))),
}


def tradeoff_chart(panel: Panel, name: str) -> Chart | None:
    """A row a metric, ε of a pixel on the left, of an image on the right; None without any ε."""
    points = {c: cells["test"] for c, cells in panel.columns.items() if _epsilon(cells["test"])}
    if not points:
        return None
    tests = [cells["test"] for cells in panel.columns.values()]
    metrics = [m for m in METRICS if any(cell.values(m) for cell in tests)]
    sides = [side for side, of in _SIDES.items() if any(c.mechanism in of for c in points)]
    figure, axes = new_figure(
        len(metrics), len(sides), 10.6, 0.9 + 2.05 * len(metrics), share_x="col", share_y="row"
    )
    title = f"The trade-off: {panel.title}"
    words = " ".join(f"{METRICS[m]}: {_words(points, m)}." for m in metrics)
    chart = Chart(name, title, f"Test metrics against ε. {words}", figure)
    for row, metric in zip(axes, metrics, strict=True):
        for side, each in zip(sides, row, strict=True):
            _draw(chart, each, panel, side, metric)
        row[0].set_ylabel(METRICS[metric])
        low, high = row[0].get_ylim()
        if high - low < _LEAST_RANGE:  # where all is alike, chance must not fill the panel
            row[0].set_ylim((low + high - _LEAST_RANGE) / 2, (low + high + _LEAST_RANGE) / 2)
    for side, top, bottom in zip(sides, axes[0], axes[-1], strict=True):
        title = side.replace("an image", of_whom([panel]))
        headline(top, title, COLOURS[_SIDES[side][0]])
        _ticks(bottom, _places(panel, side))
        bottom.set_xlabel("ε (log scale; less is more private)")
    legend_on_top(figure, _legend(panel, points))
    return chart


def _draw(chart: Chart, axes: Axes, panel: Panel, side: str, metric: str) -> None:
    for mechanism in _SIDES[side]:
        drawn = []
        for column, cells in panel.columns.items():
            values = cells["test"].values(metric)
            epsilon = _epsilon(cells["test"])
            if column.mechanism == mechanism and values and epsilon:
                drawn.append((epsilon, mean(values), values, column))
        claimed = mechanism.endswith("_published")
        drawn.sort(key=lambda point: point[0])
        axes.plot(
            [p[0] for p in drawn], [p[1] for p in drawn], ":" if claimed else "-",
            color=COLOURS[mechanism], linewidth=1.3,
        )  # fmt: skip
        for epsilon, value, values, column in drawn:
            if len(values) > 1:
                axes.vlines(epsilon, min(values), max(values), color=COLOURS[mechanism])
            (mark,) = axes.plot(
                epsilon, value, MARKERS[mechanism], color=COLOURS[mechanism], markersize=6.5
            )
            text = "claimed ε" if claimed else "ε"
            chart.tell(
                mark,
                f"{column.title}: {METRICS[metric]} {value:.3f} at {text} "
                f"{printed_epsilon(epsilon)}",
            )
    originals = [cells["test"] for c, cells in panel.columns.items() if c.mechanism == "none"]
    values = [value for cell in originals for value in cell.values(metric)]
    if values:
        axes.axhline(mean(values), color=COLOURS["none"], linewidth=1.2)
    if metric == "accuracy":
        if (floor := panel.majority("test")) is not None:
            axes.axhline(floor, color=RULE, linestyle=(0, (4, 3)), linewidth=1.2)
        for column, cells in panel.columns.items():
            poster = cells["test"].poster
            if column.mechanism in _SIDES[side] and poster:
                shape = "*" if cells["test"].picked_on_test else "x"
                (mark,) = axes.plot(
                    1 / column.beta, poster.accuracy, shape, color=INK, markersize=7
                )
                text = f"{poster.accuracy:.3f} at the claimed ε {printed_epsilon(1 / column.beta)}"
                picked = ", picked on the test images" if shape == "*" else ""
                chart.tell(mark, f"{column.title}: the poster's accuracy {text}{picked}")
    axes.set_xscale("log")


def _places(panel: Panel, side: str) -> list[float]:
    """Each ε at which the side has a point, of ours or of the poster's."""
    of_side = {c: of for c, of in panel.columns.items() if c.mechanism in _SIDES[side]}
    tests = {column: cells["test"] for column, cells in of_side.items()}
    ours = [epsilon for cell in tests.values() if (epsilon := _epsilon(cell))]
    return ours + [1 / column.beta for column, cell in tests.items() if cell.poster]


def _ticks(axes: Axes, epsilons: list[float]) -> None:
    """A tick where there is a point: three ε in two octaves leave a log axis without labels."""
    ticks = sorted({float(printed_epsilon(epsilon, digits=2)) for epsilon in epsilons})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    if ticks:
        axes.set_xlim(ticks[0] / 1.3, ticks[-1] * 1.3)


def _epsilon(cell: Cell) -> float | None:
    """ε that holds, or the claimed one of a cell that has none; None where there is none to draw.

    So it is for the original, and for an infinite ε.
    """
    promise = cell.guarantee
    if promise is None:
        return None
    if promise.epsilon is not None:
        return float(promise.epsilon) if math.isfinite(promise.epsilon) else None
    return float(promise.claim.epsilon) if promise.claim else None


def _legend(panel: Panel, points: dict[Column, Cell]) -> list[Line2D]:
    handles = [Line2D([], [], color=COLOURS["none"], label="original")]
    for mechanism in dict.fromkeys(column.mechanism for column in points):
        claimed = mechanism.endswith("_published")
        handles.append(
            Line2D([], [], color=COLOURS[mechanism], marker=MARKERS[mechanism],
                   ls=":" if claimed else "-",
                   label=f"{TITLES[mechanism]}{' (claimed ε)' if claimed else ''}")
        )  # fmt: skip
    if not panel.multilabel:
        handles.append(Line2D([], [], color=RULE, ls=(0, (4, 3)), label="majority class"))
    if any(cells["test"].poster for cells in panel.columns.values()):
        handles.append(Line2D([], [], ls="", marker="x", color=INK, label="poster (claimed ε)"))
        handles.append(Line2D([], [], ls="", marker="*", color=INK, label="… picked on test"))
    return handles


def _words(points: dict[Column, Cell], metric: str) -> str:
    parts = [
        f"{column.title} {mean(values):.3f}"
        for column, cell in points.items()
        if (values := cell.values(metric))
    ]
    return ", ".join(parts) or "none"
