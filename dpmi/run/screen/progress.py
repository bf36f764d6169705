"""Progress while a run trains: a bar on a terminal, a line per epoch elsewhere."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as L
import torch
from pytorch_lightning.callbacks import Callback, RichProgressBar
from rich.console import Console

from dpmi.models.names import NONPRIVATE
from dpmi.privacy.guarantee import printed_epsilon
from dpmi.run.logs.often import looks_at


class StepTime(Callback):
    """Logs ``nonprivate/step_time``: wall seconds of a training step, and the learning rate.

    The time reveals how many images were in the batch, which no ε covers. Where a GPU computes, it
    is the time until the step's work was given out. That waits for the work of the step before, so
    that the times add up to those of all steps.

    Attributes:
        seconds: of all training steps together.
        first_step_at: clock (``time.perf_counter``) at the start of the first step.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.first_step_at: float | None = None
        self._started = 0.0

    def state_dict(self) -> dict[str, float]:
        """For the checkpoint."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Go on counting."""
        self.seconds = state_dict["seconds"]

    def on_train_batch_start(self, *_: Any) -> None:
        """Start the clock."""
        self._started = time.perf_counter()
        if self.first_step_at is None:
            self.first_step_at = self._started

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Stop it and log."""
        took = time.perf_counter() - self._started
        self.seconds += took
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        # As tensors on the processor: Lightning would send numbers to a device, and wait.
        logged = {f"{NONPRIVATE}/step_time": took, "learning_rate": rate}
        values = {name: torch.tensor(value) for name, value in logged.items()}
        pl_module.log_dict(values, batch_size=1)


class TrainingBar(RichProgressBar):
    """Lightning's rich bar with the metrics that matter under short names.

    They are taken from those of the callbacks: those that are logged for the bar, Lightning reads
    at every step, and waits for the device.
    """

    def __init__(self) -> None:
        super().__init__()
        self._metrics: dict[str, Any] = {}

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """Loss and accuracy of the batch, accuracy or AUROC of validation, ε.

        They are those of the last step that was looked at.
        """
        if looks_at(trainer):
            self._metrics = _short(trainer.callback_metrics)
        return self._metrics


class EpochLines(Callback):
    """A plain line an epoch, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = 0.0

    def on_train_start(self, *_: Any) -> None:
        """Start the clock that the time left is reckoned from."""
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the epoch, its metrics, and the time left."""
        done, of = trainer.current_epoch + 1, int(trainer.max_epochs or 1)
        left = (time.perf_counter() - self._started) / done * (of - done)
        metrics = _short(trainer.callback_metrics)
        shown = "  ".join(f"{name} {value}" for name, value in metrics.items())
        self._console.print(f"epoch {done}/{of}  {shown}  {left:.0f} s left")


def _short(metrics: dict[str, Any]) -> dict[str, Any]:
    names = {
        f"{NONPRIVATE}/loss": "loss",
        f"{NONPRIVATE}/accuracy": "accuracy",
        "val/accuracy": "val accuracy",
        "val/auroc": "val AUROC",
        "epsilon": "ε",
    }
    if "val/accuracy" in metrics:  # of findings there is none
        del names["val/auroc"]
    values = {short: float(metrics[name]) for name, short in names.items() if name in metrics}
    return {
        short: printed_epsilon(value) if short == "ε" else f"{value:.3f}"
        for short, value in values.items()
    }


def progress_callback(console: Console) -> Callback:
    """Choose what fits where the output goes."""
    return TrainingBar() if console.is_terminal else EpochLines(console)
