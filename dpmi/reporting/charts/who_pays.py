"""Who pays, as a picture: each group's balanced accuracy in each cell, with its interval."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.lines import Line2D

from dpmi.reporting.cells import TITLES, Panel
from dpmi.reporting.charts.style import (
    COLOURS,
    GRID,
    MARKERS,
    Chart,
    legend_above,
    new_figure,
)
from dpmi.reporting.who_pays import BY, Group

MOST = 12  # groups in a picture: the largest
_LONGEST = 22  # letters of a group's name
_STEP = 0.24  # inches a cell


def who_pays_chart(panel: Panel, column: str, groups: Sequence[Group], name: str) -> Chart:
    """A row a group and cell.

    Args:
        panel: whose cells these are.
        column: what the images were grouped by.
        groups: of that column, one or more.
        name: of the chart.
    """
    sizes = {group.name: group.images for group in groups}
    chosen = sorted(sorted(sizes, key=lambda g: -sizes[g])[:MOST])
    shown = [group for group in groups if group.name in chosen]
    cells = list(dict.fromkeys(sorted(group.cell for group in shown)))
    rows = len(chosen) * (len(cells) + 1) - 1
    figure, ((axes,),) = new_figure(1, 1, 3.75, 1.1 + _STEP * max(rows, 5))
    chart = Chart(
        name,
        f"Balanced accuracy by {column}: {panel.title}",
        "; ".join(_words(group) for group in shown) + ".",
        figure,
    )
    middles = []
    for block, group_name in enumerate(chosen):
        start = block * (len(cells) + 1)
        middles.append(start + (len(cells) - 1) / 2)
        if block:
            axes.axhline(start - 1, color=GRID, linewidth=1)
        for group in (g for g in shown if g.name == group_name):
            y, its = start + cells.index(group.cell), group.measures[BY]
            if its.value is None or its.low is None or its.high is None:
                continue
            colour = COLOURS[group.cell.mechanism]
            axes.hlines(y, 100 * its.low, 100 * its.high, color=colour, linewidth=1.4)
            (mark,) = axes.plot(
                100 * its.value, y, MARKERS[group.cell.mechanism], color=colour, markersize=6.5,
                markerfacecolor="#ffffff" if group.is_small else colour,
            )  # fmt: skip
            chart.tell(mark, _words(group))
            if group.cell.beta:
                axes.annotate(
                    f"β={group.cell.beta:g}", (100 * its.high, y), (4, 0), fontsize="x-small",
                    textcoords="offset points", va="center", color=colour, annotation_clip=False,
                )  # fmt: skip
    axes.set_yticks(middles, [_label(group_name, sizes[group_name]) for group_name in chosen])
    axes.grid(visible=False, axis="y")
    axes.set_ylim(rows - 0.4, -0.6)
    axes.set_xlabel("balanced accuracy on test images (%)")
    legend_above(
        axes,
        [
            Line2D([], [], ls="", marker=MARKERS[m], color=COLOURS[m], label=TITLES[m])
            for m in dict.fromkeys(cell.mechanism for cell in cells)
        ],
    )
    return chart


def _label(name: str, images: int) -> str:
    short = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
    few = short.replace("$", r"\$")  # a dollar would begin a formula
    return f"{few}\n{images} image{'' if images == 1 else 's'}"


def _words(group: Group) -> str:
    its, loss = group.measures[BY], group.loss
    ends = (
        ""
        if its.low is None or its.high is None
        else f" ({100 * its.low:.1f}–{100 * its.high:.1f})"
    )
    lost = "" if loss is None else f", {100 * loss.value:+.1f} points lost"
    return f"{group.title}, {group.cell.title}: {group.shown(BY, '{:.1%}')}{ends}{lost}"
