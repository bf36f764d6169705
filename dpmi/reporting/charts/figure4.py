"""Figure 4 as a picture: each cell with its interval, beside the poster's, above the floor."""

from __future__ import annotations

import textwrap
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

_INCHES_A_CELL, _INCHES_A_LINE, _CELLS_A_LINE = 1.2, 3.7, 8
_LETTERS, _LETTER = 16, 0.07  # of a label: fewest that fit under a cell, and inches of one
_LABEL_LINES, _LABEL_LINE = 6, 0.165  # under a panel of that height, and inches of one more
_SHIFT = {"train": -0.26, "test": -0.08}
_POSTER_SHIFT = 0.34
_BEST = "best epoch on test"


def figure4_chart(panels: Sequence[Panel], name: str = "figure4") -> Chart:
    """A line or more a panel: train (hollow) and test (filled), the poster's, the majority class.

    Args:
        panels: at least one.
        name: of the chart.
    """
    lines = [(panel, columns) for panel in panels for columns in _lines(panel)]
    longest = max(4, *(len(columns) for _, columns in lines))
    labels = [_labels(panel, columns) for panel, columns in lines]
    words = [line for of in labels for label in of for line in label.split("\n")]
    cell = max(_INCHES_A_CELL, _LETTER * (1 + max(map(len, words))))
    more = max(0, max(label.count("\n") + 1 for of in labels for label in of) - _LABEL_LINES)
    width, height = 1.1 + cell * longest, (_INCHES_A_LINE + _LABEL_LINE * more) * len(lines)
    figure, axes = new_figure(len(lines), 1, width, height, share_y=True)
    titles = ", ".join(panel.title for panel in panels)
    measures = " and ".join(dict.fromkeys(panel.measure for panel in panels))
    heading = f"{measures[:1].upper()}{measures[1:]} by mechanism and β: {titles}"
    chart = Chart(name, heading, _words(panels), figure)
    lows = [62.0]
    for (each,), (panel, columns), below in zip(axes, lines, labels, strict=True):
        lows += _line(chart, each, panel, columns, below)
        each.set_xlim(-0.5, longest - 0.5)
    axes[0][0].set_ylim(min(lows) - 3, 101.5)
    return chart


def _lines(panel: Panel) -> list[list[Column]]:
    """All in one line, or those that hold apart from those as published, and no line too long."""
    columns = list(panel.columns)
    if len(columns) <= _CELLS_A_LINE:
        return [columns]
    published = [column for column in columns if column.mechanism.endswith("_published")]
    honest = [column for column in columns if column not in published]
    return [
        some[at : at + _CELLS_A_LINE]
        for some in (honest, published)
        for at in range(0, len(some), _CELLS_A_LINE)
    ]


def _line(
    chart: Chart, axes: Axes, panel: Panel, columns: Sequence[Column], labels: Sequence[str]
) -> list[float]:
    lows: list[float] = []
    tests = [panel.columns[column]["test"] for column in columns]
    for x, column in enumerate(columns):
        for split, cell in panel.columns[column].items():
            lows += _cell(chart, axes, x, column, cell, split)
        test = tests[x]
        if not test.accuracies:
            axes.annotate(
                test.status, (x, 0.5), ha="center", va="center", rotation=90, color=BAD,
                xycoords=("data", "axes fraction"),
            )  # fmt: skip
        if test.poster is not None:
            lows += _poster(chart, axes, x, column, test)
    floor = panel.majority("test")
    headline(axes, panel.title, above=legend_above(axes, _legend(axes, tests, floor, panel.splits)))
    axes.set_xticks(range(len(labels)), labels)
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel(f"{panel.measure} (%)")
    axes.grid(visible=False, axis="x")
    return lows


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


def _legend(
    axes: Axes, tests: Sequence[Cell], floor: float | None, splits: Sequence[str]
) -> list[Artist]:
    fills = {"train": ("train", "#ffffff"), "test": ("test, last epoch", MUTED)}
    handles: list[Artist] = [
        Line2D([], [], ls="", marker="o", color=MUTED, mfc=fills[split][1], label=fills[split][0])
        for split in splits
    ]
    if any(cell.best_on_test is not None for cell in tests):
        handles.append(Line2D([], [], ls="", marker="*", color=MUTED, mfc="#ffffff", label=_BEST))
    if any(cell.poster for cell in tests):
        handles.append(Line2D([], [], ls="", marker="x", color=INK, label="poster"))
        if any(cell.picked_on_test for cell in tests):
            label = "poster, picked on test"
            handles.append(Line2D([], [], ls="", marker="*", color=INK, label=label))
        handles.append(Line2D([], [], ls="", marker="_", color=INK, label="authors' last epoch"))
    if floor is not None:
        line = axes.axhline(100 * floor, color=RULE, linestyle=(0, (4, 3)), linewidth=1.3)
        line.set_label(f"majority class, {100 * floor:.1f} %")
        handles.append(line)
    return handles


def _labels(panel: Panel, columns: Sequence[Column]) -> list[str]:
    """Under each cell its title and then its guarantee, which begins at the same line in all."""
    titles = [_wrapped(column.title) for column in columns]
    most = max(map(len, titles))
    labels = []
    for column, title in zip(columns, titles, strict=True):
        promise = panel.columns[column]["test"].promise
        below = [line for part in promise for line in _wrapped(part)]
        labels.append("\n".join([*title, *[""] * (most - len(title)), *below]).rstrip())
    return labels


def _wrapped(text: str) -> list[str]:
    """Lines that fit under a cell, but for a word that is longer; a long KEY=VALUE takes two."""
    lines: list[str] = []
    for part in text.replace(" (", "\n(").split("\n"):
        words = [w.replace("=", "= ") if len(w) > _LETTERS else w for w in part.split()]
        lines += textwrap.wrap(
            " ".join(words), _LETTERS, break_long_words=False, break_on_hyphens=False
        )
    return lines


def tip(column: Column, cell: Cell) -> str:
    """What is shown when a cell is pointed at: its accuracy, its guarantee, its runs."""
    if cell.mean is None:
        return "; ".join([f"{column.title}, {cell.split}: {cell.status}", *cell.failures])
    parts = [f"{column.title}, {cell.split}: {cell.accuracy}"]
    if cell.interval:
        over = f"{cell.interval.n} {cell.interval.over}"
        parts.append(f"95 % interval {interval_text(cell.interval)} over {over}")
        if cell.interval.over == "seeds" and cell.image_interval:
            alone = interval_text(cell.image_interval)
            parts.append(f"what {cell.images} images alone leave open: {alone}")
    elif len(cell.accuracies) > 1:
        parts.append("no interval: the runs share a seed")
    parts.append(" ".join(cell.promise))
    parts += [f"run {run.run}, digest {run.config_digest}" for run in cell.completed]
    return "; ".join([*parts, *cell.stopped, *cell.failures])


def _words(panels: Sequence[Panel]) -> str:
    sentences = []
    for panel in panels:
        cells = "; ".join(
            f"{column.title} {by_split['test'].accuracy}"
            for column, by_split in panel.columns.items()
        )
        floor = panel.majority("test")
        guess = f", majority class {100 * floor:.1f} %" if floor is not None else ""
        sentences.append(f"{panel.title}, test {panel.measure}{guess}: {cells}.")
    return " ".join(sentences)
