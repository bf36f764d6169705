"""The mean of the later iterates, which has less noise than the last one."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as L
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm


class IterateAverage(L.Callback):
    """Keeps the mean of the weights after the steps of the later half of training.

    Under DP-SGD each iterate is released, so that their mean is post-processing: it costs nothing
    (Polyak and Juditsky 1992; De et al. 2022, arXiv 2204.13650).

    Attributes:
        count: iterates in the mean so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._means: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"count": self.count, "means": self._means}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the process before this one was."""
        self.count, self._means = state_dict["count"], state_dict["means"]

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Take the iterate in, if its step is one of the later half."""
        planned = int(trainer.num_training_batches) * int(trainer.max_epochs or 0)
        if 2 * trainer.global_step <= planned:
            return
        self.count += 1
        for name, value in self._trained(pl_module).items():
            mean = self._means.get(name)
            if mean is None:
                self._means[name] = value.detach().clone()
            else:
                mean = self._means[name] = mean.to(value.device)
                mean += (value.detach() - mean) / self.count

    @torch.no_grad()
    def apply(self, model: L.LightningModule) -> None:
        """Put the mean in place of the last iterate; nothing where there is no mean yet."""
        for name, value in self._trained(model).items():
            if name in self._means:
                value.copy_(self._means[name])

    @staticmethod
    def _trained(model: L.LightningModule) -> dict[str, Tensor]:
        """What training changes: parameters, and statistics of BatchNorm in training mode."""
        kept: dict[str, Tensor] = {
            name: p for name, p in model.named_parameters() if p.requires_grad
        }
        for name, layer in model.named_modules():
            if isinstance(layer, _BatchNorm) and layer.running_mean is not None:
                assert layer.running_var is not None
                kept |= {f"{name}.mean": layer.running_mean, f"{name}.var": layer.running_var}
        return kept
