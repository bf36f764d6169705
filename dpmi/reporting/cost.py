"""What each cell cost: time and memory, beside the same training without privacy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean

from dpmi.reporting.cells import Column, Panel
from dpmi.reporting.charts.style import COLOURS, INK, Chart, new_figure
from dpmi.run.records.record import RunRecord


@dataclass(frozen=True)
class Cost:
    """Of one cell; means over its completed runs.

    Attributes:
        column: which.
        device: what it ran on.
        steps: seconds in training steps.
        total: seconds of the whole run, data and evaluation too.
        memory: peak, in MB; None where it was not measured.
        slowdown, memory_ratio: to the original of the same seed on the same device; None where
            there is none.
    """

    column: Column
    device: str
    steps: float
    total: float
    memory: float | None
    slowdown: float | None
    memory_ratio: float | None


def costs(panel: Panel) -> list[Cost]:
    """One a cell that completed."""
    originals = {
        (run.config["seed"], run.environment.get("device")): run
        for column, cells in panel.columns.items()
        if column.mechanism == "none"
        for run in cells["test"].completed
    }
    found = []
    for column, cells in panel.columns.items():
        runs = [run for run in cells["test"].completed if "steps" in run.timings]
        if not runs:
            continue
        pairs = [
            (run, originals[key])
            for run in runs
            if (key := (run.config["seed"], run.environment.get("device"))) in originals
        ]
        memory = [run.peak_memory_mb for run in runs if run.peak_memory_mb is not None]
        devices = sorted({str(run.environment.get("device")) for run in runs})
        found.append(
            Cost(
                column,
                ", ".join(devices),
                mean(_steps(run) for run in runs),
                mean(run.timings["total"] for run in runs),
                mean(memory) if memory else None,
                _ratio(pairs, _steps),
                _ratio(pairs, lambda run: run.peak_memory_mb),
            )
        )
    return found


def _steps(run: RunRecord) -> float:
    return run.timings["steps"]


def _ratio(
    pairs: Sequence[tuple[RunRecord, RunRecord]], of: Callable[[RunRecord], float | None]
) -> float | None:
    both = [(of(run), of(original)) for run, original in pairs]
    ratios = [mine / plain for mine, plain in both if mine is not None and plain]
    return mean(ratios) if ratios else None


def cost_chart(panel: Panel, found: Sequence[Cost], name: str) -> Chart | None:
    """Seconds in steps and peak memory, a bar a cell, with the ratio to the original."""
    if not found:
        return None
    figure, ((seconds, memory),) = new_figure(1, 2, 10.6, 0.9 + 0.34 * len(found), share_y=True)
    places = range(len(found))
    colours = [COLOURS[cost.column.mechanism] for cost in found]
    for axes, values, ratios, label in (
        (seconds, [c.steps for c in found], [c.slowdown for c in found], "seconds in steps"),
        (memory, [c.memory or 0 for c in found], [c.memory_ratio for c in found], "peak MB"),
    ):
        axes.barh(places, values, color=colours, height=0.62)
        for y, value, ratio in zip(places, values, ratios, strict=True):
            if ratio is not None:
                axes.annotate(
                    f"× {ratio:.2f}", (value, y), (4, 0), textcoords="offset points",
                    va="center", fontsize="small", color=INK,
                )  # fmt: skip
        axes.set_xlim(0, max([*values, 1e-9]) * 1.22)
        axes.set_xlabel(label)
        axes.grid(visible=False, axis="y")
    seconds.set_yticks(places, [cost.column.title for cost in found])
    seconds.invert_yaxis()
    words = "; ".join(
        f"{c.column.title} {c.steps:.1f} s in steps"
        + (f", {c.slowdown:.2f} times the original" if c.slowdown else "")
        + (f", {c.memory:.0f} MB" if c.memory is not None else "")
        for c in found
    )
    return Chart(name, f"Time and memory: {panel.title}", words + ".", figure)
