"""Learning curves: ours and the authors'."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean

from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dpmi.reporting.cells import TITLES, Column, Panel
from dpmi.reporting.charts.style import (
    COLOURS,
    INK,
    LINES,
    MUTED,
    RULE,
    Chart,
    headline,
    legend_above,
    legend_on_top,
    new_figure,
)  # fmt: skip
from dpmi.reporting.poster import BETAS, TEST_MAJORITY, published
from dpmi.run.records.record import RunRecord

_ROWS = {
    "val/accuracy": "validation (%)",
    "val/auroc": "validation AUROC (%)",
    "nonprivate/accuracy": "train, at the step (%)",
    "nonprivate/loss": "train loss, at the step",
    "test/accuracy": "test (%)",
    "epsilon": "ε spent",
}
_AS_THEY_ARE = ("epsilon", "nonprivate/loss")  # the others are in per cent


def curves_chart(panel: Panel, name: str) -> Chart | None:
    """A column a mechanism, a row a curve; None where no record has any."""
    by_mechanism: dict[str, list[tuple[Column, list[RunRecord]]]] = {}
    for column, by_split in panel.columns.items():
        runs = [run for run in by_split["test"].completed if run.curves]
        if runs:
            by_mechanism.setdefault(column.mechanism, []).append((column, runs))
    rows = [r for r in _ROWS if any(r in run.curves for run in panel.runs)]
    if not by_mechanism or not rows:
        return None
    figure, axes = new_figure(
        len(rows), len(by_mechanism), 1 + 2.6 * max(len(by_mechanism), 2), 0.9 + 1.75 * len(rows),
        share_x=True, share_y="row",
    )  # fmt: skip
    epochs = max(len(curve) for run in panel.runs for curve in run.curves.values())
    betas = sorted({c.beta for c in panel.columns if c.mechanism != "none"})
    line = {beta: LINES[number % len(LINES)] for number, beta in enumerate(betas)}
    texts = []
    for x, (mechanism, cells) in enumerate(by_mechanism.items()):
        headline(axes[0][x], TITLES[mechanism], COLOURS[mechanism])
        for column, runs in cells:
            for y, row in enumerate(rows):
                curve = mean_curve([run.curves[row] for run in runs if row in run.curves])
                if not curve:
                    continue
                scale, unit = (1, "") if row in _AS_THEY_ARE else (100, " %")
                axes[y][x].plot(
                    range(1, len(curve) + 1), [scale * value for value in curve],
                    linestyle=line.get(column.beta, "-"), color=COLOURS[mechanism], linewidth=1.5,
                    marker="." if len(curve) < 12 else "",
                )  # fmt: skip
                if row == rows[0]:
                    texts.append(f"{column.title} ends at {scale * curve[-1]:.1f}{unit} ({row})")
        if "epsilon" in rows:
            promise = cells[0][1][-1].guarantee
            of = f"per {promise.unit}" if promise and promise.unit else "no ε"
            axes[rows.index("epsilon")][x].set_title(of, loc="right", fontsize=8.5, color=MUTED)
        axes[-1][x].set_xlabel("epoch")
        axes[-1][x].set_xlim(0.5, epochs + 0.5)
        axes[-1][x].xaxis.set_major_locator(MaxNLocator(integer=True))
    for y, row in enumerate(rows):
        axes[y][0].set_ylabel(_ROWS[row])
    handles = [Line2D([], [], color=MUTED, ls=ls, label=f"β={beta:g}") for beta, ls in line.items()]
    if handles:
        legend_on_top(figure, handles)
    title = f"Learning curves: {panel.title}"
    words = "Mean over seeds after each epoch. " + "; ".join(texts) + "."
    return Chart(name, title, words, figure)


def mean_curve(curves: Sequence[Sequence[float]]) -> list[float]:
    """Mean over runs epoch by epoch, of those that have a number; as long as the longest."""
    longest = max((len(curve) for curve in curves), default=0)
    by_epoch = [
        [c[e] for c in curves if e < len(c) and math.isfinite(c[e])] for e in range(longest)
    ]
    return [mean(values) if values else math.nan for values in by_epoch]


def authors_chart(dataset: str, name: str) -> Chart | None:
    """The authors' test accuracy by epoch, and the one that the poster printed; None elsewhere."""
    cells = {key: cell for key, cell in published().items() if key[0] == dataset}
    if not cells:
        return None
    figure, (row,) = new_figure(1, 3, 10.6, 3.2, share_y=True)
    texts = []
    for axes, mechanism in zip(row, ("none", "ldp", "dpsgd"), strict=True):
        headline(axes, TITLES[mechanism], COLOURS[mechanism], above=20)
        for number, beta in enumerate(BETAS if mechanism != "none" else (None,)):
            cell = cells[(dataset, mechanism, beta, "test")]
            axes.plot(
                range(1, len(cell.curve) + 1), [100 * value for value in cell.curve],
                linestyle=LINES[number], color=COLOURS[mechanism], linewidth=1.1,
            )  # fmt: skip
            # Of several epochs that fit, the last: it is what one would have at hand.
            epochs = reversed(range(len(cell.curve)))
            nearest = min(epochs, key=lambda e: abs(cell.curve[e] - cell.accuracy))
            shape = "*" if cell.epoch == "best" else "x"
            axes.plot(nearest + 1, 100 * cell.accuracy, shape, color=INK, markersize=8)
            of = f"{TITLES[mechanism]}{f' β={beta:g}' if beta else ''}"
            texts.append(f"{of}: printed {100 * cell.accuracy:.1f} %, last {100 * cell.last:.1f} %")
        axes.axhline(100 * TEST_MAJORITY[dataset], color=RULE, linestyle=(0, (4, 3)), lw=1.2)
        axes.set_xlabel("epoch")
    row[0].set_ylabel("authors' test accuracy (%)")
    betas = [
        Line2D([], [], color=MUTED, ls=ls, label=f"β={beta:g}")
        for ls, beta in zip(LINES[: len(BETAS)], BETAS, strict=True)
    ]
    legend_above(row[2], betas)
    marks = [Line2D([], [], ls="", marker="x", color=INK, label="printed in the poster"),
             Line2D([], [], ls="", marker="*", color=INK, label="… and best on test")]  # fmt: skip
    row[1].legend(handles=marks, loc="lower right", fontsize="small")
    title = f"The authors' own epochs: {dataset}"
    return Chart(name, title, "; ".join(texts) + ".", figure)
