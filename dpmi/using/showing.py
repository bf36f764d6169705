"""An evaluation on the screen."""

from __future__ import annotations

import math
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dpmi.models.groups import Measured, Subgroup
from dpmi.models.names import UNDEFINED
from dpmi.using.evaluation import Evaluation

_NAMES = {
    "auroc": "AUROC",
    "average_precision": "average precision",
    "balanced_accuracy": "balanced accuracy",
    "ece": "calibration error",
}


def show(found: Evaluation, path: Path, console: Console) -> None:
    """Print what was found, what covers it, and where it is."""
    whose = f" of {found.patients} patients" if found.patients else ""
    which = "the run's own test images" if found.own else f"data={found.dataset}"
    counts = ", ".join(
        f"{n} {name}" for name, n in found.class_counts.items() if name not in found.not_labelled
    )
    _say(console, f"{found.run} on {which}: {found.count} images{whose} ({counts})", "bold")
    table = Table(box=None, pad_edge=False)
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("95 %, over " + ("patients" if found.patients else "images"))
    for name, value in found.metrics.items():
        its = found.intervals.get(name)
        ends = _ends(its) if its and its.value is not None else ""
        metric, _, of = name.partition("/")
        title = _NAMES.get(metric, metric) + (f" of {of}" if of else "")
        table.add_row(Text(title), _number(value), ends)
    console.print(table)
    if found.groups:
        console.print(_groups(found.groups))
        if worst := found.worst_groups.get("auroc") or found.worst_groups.get("accuracy"):
            name = "AUROC" if "auroc" in found.worst_groups else "accuracy"
            _say(console, f"least {name}: {worst.group}, {worst.value:.3f}")
    if names := ", ".join(found.not_labelled):
        _say(
            console,
            f"these images have no labels of {names}: these metrics are undefined",
            "yellow",
        )
    if found.skipped:
        _say(console, f"{found.skipped} images cannot be decoded and were left out", "yellow")
    if found.trained_on:
        _say(
            console,
            f"{found.trained_on} of these images were trained on: the figures flatter the model, "
            "and tell about training images, which no ε covers",
            "red",
        )
    elif found.trained_on is None:
        _say(console, "whether the run was trained on some of these images is not known", "yellow")
    spent = "; nothing more was spent" if found.guarantee.epsilon is not None else ""
    _say(console, f"training images: {found.guarantee}{spent}")
    _say(console, f"these images: no guarantee covers the figures; {path} is private", "yellow")


def _groups(groups: list[Subgroup]) -> Table:
    table = Table(box=None, pad_edge=False)
    measured = list(groups[0].measures)
    for heading in ("group", "images", *(_NAMES.get(name, name) for name in measured)):
        table.add_column(heading, justify="left" if heading == "group" else "right")
    for group in groups:
        small = " (few)" if group.is_small else ""
        measures = (group.measures[name] for name in measured)
        table.add_row(
            Text(group.title + small), str(group.images), *(_with_ends(its) for its in measures)
        )
    return table


def _number(value: float) -> str:
    return UNDEFINED if math.isnan(value) else f"{value:.4f}"


def _with_ends(its: Measured) -> str:
    return UNDEFINED if its.value is None else f"{its.value:.3f}\n{_ends(its)}"


def _ends(its: Measured) -> str:
    if its.low is None or its.high is None:
        return ""
    return f"{its.low:.3f}–{its.high:.3f}"


def _say(console: Console, words: str, style: str = "") -> None:
    console.print(Text(words, style), soft_wrap=True)
