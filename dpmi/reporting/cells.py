"""The cells of Figure 4: a panel per data set, a column per mechanism and β, a cell of runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import mean
from typing import Any

from dpmi.config.sections import MECHANISMS
from dpmi.models.names import TRAIN_METRICS, UNDEFINED
from dpmi.privacy.guarantee import printed_delta, printed_epsilon
from dpmi.reporting.intervals import Interval, over_images, over_seeds
from dpmi.reporting.poster import Published
from dpmi.run.records.record import RunRecord

SPLITS = {"train": TRAIN_METRICS, "test": "test"}  # a row of the table to its metrics' prefix
TITLES = {name: its.title for name, its in MECHANISMS.items()}
WORST_RECALL = "worst_recall"


def is_multilabel(config: Mapping[str, Any]) -> bool:
    """Whether a run's classes are findings; not all data sets have both tasks."""
    return config["data"].get("task") == "multilabel"


@dataclass(frozen=True, order=True)
class Column:
    """One column: a mechanism at a β (0 where there is none), and what else distinguishes it."""

    rank: int
    beta: float
    variant: str
    mechanism: str

    @property
    def title(self) -> str:
        """As the poster heads it."""
        title = TITLES[self.mechanism]
        title = f"{title} β={self.beta:g}" if self.mechanism != "none" else title
        return f"{title} ({self.variant})" if self.variant else title


@dataclass(frozen=True)
class Cell:
    """The runs of one data set in one column; several where there are several seeds."""

    runs: tuple[RunRecord, ...]
    poster: Published | None
    split: str

    @cached_property
    def completed(self) -> list[RunRecord]:
        """The runs that have results."""
        return [r for r in self.runs if r.status == "completed"]

    @property
    def status(self) -> str:
        """How the cell ended: "completed" if one run did."""
        if not self.runs:
            return "not run"
        return "completed" if self.completed else self.runs[0].status

    def values(self, metric: str) -> list[float]:
        """A metric of the cell's split, one a completed run that has it as a number.

        ``WORST_RECALL`` is the recall of the class that fared worst.
        """
        return [value for value in self._recorded(metric) if math.isfinite(value)]

    def _recorded(self, metric: str) -> list[float]:
        """A metric of each completed run that has it; NaN where it is not defined."""
        prefix = f"{SPLITS[self.split]}/"
        if metric != WORST_RECALL:
            name = prefix + metric
            return [r.metrics[name] for r in self.completed if name in r.metrics]
        prefix += "recall/"
        by_run = [
            [v for k, v in r.metrics.items() if k.startswith(prefix) and math.isfinite(v)]
            for r in self.completed
        ]
        return [min(values) for values in by_run if values]

    def shown(self, metric: str, form: str = "{:.3f}") -> str:
        """The mean over the runs in which a metric is defined, and in how many, if not in all.

        "undefined" where it is in none; "" where no run has it.
        """
        recorded, values = self._recorded(metric), self.values(metric)
        if not values:
            return UNDEFINED if recorded else ""
        few = f" ({len(values)} of {len(recorded)} runs)" if len(values) < len(recorded) else ""
        return form.format(mean(values)) + few

    @property
    def absent_classes(self) -> list[str]:
        """Classes that no image of the split is of, in any run: their recall is not defined."""
        prefix = f"{SPLITS[self.split]}/recall/"
        return [
            name.removeprefix(prefix)
            for name in dict.fromkeys(key for run in self.completed for key in run.metrics)
            if name.startswith(prefix)
            and not any(math.isfinite(run.metrics.get(name, math.nan)) for run in self.completed)
        ]

    def mean_of(self, metric: str) -> float | None:
        """Its mean over the completed runs; None where no run has it."""
        values = self.values(metric)
        return mean(values) if values else None

    @property
    def multilabel(self) -> bool:
        """Whether its runs learned several findings of an image."""
        return any(is_multilabel(run.config) for run in self.runs)

    @property
    def accuracies(self) -> list[float]:
        """Of the completed runs, in [0, 1]; of findings, which have none, their AUROC."""
        return self.values("auroc" if self.multilabel else "accuracy")

    @property
    def mean(self) -> float | None:
        """Accuracy, mean over the completed runs; of findings AUROC."""
        values = self.accuracies
        return mean(values) if values else None

    @property
    def best_on_test(self) -> float | None:
        """Accuracy of our own runs' best epoch on test, where they looked; mean over runs."""
        name = "selected_on_test/accuracy"
        values = [run.metrics[name] for run in self.completed if name in run.metrics]
        return mean(values) if values and self.split == "test" else None

    @property
    def seeds(self) -> int:
        """Different seeds among the completed runs."""
        return len({r.config["seed"] for r in self.completed})

    @property
    def interval(self) -> Interval | None:
        """95 % of accuracy, or AUROC: over seeds where there are several, else over the images.

        None where runs of one seed differ in their noise alone, or where nothing was counted.
        """
        if len(self.accuracies) > 1:
            one_each = self.seeds == len(self.accuracies)
            return over_seeds(self.accuracies) if one_each else None
        return self.image_interval

    @property
    def image_interval(self) -> Interval | None:
        """95 % of the mean accuracy, had other images been drawn for the networks as they are."""
        if self.mean is None or not self.images or self.multilabel:  # AUROC is no share of images
            return None
        return over_images(self.mean, self.images)

    @property
    def images(self) -> int | None:
        """Images of the split."""
        for run in self.completed:
            if run.data and self.split in run.data["counts"]:
                return int(run.data["counts"][self.split])
        return None

    @property
    def accuracy(self) -> str:
        """Mean over the completed runs, as "81.2%" or "AUROC 0.812"; or how the run ended."""
        if self.mean is None:
            return self.status
        text = f"AUROC {self.mean:.3f}" if self.multilabel else f"{100 * self.mean:.1f}%"
        n = len(self.accuracies)
        return text if n == 1 else f"{text} ({n} {'seeds' if self.seeds == n else 'runs'})"

    @property
    def beside(self) -> str:
        """The poster's number; a star where it was picked on the test images."""
        if self.poster is None:
            return ""
        return f"poster {100 * self.poster.accuracy:.1f}%{'*' if self.picked_on_test else ''}"

    @property
    def picked_on_test(self) -> bool:
        """Whether the poster's number is the best epoch on the test images, and not the last."""
        return self.split == "test" and self.poster is not None and self.poster.epoch == "best"

    @property
    def auroc(self) -> str:
        """Macro AUROC, mean over the completed runs: what no threshold moves."""
        return self.shown("auroc")

    @property
    def balanced(self) -> str:
        """Mean recall of the classes, mean over the completed runs."""
        return self.shown("balanced_accuracy", "{:.1%}")

    @property
    def ece(self) -> str:
        """Expected calibration error, mean over the completed runs."""
        return self.shown("ece")

    @property
    def promise(self) -> tuple[str, ...]:
        """ε, δ, unit and adjacency of the worst of the completed runs, or no ε; in pieces."""
        worst = self.guarantee
        if worst is None:
            return ()
        if worst.epsilon is None or worst.delta is None:
            claims = {
                printed_epsilon(r.guarantee.claim.epsilon)
                for r in self.completed
                if r.guarantee and r.guarantee.claim
            }
            return ("no ε", *(f"(claimed {claim})" for claim in sorted(claims)))
        text = f"ε={printed_epsilon(worst.epsilon)}", f"δ={printed_delta(worst.delta)}"
        return *text, f"per {worst.unit},", worst.adjacency

    @property
    def if_replaced(self) -> str:
        """ε of an image replaced by any other: what LDP and DP-SGD can be compared by."""
        worst = self.guarantee
        value = worst and worst.replace_one_epsilon
        return "" if value is None else f"ε={printed_epsilon(value)}"

    @property
    def audited(self) -> str:
        """The largest bound from below that an attack on a run of the cell gave; "" without one."""
        audits = [run.audit for run in self.completed if run.audit]
        if not audits:
            return ""
        worst: dict[str, Any] = max(audits, key=lambda a: (a["refuted"], a["lower_bound"]))
        return f"{worst['says'].removeprefix('audited: ')}{': refuted' * worst['refuted']}"

    @property
    def guarantee(self) -> Any:
        """The weakest guarantee of the completed runs; None where none completed."""
        guarantees = [r.guarantee for r in self.completed if r.guarantee]
        return max(
            guarantees,
            key=lambda g: math.inf if g.epsilon is None else g.epsilon,
            default=None,
        )

    @property
    def failures(self) -> tuple[str, ...]:
        """Why runs of the cell did not complete."""
        return tuple(f"{r.status}: {r.reason}" for r in self.runs if r.status != "completed")

    @property
    def stopped(self) -> tuple[str, ...]:
        """Why runs that completed took fewer steps than planned, each once."""
        return tuple(dict.fromkeys(f"stopped: {r.stopped}" for r in self.completed if r.stopped))


def protected(panels: Iterable[Panel]) -> tuple[str, ...]:
    """Whom the guarantees of some panels protect at the least: "image", "patient", or both."""
    guarantees = [cells["test"].guarantee for panel in panels for cells in panel.columns.values()]
    units = [each.unit for each in guarantees if each and each.unit]
    return tuple(sorted({"patient" if unit.endswith("patient") else "image" for unit in units}))


def of_whom(panels: Iterable[Panel]) -> str:
    """The same in words: "an image", "a patient", "an image or a patient"."""
    named = [{"image": "an image", "patient": "a patient"}[unit] for unit in protected(panels)]
    return " or ".join(named) or "an image"


@dataclass(frozen=True)
class Panel:
    """One data set in one set-up.

    Attributes:
        dataset: its name in the config.
        setup: what distinguishes it from other set-ups of the same data set; "" where there is one.
        columns: column to its cell on each split.
    """

    dataset: str
    setup: str
    columns: dict[Column, dict[str, Cell]]

    @property
    def title(self) -> str:
        """Name of the panel."""
        return f"{self.dataset} ({self.setup})" if self.setup else self.dataset

    @property
    def tested_on(self) -> str:
        """Which images the test metrics are of, where a data set has several; else ""."""
        return next((str(run.config["data"].get("test", "")) for run in self.runs), "")

    @property
    def splits(self) -> list[str]:
        """Rows of its table; public records have nothing on the training images."""
        measured = {split for of in self.columns.values() for split in of if of[split].accuracies}
        return [split for split in SPLITS if split in measured or not measured]

    @property
    def runs(self) -> list[RunRecord]:
        """All its runs."""
        return [run for cells in self.columns.values() for run in cells["test"].runs]

    @property
    def multilabel(self) -> bool:
        """Whether its runs learned several findings of an image."""
        return any(is_multilabel(run.config) for run in self.runs)

    @property
    def measure(self) -> str:
        """What its cells are compared by."""
        return "AUROC" if self.multilabel else "accuracy"

    def majority(self, split: str) -> float | None:
        """Share of the largest class: what guessing it would score; None of findings."""
        for run in () if self.multilabel else self.runs:
            counts = ((run.data or {}).get("class_counts") or {}).get(split)
            if counts:
                return float(max(counts.values()) / sum(counts.values()))
        return None
