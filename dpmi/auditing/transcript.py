"""What a run releases, step by step, as the adversary of DP-SGD sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as L
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpmi.auditing.canaries import CanaryNet
from dpmi.run.durability.stopping import StoppedByRequest

LEARNING_RATE = 2.0**-30  # a step must not change what the next one's gradients are


class Transcript(L.Callback):
    """Writes down how far each step moved the weights along each canary.

    SGD without momentum or decay moves them by the released gradient times the learning rate, so
    whoever sees the weights after every step has every release.

    Args:
        path: of the file, made here and added to.
        labels: (m,) of the canaries.
        lost_step: that the process is to die after, before anything else hears of it: the next
            one repeats it. None where it lives.
    """

    def __init__(self, path: Path, labels: NDArray[np.int64], lost_step: int | None = None) -> None:
        self._path, self._labels = path, torch.as_tensor(labels)
        self._lost_step = lost_step
        self._before: Tensor | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The weights that a step starts from."""
        self._before = _weights(pl_module)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Add a row: the number of the step, and (m,) values."""
        after, net = _weights(pl_module), pl_module.net
        assert self._before is not None
        assert isinstance(net, CanaryNet)
        moved = net.along_canaries(self._before - after, self._labels) / LEARNING_RATE
        self._before = after
        if trainer.is_global_zero:
            with self._path.open("ab") as file:
                file.write(np.array([trainer.global_step, *moved], np.float64).tobytes())
        if trainer.global_step == self._lost_step:
            self._lost_step = None
            raise StoppedByRequest

    def releases(self) -> NDArray[np.float64]:
        """All that was let out: (releases, m); what was repeated to the bit is one release."""
        rows = np.fromfile(self._path, np.float64).reshape(-1, 1 + len(self._labels))
        return np.unique(rows, axis=0)[:, 1:]


def _weights(module: L.LightningModule) -> Tensor:
    net = module.net
    assert isinstance(net, CanaryNet)
    return net.stacked()
