"""What keeps a run's metrics for people to compare: one class for each service or file format.

A tracker is given only what may be known outside: the door (``dpmi.run.logs.door``) holds it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker knows of a run before it begins.

    Attributes:
        name: of the cell.
        group: of the sweep.
        id: the same where the run is resumed.
        first_step: that this process trains; not 0 where the run is resumed.
        everything: what no ε covers is logged as well, and the machine's load.
        hides_command: the command line holds what the tracker must not get.
        folder: the job's folder.
        cache_dir: for what the tracker caches.
        output_dir: of all runs.
    """

    name: str
    group: str
    id: str
    first_step: int
    everything: bool
    hides_command: bool
    folder: Path
    cache_dir: Path
    output_dir: Path


@dataclass(frozen=True)
class Summary:
    """How a run ended, without what may not leave.

    Attributes:
        guarantee: its fields.
        risk: bounds on an attacker, by unit.
        metrics: of the weights; a word where one is not defined of the images.
        scope: which metrics these are.
    """

    guarantee: Mapping[str, Any]
    risk: Mapping[str, Mapping[str, Any]]
    metrics: Mapping[str, float | str]
    scope: str


class Tracker(ABC):
    """May raise whatever it likes, in its constructor too: the door catches it.

    Attributes:
        TITLE: its name, for people.
        AFTER: what to do when it failed, said after where metrics are.
    """

    TITLE: ClassVar[str]
    AFTER: ClassVar[str] = ""

    @property
    @abstractmethod
    def version(self) -> str:
        """Its name for the run."""

    @abstractmethod
    def log_config(self, config: Mapping[str, Any]) -> None:
        """Keep the config, in plain values."""

    @abstractmethod
    def log_metrics(self, metrics: Mapping[str, float], step: int | None) -> None:
        """Keep a row of defined metrics; ``step`` is None for one that is of the whole run."""

    @abstractmethod
    def log_images(self, key: str, images: list[NDArray[Any]], captions: list[str]) -> None:
        """Keep images (H, W, C) uint8 with a caption each."""

    @abstractmethod
    def summarise(self, summary: Summary) -> None:
        """Keep how the run ended."""

    @abstractmethod
    def finish(self, failed: bool) -> None:
        """End the run: a sweep has several in one process."""
