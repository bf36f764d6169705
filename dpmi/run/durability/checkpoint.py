"""Checkpoints: written whole or not at all, verified when read, two of them kept."""

from __future__ import annotations

import hashlib
import io
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as L
import torch
from lightning_fabric.plugins.io.checkpoint_io import CheckpointIO
from pytorch_lightning.callbacks import Checkpoint
from rich.console import Console

from dpmi.base.ranks import ALONE, Ranks
from dpmi.privacy.journal import sync_folder
from dpmi.run.durability.stopping import StoppedByRequest, StopRequest
from dpmi.run.logs.csv_log import CsvLog
from dpmi.run.logs.curves import TEST_ACCURACY

FOLDER = "checkpoints"
_KEPT = 2
_NAME = re.compile(r"step-(\d+)-([0-9a-f]{32})\.ckpt")
_EVALUATION = ("val/", "test/")


class VerifiedFiles(CheckpointIO):
    """Lightning's checkpoints as files named after the digest of what is in them."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write beside its place, flush, and rename.

        Args:
            checkpoint: what Lightning saves.
            path: ``step-N``; the digest and the ending are added.
            storage_options: none are known.

        Raises:
            OSError: it cannot be written; nothing is left of it then.
        """
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        content = buffer.getbuffer()
        target = Path(f"{path}-{_digest(content)}.ckpt")
        part = target.with_suffix(".part")
        target.parent.mkdir(exist_ok=True)
        try:
            with part.open("wb") as file:
                os.chmod(part, 0o600)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, target)
            sync_folder(target.parent)
        finally:
            part.unlink(missing_ok=True)

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read tensors and plain values, and nothing that could run code."""
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return checkpoint

    def remove_checkpoint(self, path: Any) -> None:
        """Remove it."""
        Path(path).unlink(missing_ok=True)


def _digest(content: Any) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def newest_checkpoint(folder: Path, console: Console) -> tuple[Path, int] | None:
    """The newest checkpoint of a job's folder that is whole, and its step; damaged ones are named.

    None where there is none.
    """
    found = [(int(m[1]), m[2], p) for p in folder.glob("*.ckpt") if (m := _NAME.fullmatch(p.name))]
    for step, digest, path in sorted(found, reverse=True):
        if _digest(path.read_bytes()) == digest:
            return path, step
        console.print(
            f"{path}: damaged (its content is not what was written); the checkpoint before it "
            "is used",
            style="yellow",
            markup=False,
        )
        path.unlink()
    return None


class RunCheckpoint(Checkpoint):
    """Saves all that a run is, every so many seconds and when it is asked to stop.

    Lightning adds model, optimizer, loops, the loader's position and the other callbacks' states.

    Args:
        folder: of the checkpoints.
        seconds: between two; 0 saves after every step.
        stop: whether the process is asked to end.
        console: shows that the disk is full.
        clock: seconds of the run so far, by part.
        csv_log: whose rows so far belong to a checkpoint.
        ranks: who trains: all stop at the same step, the first one writes.
    """

    def __init__(
        self,
        folder: Path,
        seconds: float,
        stop: StopRequest,
        console: Console,
        clock: Clock,
        csv_log: CsvLog,
        ranks: Ranks = ALONE,
    ) -> None:
        self._folder, self._seconds, self._stop = folder, seconds, stop
        self._console, self._clock, self._csv = console, clock, csv_log
        self._ranks = ranks
        self._saved_at = time.monotonic()
        self._loaded: Mapping[str, Any] | None = None
        self._row: dict[str, float] = {}
        self._step = 0
        self._disk_failed = False

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Go on with the log of metrics where the checkpoint was."""
        if state := self._loaded:
            self._csv.go_on_with(state["rows"])
            if state["row"]:
                for logger in trainer.loggers:
                    logger.log_metrics(state["row"], state["step"] - 1)

    def on_train_start(self, *_: Any) -> None:
        """From here on a request to stop waits for the end of a step."""
        self._saved_at = time.monotonic()
        self._stop.wait_for_the_step()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Save in the middle of an epoch; what ends with an epoch waits for its validation."""
        if not trainer.is_last_batch:
            self._save_if_due(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save between two epochs."""
        self._save_if_due(trainer)

    def on_train_end(self, *_: Any) -> None:
        """What follows can be done again."""
        self._stop.wait_no_longer()
        (stops,) = self._ranks.any(self._stop.received)
        if stops:
            raise StoppedByRequest

    def on_exception(self, *_: Any) -> None:
        """The same."""
        self._stop.wait_no_longer()

    def state_dict(self) -> dict[str, Any]:
        """Seconds and rows of metrics so far, and the row that Lightning logs after this."""
        return {
            "clock": self._clock.so_far(),
            "rows": self._csv.rows,
            "row": self._row,
            "step": self._step,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on counting."""
        self._clock.add_earlier(state_dict["clock"])
        self._loaded = state_dict

    def _save_if_due(self, trainer: L.Trainer) -> None:
        due = self._ranks.is_first and time.monotonic() - self._saved_at >= self._seconds
        stops, due = self._ranks.any(self._stop.received, due)
        if not stops and not due:
            return
        # What callbacks logged at this moment becomes a row only after them: of the step in the
        # middle of an epoch; of the test images, where they are evaluated, at its end.
        self._step = trainer.global_step
        ends = bool(trainer.is_last_batch)
        self._row = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if (name == TEST_ACCURACY if ends else not name.startswith(_EVALUATION))
        }
        if self._row:
            self._row["epoch"] = trainer.current_epoch
        try:
            trainer.save_checkpoint(self._folder / f"step-{trainer.global_step:08d}")
        except OSError as error:
            trainer.strategy.barrier()  # where the others wait, and it had not come to
            if not self._disk_failed:
                self._console.print(
                    f"{self._folder}: no checkpoint can be written ({error.strerror}); training "
                    "goes on, and a run that is killed resumes from an older one",
                    style="yellow",
                    markup=False,
                )
            self._disk_failed = True
        else:
            self._disk_failed = False
            if self._ranks.is_first:
                self._remove_old()
        self._saved_at = time.monotonic()
        if stops:
            raise StoppedByRequest

    def _remove_old(self) -> None:
        for old in sorted(self._folder.glob("*.ckpt"))[:-_KEPT]:
            old.unlink()


class Clock:
    """Seconds of a run by part, those of attempts before this one included."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._running: dict[str, float] = {}
        self._done: dict[str, float] = {}

    def start(self, part: str) -> None:
        """Begin a part."""
        self._running[part] = time.perf_counter()

    def stop(self, part: str) -> None:
        """End it."""
        took = time.perf_counter() - self._running.pop(part)
        self._done[part] = self._done.get(part, 0.0) + took

    def so_far(self) -> dict[str, float]:
        """Seconds by part, with ``total``."""
        now = time.perf_counter()
        parts = dict(self._done)
        for part, started in self._running.items():
            parts[part] = parts.get(part, 0.0) + now - started
        return parts | {"total": parts.get("total", 0.0) + now - self._started}

    def add_earlier(self, seconds: Mapping[str, float]) -> None:
        """Count what an attempt before this one took."""
        for part, took in seconds.items():
            self._done[part] = self._done.get(part, 0.0) + took
