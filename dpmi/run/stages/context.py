"""What every stage of a run is given: the config, where it runs, and who else trains."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from dpmi.base.ranks import ALONE, Ranks
from dpmi.config.schema import Config
from dpmi.run.durability.checkpoint import Clock
from dpmi.run.durability.stopping import StopRequest
from dpmi.run.given import Given
from dpmi.run.memory import PeakMemory


@dataclass(frozen=True)
class Context:
    """The same from the first stage to the last.

    Attributes:
        config: the checked config, with what was picked in place of what it left open.
        folder: the job's folder, existing.
        console: what the user sees.
        ranks: who trains, each in a process with a run like this one; the first writes files.
        given: images and network in place of the config's.
        picked: what was picked, and why; None where nothing was left open, and before.
        clock: seconds of each part of the run.
        memory: the most that training takes.
        stop: whether the process is asked to end.
    """

    config: Config
    folder: Path
    console: Console
    ranks: Ranks = ALONE
    given: Given | None = None
    picked: dict[str, Any] | None = None
    clock: Clock = field(default_factory=Clock)
    memory: PeakMemory = field(default_factory=PeakMemory)
    stop: StopRequest = field(default_factory=StopRequest)

    @property
    def cache_dir(self) -> Path:
        """What runs share: decoded images, weights, accounts, the key of the house."""
        return Path(self.config.cache_dir)

    @property
    def device(self) -> str:
        """What will train: "cpu", or the name of a GPU."""
        on_cpu = self.config.trainer.accelerator == "cpu" or not torch.cuda.is_available()
        return "cpu" if on_cpu else torch.cuda.get_device_name()

    @contextlib.contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Count the seconds of a part, also where it fails."""
        self.clock.start(part)
        try:
            yield
        finally:
            self.clock.stop(part)
