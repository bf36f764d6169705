"""Figure 4 as a picture: each cell, beside the poster's and above the majority class."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dpmi.reporting.table import Cell, Column, Figure4

_COLOURS = {
    "none": "#444444",
    "ldp": "#b35806",
    "dpsgd": "#2166ac",
    "ldp_published": "#e0a060",  # paler than what holds
    "dpsgd_published": "#8ab6d6",
}
_INCHES_A_CELL, _INCHES_A_DATASET = 1.15, 3.6
_MARKS = {"train": ("o", "white"), "test": ("o", None)}  # hollow and filled


def save_plot(cells: Figure4, path: Path) -> None:
    """Draw one panel a data set and save it in the format of the path's suffix.

    Args:
        cells: Figure 4, with at least one data set.
        path: where to.
    """
    widest = max(len(columns) for columns in cells.values())
    figure = Figure(
        figsize=(1.2 + _INCHES_A_CELL * max(widest, 4), _INCHES_A_DATASET * len(cells)),
        layout="constrained",
    )
    panels = figure.subplots(len(cells), 1, squeeze=False)[:, 0]
    for axes, (dataset, columns) in zip(panels, cells.items(), strict=True):
        _panel(axes, dataset, columns)
    figure.savefig(path)


def _panel(axes: Axes, dataset: str, columns: dict[Column, dict[str, Cell]]) -> None:
    for x, (column, by_split) in enumerate(columns.items()):
        colour = _COLOURS[column.mechanism]
        for split, cell in by_split.items():
            shape, face = _MARKS[split]
            if cell.accuracies:
                y = 100 * mean(cell.accuracies)
                axes.plot(x, y, shape, color=colour, markerfacecolor=face or colour, markersize=9)
                if split == "test":
                    axes.annotate(
                        f"{y:.1f}", (x, y), (9, 0), textcoords="offset points", va="center"
                    )
        test = by_split["test"]
        if not test.accuracies:
            axes.annotate(test.accuracy, (x, 50), ha="center", color="#b2182b")
        if test.poster is not None:
            axes.plot(x, 100 * test.poster, "x", color="black", markersize=7)
    floor = _majority_rate([cell for by_split in columns.values() for cell in by_split.values()])
    handles = [
        axes.plot([], [], "o", color="gray", markerfacecolor="white", label="train (not private)")[
            0
        ],
        axes.plot([], [], "o", color="gray", label="test, last epoch")[0],
    ]
    if any(by_split["test"].poster is not None for by_split in columns.values()):
        handles += axes.plot([], [], "x", color="black", label="the poster's test accuracy")
    if floor is not None:
        label = f"majority class of the test images, {100 * floor:.1f} %"
        handles.append(axes.axhline(100 * floor, color="gray", linestyle=":", label=label))
    axes.set_xticks(
        range(len(columns)),
        [
            "\n".join(
                [
                    column.title.replace(" as published ", "\nas published\n"),
                    *by_split["test"].promise,
                ]
            )
            for column, by_split in columns.items()
        ],
    )
    axes.set_xlim(-0.5, len(columns) - 0.3)
    axes.set_ylim(min(45.0, *axes.get_ylim()), 101)
    axes.set_ylabel("accuracy (%)")
    axes.set_title(dataset, loc="left")
    axes.grid(axis="y", color="#dddddd")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(  # above the panel, where no point can be
        handles=handles, loc="lower right", bbox_to_anchor=(1, 1), fontsize="small", frameon=False,
        ncols=len(handles), handletextpad=0.3, columnspacing=1.2, borderaxespad=0,
    )  # fmt: skip


def _majority_rate(cells: list[Cell]) -> float | None:
    """Share of the largest class of the test images; what guessing it would score."""
    for cell in cells:
        for run in cell.runs:
            counts = ((run.data or {}).get("class_counts") or {}).get("test")
            if counts:
                return max(counts.values()) / sum(counts.values())
    return None
