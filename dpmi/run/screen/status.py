"""The status of a run while it is going on, for other processes that watch it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

STATUS_FILE = "status.json"


class RunStatus(BaseModel):
    """How far a run is; ``status.json`` in its job folder until it has ended.

    Attributes:
        phase: "preparing" is all before the first step.
        pid, host: of the process.
        device: "cpu", or "gpu N" with the number that the machine knows it by.
        epoch, epochs: that is trained, counted from 1, of how many; epochs_done: that have ended.
        latest, metric, of: accuracy, of findings AUROC: of the validation images where they are
            evaluated, else of a training batch.
        epsilon, unit: spent so far; None where nothing is promised.
        seconds_left: of training, at the speed so far.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    phase: Literal["preparing", "training", "evaluating"]
    pid: int
    host: str
    device: str | None = None
    epoch: int | None = None
    epochs: int | None = None
    epochs_done: int = 0
    latest: float | None = None
    metric: Literal["accuracy", "auroc"] = "accuracy"
    of: Literal["val", "train"] | None = None
    epsilon: float | None = None
    unit: str | None = None
    seconds_left: float | None = None

    def write(self, folder: Path) -> None:
        """Write it whole or not at all; that it cannot be written stops no run."""
        path = folder / STATUS_FILE
        part = path.with_suffix(".part")
        with contextlib.suppress(OSError):
            part.write_text(self.model_dump_json(), encoding="utf-8")
            os.replace(part, path)


def read_status(folder: Path) -> RunStatus | None:
    """Status of the run in a job's folder; None where there is none."""
    try:
        return RunStatus.model_validate_json((folder / STATUS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None


def clear_status(folder: Path) -> None:
    """Remove the status of a run that has ended, or of one that was killed before this one."""
    with contextlib.suppress(OSError):
        (folder / STATUS_FILE).unlink(missing_ok=True)
