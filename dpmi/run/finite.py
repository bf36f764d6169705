"""Stop training that has diverged."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as L
import torch

from dpmi.base import devices
from dpmi.base.devices import Later
from dpmi.base.errors import UserError


class FiniteWeights(L.Callback):
    """Refuses to go on with weights that are not finite.

    It looks at the weights, not at the loss: under DP-SGD they are released, and looking at them
    costs no privacy, where stopping by the loss of private images would. Where weights are on a
    device, what a step made of them is looked at after the next step, so that nothing waits; and
    before they are kept or measured: in a checkpoint, by an evaluation, at the end of training.

    Raises:
        UserError: after the step that made a weight NaN or infinite, or on a device after the next.
    """

    def __init__(self) -> None:
        self._finite: Later | None = None
        self._step = 0

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Look at all weights at once: a sum of norms is finite only if each of them is."""
        norms = torch._foreach_norm([p.detach() for p in pl_module.parameters()])
        finite = torch.stack(norms).sum().isfinite()
        self._look()
        self._finite, self._step = Later(finite), trainer.global_step
        if devices.on_host(finite):
            self._look()

    def on_save_checkpoint(self, *_: Any) -> None:
        """Before one is written."""
        self._look()

    def on_validation_start(self, *_: Any) -> None:
        """Before anything is measured."""
        self._look()

    def on_train_end(self, *_: Any) -> None:
        """The last step's."""
        self._look()

    def _look(self) -> None:
        finite, self._finite = self._finite, None
        if finite is not None and not bool(finite.read()):
            raise UserError(
                f"the weights are not finite after step {self._step}: training has "
                "diverged; lower model.learning_rate"
            )
