"""What the privacy of an image costs: all mechanisms on one axis, the ε of a whole image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from dpmi.privacy.guarantee import printed_epsilon
from dpmi.reporting.cells import TITLES, Cell, Column, Panel, of_whom
from dpmi.reporting.charts.style import (
    COLOURS,
    INK,
    LINES,
    MARKERS,
    RULE,
    Chart,
    LineStyle,
    legend_on_top,
    new_figure,
)  # fmt: skip

_METRICS = {"auroc": "AUROC", "accuracy": "accuracy"}
_OF_FINDINGS = {"auroc": "AUROC", "average_precision": "average precision"}
_Point = tuple[float, Column, Cell]  # ε of an image or a patient


def price_chart(panels: Sequence[Panel], name: str) -> Chart | None:
    """AUROC and accuracy on test images against the ε of an image or a patient, of one data set.

    ε is that of the one that is protected, replaced by any other, which every mechanism has: local
    DP of pixels as well, where it is in the hundreds or more. What has no ε (the original, the
    published mechanisms, the poster's points) stands to the right of the axis.

    Args:
        panels: of one data set and the same test images, in different set-ups.
        name: of the chart.

    Returns:
        None where no run has an ε.
    """
    points = [(number, _points(panel)) for number, panel in enumerate(panels)]
    epsilons = [epsilon for _, of in points for epsilon, _, _ in of if math.isfinite(epsilon)]
    if not epsilons:
        return None
    metrics = _METRICS if not all(panel.multilabel for panel in panels) else _OF_FINDINGS
    figure, axes = new_figure(2, 1, 10.6, 7.2, share_x="col")
    dataset, tested_on = panels[0].dataset, panels[0].tested_on
    whose = of_whom(panels)
    where = f", test images: {tested_on.replace('_', ' ')}" if tested_on else ""
    chart = Chart(
        name,
        f"What the privacy of {whose} costs: {dataset}{where}",
        f"{' and '.join(metrics.values())} on test images against the ε of {whose} that is "
        "replaced by another, for all mechanisms. " + _words(panels, points),
        figure,
    )
    low, high = min(epsilons) / 1.5, max(epsilons) * 1.5
    nowhere = high * (high / low) ** 0.09  # where what has no ε is drawn
    for (each,), (metric, label) in zip(axes, metrics.items(), strict=True):
        each.set_xscale("log")
        for number, of in points:
            _draw(chart, each, panels[number], of, metric, LINES[number % len(LINES)], nowhere)
        each.minorticks_off()
        each.axvspan(high, nowhere * nowhere / high, color=RULE, alpha=0.12, linewidth=0)
        each.set_ylabel(label)
        each.set_xlim(low, nowhere * nowhere / high)
    bottom = axes[-1][0]
    _ticks(bottom, low, high, nowhere)
    bottom.set_xlabel(f"ε of {whose}, replaced by any other (log scale; less is more private)")
    legend_on_top(figure, _legend(panels, points))
    return chart


def _points(panel: Panel) -> list[_Point]:
    """Each cell that has a test metric, with the ε of an image; infinite where none holds."""
    found = []
    for column, cells in panel.columns.items():
        promise = cells["test"].guarantee
        if promise is not None and cells["test"].accuracies:
            epsilon = promise.replace_one_epsilon if promise.epsilon is not None else None
            found.append((math.inf if epsilon is None else float(epsilon), column, cells["test"]))
    return sorted(found, key=lambda point: (point[1].rank, point[0]))


def _draw(
    chart: Chart, axes: Axes, panel: Panel, points: Sequence[_Point], metric: str,
    line: LineStyle, nowhere: float,
) -> None:  # fmt: skip
    for series in dict.fromkeys((c.mechanism, c.variant) for _, c, _ in points):
        drawn = [
            (min(epsilon, nowhere), column, cell)
            for epsilon, column, cell in points
            if (column.mechanism, column.variant) == series and cell.values(metric)
        ]
        colour, marker = COLOURS[series[0]], MARKERS[series[0]]
        if series[0] == "none":
            for _, _, cell in drawn:
                axes.axhline(mean(cell.values(metric)), color=colour, linewidth=0.8)
        held = [(e, mean(cell.values(metric))) for e, _, cell in drawn if e < nowhere]
        axes.plot(
            [e for e, _ in held], [v for _, v in held],
            color=colour, linestyle=line, linewidth=1.3,
        )  # fmt: skip
        for epsilon, column, cell in drawn:
            values = cell.values(metric)
            axes.vlines(epsilon, min(values), max(values), color=colour)
            filled = colour if epsilon < nowhere else "none"  # hollow: no ε holds
            (mark,) = axes.plot(
                epsilon, mean(values), marker, color=colour, markerfacecolor=filled, markersize=6.5
            )
            whose, title = of_whom([panel]), (_METRICS | _OF_FINDINGS)[metric]
            printed = f"ε {printed_epsilon(epsilon)} of {whose}" if epsilon < nowhere else "no ε"
            where = f" ({panel.setup})" if panel.setup else ""
            chart.tell(mark, f"{column.title}{where}: {title} {mean(values):.3f}, {printed}")
            if metric == "accuracy" and cell.poster:
                shape = "*" if cell.picked_on_test else "x"
                (mark,) = axes.plot(nowhere, cell.poster.accuracy, shape, color=INK, markersize=7)
                chart.tell(
                    mark, f"{column.title}: the poster's accuracy {cell.poster.accuracy:.3f}, no ε"
                )
    floor = panel.majority("test")
    if metric == "accuracy" and floor is not None:
        axes.axhline(floor, color=RULE, linestyle=(0, (4, 3)), linewidth=1.2)


def _ticks(axes: Axes, low: float, high: float, nowhere: float) -> None:
    decades = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    ticks = [10.0**decade for decade in decades]
    if len(ticks) < 3:
        below = math.floor(math.log10(low))
        finer = [step * 10.0**decade for decade in range(below, below + 4) for step in (1, 2, 5)]
        ticks = [tick for tick in finer if low <= tick <= high]
    axes.set_xticks([*ticks, nowhere], [*(f"{tick:g}" for tick in ticks), "no ε"])


def _words(panels: Sequence[Panel], points: Sequence[tuple[int, Sequence[_Point]]]) -> str:
    parts = []
    for number, of in points:
        where = f" in set-up {number + 1}" if len(panels) > 1 else ""
        for epsilon, column, cell in of:
            value = cell.mean_of("auroc")
            if value is not None:
                holds = f"ε {printed_epsilon(epsilon)}" if math.isfinite(epsilon) else "no ε"
                parts.append(f"{column.title} {value:.3f} at {holds}{where}")
    setups = [f"Set-up {n}: {panel.setup}." for n, panel in enumerate(panels, 1) if panel.setup]
    return " ".join([f"AUROC: {'; '.join(parts)}.", *setups])


def _legend(
    panels: Sequence[Panel], points: Sequence[tuple[int, Sequence[_Point]]]
) -> list[Line2D]:
    mechanisms = dict.fromkeys(c.mechanism for _, of in points for _, c, _ in of)
    handles = [
        Line2D([], [], ls="", marker=MARKERS[m], color=COLOURS[m], label=TITLES[m])
        for m in mechanisms
    ]
    if len(panels) > 1:
        handles += [
            Line2D([], [], color=INK, ls=LINES[number % len(LINES)], label=f"set-up {number + 1}")
            for number, of in points
            if of
        ]
    if not all(panel.multilabel for panel in panels):
        handles.append(Line2D([], [], color=RULE, ls=(0, (4, 3)), label="majority class"))
    if any(cell.poster for _, of in points for _, _, cell in of):
        handles.append(Line2D([], [], ls="", marker="x", color=INK, label="poster"))
        handles.append(Line2D([], [], ls="", marker="*", color=INK, label="… picked on test"))
    return handles
