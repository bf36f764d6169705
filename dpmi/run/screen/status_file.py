"""Writes how far a run is, in ``status.json``, while Lightning trains it."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as L

from dpmi.models.names import NONPRIVATE
from dpmi.run.screen.status import RunStatus, clear_status

INTERVAL_SECONDS = 1.0


class StatusFile(L.Callback):
    """Keeps ``status.json`` up to date, at most once a second.

    Must come after the callbacks that log its values. That it cannot be written stops no run.

    Args:
        folder: the job's folder.
        clock: seconds, for tests.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._clock = folder, clock
        self._status = RunStatus(phase="preparing", pid=os.getpid(), host=platform.node())
        self._spends: Callable[[], tuple[float, str] | None] | None = None
        self._spent: tuple[float, str] | None = None
        self._written = self._began = clock()
        self._first_step = 0
        self._write()

    def watch(self, spends: Callable[[], tuple[float, str] | None]) -> None:
        """Also write ε and its unit, of what has been executed so far."""
        self._spends = spends

    def remove(self) -> None:
        """The run has ended; its record has the rest."""
        clear_status(self._folder)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock that the time left is reckoned from: also of a run that is resumed."""
        self._began, self._first_step = self._clock(), trainer.global_step
        self._tell(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Write, if it is time."""
        if self._clock() - self._written >= INTERVAL_SECONDS:
            self._tell(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the end of an epoch in any case."""
        self._tell(trainer, trainer.current_epoch + 1)

    def on_predict_start(self, *_: Any) -> None:
        """Training is over: the training images are shown to the network first."""
        self._status = self._status.model_copy(update={"phase": "evaluating", "seconds_left": None})
        self._write()

    def _tell(self, trainer: L.Trainer, done: int | None = None) -> None:
        logged, epoch = trainer.callback_metrics, trainer.current_epoch
        changes: dict[str, Any] = {"phase": "training", "device": _device(trainer)}
        changes |= {"epoch": epoch + 1, "epochs": trainer.max_epochs}
        changes["epochs_done"] = epoch if done is None else done
        for of, prefix in (("train", NONPRIVATE), ("val", "val")):
            for metric in ("auroc", "accuracy"):  # of classes both, of findings AUROC alone
                if (name := f"{prefix}/{metric}") in logged:
                    changes |= {"latest": float(logged[name]), "metric": metric, "of": of}
        if self._spends is not None and self._spent is None:
            self._spent = self._spends()  # not oftener: under DP-SGD it calls an accountant
        if self._spent is not None:
            changes |= dict(zip(("epsilon", "unit"), self._spent, strict=True))
        if "epsilon" in logged:
            changes["epsilon"] = float(logged["epsilon"])
        if steps := trainer.global_step - self._first_step:
            total = int(trainer.num_training_batches) * int(trainer.max_epochs or 1)
            pace = (self._clock() - self._began) / steps
            changes["seconds_left"] = pace * max(0, total - trainer.global_step)
        self._status = self._status.model_copy(update=changes)
        self._write()

    def _write(self) -> None:
        self._written = self._clock()
        self._status.write(self._folder)


def _device(trainer: L.Trainer) -> str:
    device = trainer.strategy.root_device
    if device.type != "cuda":
        return device.type
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    index = device.index or 0
    return f"gpu {visible.split(',')[index] if visible else index}"
