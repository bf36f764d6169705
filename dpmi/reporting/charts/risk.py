"""The bound on any attacker: true positive rate over false positive rate."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from dpmi.privacy.risk import Risk
from dpmi.privacy.tradeoff import LEAST_RATE
from dpmi.reporting.cells import TITLES, Column, Panel
from dpmi.reporting.charts.style import (
    COLOURS,
    INK,
    LINES,
    MUTED,
    RULE,
    Chart,
    LineStyle,
    headline,
    legend_on_top,
    new_figure,
)
from dpmi.reporting.risk import CellRisk, bound

_DASHED = (0, (4, 3))


def risk_chart(panel: Panel, found: Sequence[CellRisk], name: str) -> Chart | None:
    """A row a unit, linear axes on the left and logarithmic on the right; None without any bound.

    On logarithmic axes is seen whom an attacker can name and seldom err (Carlini et al. 2022).
    """
    of_unit: dict[str, list[tuple[Column, Risk]]] = {}
    for its in found:
        for risk in its.risks:
            of_unit.setdefault(risk.unit, []).append((its.column, risk))
    if not of_unit:
        return None
    figure, rows = new_figure(len(of_unit), 2, 10.6, 0.8 + 3.3 * len(of_unit))
    betas = sorted({column.beta for cells in of_unit.values() for column, _ in cells})
    line = {beta: LINES[number % len(LINES)] for number, beta in enumerate(betas)}
    chart = Chart(name, f"What an attacker can do at most: {panel.title}", "", figure)
    for (unit, cells), (linear, logarithmic) in zip(of_unit.items(), rows, strict=True):
        for axes in (linear, logarithmic):
            _draw(axes, cells, line)
        headline(linear, f"one {unit}", INK)
        headline(logarithmic, "the same, where he seldom errs", INK)
        _mark(chart, logarithmic, cells)
        for scale in (logarithmic.set_xscale, logarithmic.set_yscale):
            scale("log")
        for limits in (logarithmic.set_xlim, logarithmic.set_ylim):
            limits(LEAST_RATE, 1.15)
        linear.set_ylabel("true positive rate")
    for axes in rows[-1]:
        axes.set_xlabel("false positive rate")
    legend_on_top(figure, _legend(of_unit, line))
    chart.description = "; ".join(
        f"{column.title}, {risk.unit} ({risk.adjacency}): best guess right in "
        f"{bound(risk.accuracy)} of 100, true positive rate "
        f"{bound(risk.true_positive_rates['0.01'])} % at a false positive rate of 1 %"
        for cells in of_unit.values()
        for column, risk in cells
    )
    return chart


def _draw(axes: Axes, cells: Sequence[tuple[Column, Risk]], line: dict[float, LineStyle]) -> None:
    axes.plot([0, 1e-9, 1], [0, 1e-9, 1], color=RULE, linestyle=_DASHED, linewidth=1.2)
    for column, risk in cells:
        rates, powers = zip(*risk.curve, strict=True)
        colour, style = COLOURS[column.mechanism], line[column.beta]
        axes.plot(rates, powers, color=colour, linestyle=style, linewidth=1.5)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)


def _mark(chart: Chart, axes: Axes, cells: Sequence[tuple[Column, Risk]]) -> None:
    for column, risk in cells:
        for rate, power in risk.true_positive_rates.items():
            (mark,) = axes.plot(
                float(rate), power, "o", color=COLOURS[column.mechanism], markersize=4.5
            )
            chart.tell(
                mark,
                f"{column.title}, {risk.unit} ({risk.adjacency}): true positive rate at most "
                f"{bound(power)} % at a false positive rate of {100 * float(rate):g} %",
            )


def _legend(
    of_unit: dict[str, list[tuple[Column, Risk]]], line: dict[float, LineStyle]
) -> list[Line2D]:
    mechanisms = {
        column.mechanism: risk.adjacency for cells in of_unit.values() for column, risk in cells
    }
    return [
        *(
            Line2D([], [], color=COLOURS[name], label=f"{TITLES[name]} ({adjacency})")
            for name, adjacency in mechanisms.items()
        ),
        *(Line2D([], [], color=MUTED, ls=ls, label=f"β={beta:g}") for beta, ls in line.items()),
        Line2D([], [], color=RULE, ls=_DASHED, label="chance"),
    ]
