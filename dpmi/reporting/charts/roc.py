"""What a membership attack gets right, beside the most that a guarantee allows."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from dpmi.attacking.result import Attacks, Roc
from dpmi.reporting.cells import TITLES
from dpmi.reporting.charts.style import (
    COLOURS,
    LINES,
    MUTED,
    RULE,
    Chart,
    LineStyle,
    headline,
    legend_on_top,
    new_figure,
)

_LEAST = 1e-4  # false positive rate that is shown
_BOUND = (0, (1, 1.5))


def roc_chart(attacks: Sequence[Attacks], name: str) -> Chart | None:
    """True over false positive rate on logarithmic axes, a panel a score (Carlini et al. 2022).

    Args:
        attacks: on runs of one data set, on images or on patients.
        name: of the chart.

    Returns:
        None where membership was not attacked.
    """
    tried = [(each, each.membership) for each in attacks if each.membership]
    if not tried:
        return None
    figure, (row,) = new_figure(1, 2, 9.2, 4.6, share_x=True, share_y=True)
    betas = sorted({each.beta for each, _ in tried if each.beta})
    line = {beta: LINES[number % len(LINES)] for number, beta in enumerate(betas)}
    for panel, axes in enumerate(row):
        for each, found in tried:
            colour, style = COLOURS[each.mechanism], line.get(each.beta, "-")
            _curve(axes, found.rocs[panel], colour, style)
            if found.promised:
                points = [point for point in found.promised if point[0] >= _LEAST]
                axes.plot(*zip(*points, strict=True), color=colour, linestyle=_BOUND, linewidth=1.8)
        axes.plot([_LEAST, 1], [_LEAST, 1], color=RULE, linewidth=0.8)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(_LEAST, 1)
        axes.set_ylim(_LEAST, 1)
        axes.set_xlabel("false positive rate")
        headline(axes, tried[0][1].rocs[panel].score)
    row[0].set_ylabel("true positive rate")
    legend_on_top(figure, _legend([each for each, _ in tried], line))
    words = "; ".join(
        f"{_title(each)}: AUC {roc.auc} by {roc.score}" for each, found in tried
        for roc in found.rocs
    )  # fmt: skip
    dataset, unit = tried[0][0].dataset, tried[0][1].unit
    return Chart(name, f"Membership attacks on {unit}s: {dataset}", f"{words}.", figure)


def _curve(axes: Axes, roc: Roc, colour: str, style: LineStyle) -> None:
    points = [point for point in roc.curve if point[0] >= _LEAST]
    false, true, low, high = zip(*points, strict=True)
    axes.fill_between(false, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.plot(false, true, color=colour, linestyle=style, linewidth=1.5)


def _title(each: Attacks) -> str:
    beta = f" β={each.beta:g}" if each.beta else ""
    return f"{TITLES[each.mechanism]}{beta}"


def _legend(tried: Sequence[Attacks], line: dict[float, LineStyle]) -> list[Line2D]:
    handles = [
        Line2D([], [], color=COLOURS[mechanism], label=TITLES[mechanism])
        for mechanism in dict.fromkeys(each.mechanism for each in tried)
    ]
    handles += [
        Line2D([], [], color=MUTED, ls=style, label=f"β={beta:g}") for beta, style in line.items()
    ]
    if any(each.membership and each.membership.promised for each in tried):
        handles.append(Line2D([], [], color=MUTED, ls=_BOUND, lw=1.8, label="at most, as promised"))
    return [*handles, Line2D([], [], color=RULE, lw=0.8, label="by guessing")]
