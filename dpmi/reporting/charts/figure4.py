"""Figure 4 as a picture: each cell with its interval, beside the poster's, above the floor."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from dpmi.reporting.cells import Cell, Column, Panel
from dpmi.reporting.charts.style import (
    BAD,
    COLOURS,
    INK,
    MARKERS,
    MUTED,
    RULE,
    Chart,
    headline,
    legend_above,
    new_figure,
)  # fmt: skip
from dpmi.reporting.table import interval_text

_INCHES_A_CELL, _INCHES_A_PANEL = 1.2, 3.7
_SHIFT = {"train": -0.26, "test": -0.08}
_POSTER_SHIFT = 0.34
_BEST = "best epoch on test"


def figure4_chart(panels: Sequence[Panel], name: str = "figure4") -> Chart:
    """One row of cells a panel: train (hollow) and test (filled), the poster's, the majority class.

    Args:
        panels: at least one.
        name: of the chart.
    """
    widest = max(len(panel.columns) for panel in panels)
    width = 1.1 + _INCHES_A_CELL * max(widest, 4)
    figure, axes = new_figure(len(panels), 1, width, _INCHES_A_PANEL * len(panels))
    titles = ", ".join(panel.title for panel in panels)
    chart = Chart(name, f"Accuracy by mechanism and β: {titles}", _words(panels), figure)
    for (each,), panel in zip(axes, panels, strict=True):
        _panel(chart, each, panel)
    return chart


def _panel(chart: Chart, axes: Axes, panel: Panel) -> None:
    lows = [62.0]
    for x, (column, by_split) in enumerate(panel.columns.items()):
        for split, cell in by_split.items():
            lows += _cell(chart, axes, x, column, cell, split)
        test = by_split["test"]
        if not test.accuracies:
            axes.annotate(
                test.status, (x, 0.5), ha="center", va="center", rotation=90, color=BAD,
                xycoords=("data", "axes fraction"),
            )  # fmt: skip
        if test.poster is not None:
            lows += _poster(chart, axes, x, column, test)
    headline(axes, panel.title, above=legend_above(axes, _legend(axes, panel)))
    labels = [_label(column, by_split["test"]) for column, by_split in panel.columns.items()]
    axes.set_xticks(range(len(labels)), labels)
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.5, len(labels) - 0.5)
    axes.set_ylim(min(lows) - 3, 101.5)
    axes.set_ylabel("accuracy (%)")
    axes.grid(visible=False, axis="x")


def _cell(chart: Chart, axes: Axes, x: int, column: Column, cell: Cell, split: str) -> list[float]:
    if cell.mean is None:
        return []
    colour, y = COLOURS[column.mechanism], 100 * cell.mean
    at, low = x + _SHIFT[split], y
    if cell.interval:
        low, high = 100 * cell.interval.low, 100 * cell.interval.high
        axes.vlines(at, low, high, color=colour, linewidth=1.6)
        axes.hlines([low, high], at - 0.05, at + 0.05, color=colour, linewidth=1.6)
    (mark,) = axes.plot(
        at, y, MARKERS[column.mechanism], color=colour, markersize=7.5, markeredgewidth=1.6,
        markerfacecolor="#ffffff" if split == "train" else colour,
    )  # fmt: skip
    chart.tell(mark, tip(column, cell))
    if (best := cell.best_on_test) is not None:
        (mark,) = axes.plot(at, 100 * best, "*", color=colour, markersize=9, mfc="#ffffff")
        chart.tell(mark, f"{column.title}: {_BEST} {100 * best:.1f} %, picked on the test images")
    if split == "test":
        axes.annotate(f"{y:.1f}", (at, y), (8, 0), textcoords="offset points", va="center",
                      fontsize="small", weight="bold")  # fmt: skip
    return [low]


def _poster(chart: Chart, axes: Axes, x: int, column: Column, cell: Cell) -> list[float]:
    poster = cell.poster
    assert poster is not None
    y, last = 100 * poster.accuracy, 100 * poster.last
    shape = "*" if cell.picked_on_test else "x"
    (mark,) = axes.plot(x + _POSTER_SHIFT, y, shape, color=INK, markersize=8 if shape == "*" else 6)
    picked = ", picked on the test images" if cell.picked_on_test else ""
    chart.tell(mark, f"{column.title}: the poster says {y:.1f} % on test{picked}")
    (mark,) = axes.plot(x + _POSTER_SHIFT, last, "_", color=INK, markersize=9, markeredgewidth=2)
    chart.tell(mark, f"{column.title}: the authors' last epoch gave {last:.1f} % on test")
    return [y, last]


def _legend(axes: Axes, panel: Panel) -> list[Artist]:
    tests = [cells["test"] for cells in panel.columns.values()]
    handles: list[Artist] = [
        Line2D([], [], ls="", marker="o", color=MUTED, mfc="#ffffff", label="train (not private)"),
        Line2D([], [], ls="", marker="o", color=MUTED, label="test, last epoch, 95 %"),
    ]
    if any(cell.best_on_test is not None for cell in tests):
        handles.append(Line2D([], [], ls="", marker="*", color=MUTED, mfc="#ffffff", label=_BEST))
    if any(cell.poster for cell in tests):
        handles.append(Line2D([], [], ls="", marker="x", color=INK, label="poster"))
        if any(cell.picked_on_test for cell in tests):
            label = "poster, picked on test"
            handles.append(Line2D([], [], ls="", marker="*", color=INK, label=label))
        handles.append(Line2D([], [], ls="", marker="_", color=INK, label="authors' last epoch"))
    floor = panel.majority("test")
    if floor is not None:
        line = axes.axhline(100 * floor, color=RULE, linestyle=(0, (4, 3)), linewidth=1.3)
        line.set_label(f"majority class, {100 * floor:.1f} %")
        handles.append(line)
    return handles


def _label(column: Column, cell: Cell) -> str:
    title = column.title.replace(" as published ", "\nas published\n").replace(" (", "\n(")
    return "\n".join([title, *cell.promise])


def tip(column: Column, cell: Cell) -> str:
    """What a cell tells when it is pointed at: its accuracy, its guarantee, its runs."""
    if cell.mean is None:
        return "; ".join([f"{column.title}, {cell.split}: {cell.status}", *cell.failures])
    parts = [f"{column.title}, {cell.split}: {cell.accuracy}"]
    if cell.interval:
        over = f"{cell.interval.n} {cell.interval.over}"
        parts.append(f"95 % interval {interval_text(cell.interval)} over {over}")
    elif len(cell.accuracies) > 1:
        parts.append("no interval: the runs share a seed")
    parts.append(" ".join(cell.promise))
    parts += [f"run {run.run}, digest {run.config_digest}" for run in cell.completed]
    return "; ".join([*parts, *cell.failures])


def _words(panels: Sequence[Panel]) -> str:
    told = []
    for panel in panels:
        cells = "; ".join(
            f"{column.title} {by_split['test'].accuracy}"
            for column, by_split in panel.columns.items()
        )
        floor = panel.majority("test")
        guess = f", majority class {100 * floor:.1f} %" if floor is not None else ""
        told.append(f"{panel.title}, test accuracy{guess}: {cells}.")
    return " ".join(told)
