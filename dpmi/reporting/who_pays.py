"""Who pays for the privacy: what each group of test images loses to the original."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from dpmi.models.groups import MEASURES, SMALL, Measured, Subgroup
from dpmi.models.intervals import of_difference
from dpmi.models.names import UNDEFINED
from dpmi.reporting.cells import Column, Panel
from dpmi.reporting.intervals import around_mean
from dpmi.run.records.record import RunRecord

BY = "balanced_accuracy"  # what a loss is a loss of: of classes it is defined in every group
TITLES = {"auroc": "AUROC", BY: "balanced accuracy", "accuracy": "accuracy", "ece": "ECE"}
EXPLANATION = (
    "A mean over all test images hides who bears the cost of the noise. A loss is the balanced "
    "accuracy of the original, of the same seed and data, minus that of the cell. Balanced "
    "accuracy is the mean recall of the classes that a group has: in a group of one class it is "
    "accuracy, and AUROC is not defined. Of several findings it is their mean, over the findings "
    "that some images of the group show and others do not; accuracy is of classes alone."
)
INTERVALS = (
    "Intervals are of 95 %, over the patients of the test images (over the images, where patients "
    "are not known): accuracy by Wilson's score, balanced accuracy by those of its recalls, AUROC "
    "by DeLong's components, the calibration error (ECE) by a bootstrap, of 10 patients or more. "
    "For several seeds they are the mean over the runs. The interval of a loss is over seeds where "
    "there are several, which does not cover other images; else it treats the two networks as "
    f"independent, which is too wide. A group of fewer than {SMALL} images is shown, but never "
    "called the worst."
)


@dataclass(frozen=True)
class Loss:
    """What a group loses, with its 95 % interval; ends are None where runs differ in noise alone.

    Attributes:
        value, low, high: in [-1, 1]; more is worse.
        over: what was drawn anew: "seeds", "patients" or "images".
    """

    value: float
    low: float | None
    high: float | None
    over: str


@dataclass(frozen=True)
class Group:
    """One group of test images in one cell.

    Attributes:
        cell: column of the panel.
        column, name: what the images were grouped by, and the group.
        images, patients: of it; patients is None where they are not known.
        classes: those that are there.
        measures: mean over the runs in which they are defined.
        defined: in how many.
        runs: runs of the cell that have the group.
        loss: against the original; None of the original itself, and where there is none.
    """

    cell: Column
    column: str
    name: str
    images: int
    patients: int | None
    classes: tuple[str, ...]
    measures: dict[str, Measured]
    defined: dict[str, int]
    runs: int
    loss: Loss | None

    @property
    def title(self) -> str:
        """As "kind=virus"."""
        return f"{self.column}={self.name}"

    @property
    def is_small(self) -> bool:
        """Whether chance alone may make it the worst."""
        return self.images < SMALL

    def shown(self, metric: str, form: str = "{:.3f}") -> str:
        """A measure, and over how many runs, where it is not defined in all."""
        if metric not in self.measures:
            return ""
        value = self.measures[metric].value
        if value is None:
            return UNDEFINED
        few = self.defined[metric] < self.runs
        return form.format(value) + few * f" ({self.defined[metric]} of {self.runs} runs)"


@dataclass(frozen=True)
class Payer:
    """The groups of one column in one cell.

    Attributes:
        cell: column of the panel.
        column: what the images were grouped by.
        whole: loss of all test images together; None without an original.
        most: the group that loses most; None without an original.
        worst: the group that fares worst.
    """

    cell: Column
    column: str
    whole: float | None
    most: Group | None
    worst: Group | None


def groups_of(panel: Panel) -> list[Group]:
    """Each group in each cell, by column and name and then by cell."""
    originals = {
        _pair(run): run
        for column, cells in panel.columns.items()
        if column.mechanism == "none"
        for run in cells["test"].completed
    }
    found = [
        _group(column, name, [(run, its[name]) for run, its in of_runs if name in its], originals)
        for column, cells in panel.columns.items()
        for of_runs in [[(r, {g.title: g for g in r.groups}) for r in cells["test"].completed]]
        for name in dict.fromkeys(name for _, its in of_runs for name in its)
    ]
    return sorted(found, key=lambda group: (group.column, group.name, group.cell))


def payers(panel: Panel, groups: Sequence[Group]) -> list[Payer]:
    """For each column and cell who pays; groups that are small are left out."""
    found = []
    for column in dict.fromkeys(group.column for group in groups):
        for cell in panel.columns:
            its = [
                g
                for g in groups
                if (g.column, g.cell) == (column, cell)
                and not g.is_small
                and g.measures[BY].value is not None
            ]
            if not any((g.column, g.cell) == (column, cell) for g in groups):
                continue
            found.append(
                Payer(
                    cell=cell,
                    column=column,
                    whole=_whole(panel, cell),
                    most=max((g for g in its if g.loss), key=lost, default=None),
                    worst=min(its, key=balanced_accuracy, default=None),
                )
            )
    return found


def lost(group: Group) -> float:
    """The loss of a group that has one."""
    assert group.loss
    return group.loss.value


def balanced_accuracy(group: Group) -> float:
    """What a group is called the worst by."""
    value = group.measures[BY].value
    assert value is not None  # of those that are ranked
    return value


def _group(
    cell: Column,
    title: str,
    found: Sequence[tuple[RunRecord, Subgroup]],
    originals: dict[tuple[int, str | None], RunRecord],
) -> Group:
    first = found[0][1]
    pairs = [
        (group.measures[BY], its.measures[BY], run)
        for run, group in found
        if cell.mechanism != "none" and (original := originals.get(_pair(run)))
        for its in original.groups
        if its.title == title
        and group.measures[BY].value is not None
        and its.measures[BY].value is not None
    ]
    measured = [name for name in MEASURES if name in first.measures]
    over = "images" if first.patients is None else "patients"
    return Group(
        cell=cell,
        column=first.column,
        name=first.name,
        images=first.images,
        patients=first.patients,
        classes=tuple(name for name, count in first.class_counts.items() if count),
        measures={name: _mean([group.measures[name] for _, group in found]) for name in measured},
        defined={
            name: sum(group.measures[name].value is not None for _, group in found)
            for name in measured
        },
        runs=len(found),
        loss=_loss(pairs, over) if pairs else None,
    )


def _pair(run: RunRecord) -> tuple[int, str | None]:
    """What a run and its original have in common: the seed and the images."""
    return run.config["seed"], run.keyed_data


def _mean(measured: Sequence[Measured]) -> Measured:
    """Of those that are defined; its interval is the mean of theirs."""

    def of(values: Sequence[float | None]) -> float | None:
        defined = [value for value in values if value is not None]
        return mean(defined) if defined else None

    return Measured(
        of([m.value for m in measured]),
        of([m.low for m in measured]),
        of([m.high for m in measured]),
    )


def _loss(pairs: Sequence[tuple[Measured, Measured, RunRecord]], over: str) -> Loss:
    losses = [_defined(original)[0] - _defined(own)[0] for own, original, _ in pairs]
    if len(losses) == 1:
        (own, own_ends), (original, its_ends) = (_defined(m) for m in pairs[0][:2])
        return Loss(losses[0], *of_difference(original, its_ends, own, own_ends), over)
    if len({run.config["seed"] for _, _, run in pairs}) < len(losses):
        return Loss(mean(losses), None, None, "seeds")
    return Loss(mean(losses), *around_mean(losses), "seeds")


def _defined(measured: Measured) -> tuple[float, tuple[float, float]]:
    """Of balanced accuracy, where it is defined: it has an interval then."""
    assert measured.value is not None
    assert measured.low is not None
    assert measured.high is not None
    return measured.value, (measured.low, measured.high)


def _whole(panel: Panel, cell: Column) -> float | None:
    """The loss of all test images together, mean over the pairs."""
    name = f"test/{BY}"
    runs = {
        _pair(run): run.metrics.get(name, math.nan)
        for column, cells in panel.columns.items()
        if column.mechanism == "none"
        for run in cells["test"].completed
    }
    losses = [
        runs[_pair(run)] - run.metrics.get(name, math.nan)
        for run in panel.columns[cell]["test"].completed
        if cell.mechanism != "none" and _pair(run) in runs
    ]
    defined = [value for value in losses if math.isfinite(value)]
    return mean(defined) if defined else None
