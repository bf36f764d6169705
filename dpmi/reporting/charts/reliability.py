"""Calibration: a reliability diagram per mechanism."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.lines import Line2D

from dpmi.models.names import BINS
from dpmi.reporting.cells import TITLES, Column, Panel
from dpmi.reporting.charts.style import (
    COLOURS,
    LINES,
    MUTED,
    RULE,
    Chart,
    headline,
    legend_on_top,
    new_figure,
)
from dpmi.run.records.record import RunRecord

Bin = tuple[float, float, int]  # mean confidence, accuracy, images


def reliability_chart(panel: Panel, name: str) -> Chart | None:
    """Accuracy over confidence on the test images (Guo et al. 2017, arXiv 1706.04599, figure 1).

    None where no record has any.
    """
    by_mechanism: dict[str, list[tuple[Column, list[RunRecord]]]] = {}
    for column, by_split in panel.columns.items():
        runs = [run for run in by_split["test"].completed if run.reliability]
        if runs:
            by_mechanism.setdefault(column.mechanism, []).append((column, runs))
    if not by_mechanism:
        return None
    figure, (row,) = new_figure(
        1, len(by_mechanism), 1 + 2.6 * max(len(by_mechanism), 2), 3.6, share_x=True, share_y=True
    )
    betas = sorted({c.beta for cells in by_mechanism.values() for c, _ in cells if c.beta})
    line = {beta: LINES[number % len(LINES)] for number, beta in enumerate(betas)}
    errors = []
    for axes, (mechanism, cells) in zip(row, by_mechanism.items(), strict=True):
        headline(axes, TITLES[mechanism], COLOURS[mechanism])
        axes.plot([0, 1], [0, 1], color=RULE, linestyle=(0, (4, 3)), linewidth=1.2)
        for column, runs in cells:
            bins = pooled([run.reliability for run in runs])
            axes.plot(
                [confidence for confidence, _, _ in bins], [right for _, right, _ in bins],
                linestyle=line.get(column.beta, "-"), color=COLOURS[mechanism], marker=".",
                linewidth=1.5,
            )  # fmt: skip
            errors.append(f"{column.title} {panel.columns[column]['test'].ece}")
        axes.set_xlabel("confidence")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
    row[0].set_ylabel("test accuracy")
    handles = [Line2D([], [], color=MUTED, ls=ls, label=f"β={beta:g}") for beta, ls in line.items()]
    handles.append(Line2D([], [], color=RULE, ls=(0, (4, 3)), label="as accurate as confident"))
    legend_on_top(figure, handles)
    words = "Test images of all runs; mean calibration error: " + ", ".join(errors) + "."
    return Chart(name, f"Reliability: {panel.title}", words, figure)


def pooled(runs: Sequence[Sequence[Bin]]) -> list[Bin]:
    """The bins of several runs, bin by bin."""
    found: dict[int, list[Bin]] = {}
    for one in (one for bins in runs for one in bins):
        found.setdefault(int(BINS * one[0]), []).append(one)
    together = []
    for _, members in sorted(found.items()):
        images = sum(count for _, _, count in members)
        confidence, right = (sum(m[part] * m[2] for m in members) / images for part in (0, 1))
        together.append((confidence, right, images))
    return together
