"""The learning curves that a run records."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytorch_lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics.functional.classification import multiclass_accuracy

from dpmi.models.names import NONPRIVATE

TRAIN_ACCURACY, TRAIN_LOSS = f"{NONPRIVATE}/accuracy", f"{NONPRIVATE}/loss"
VAL_ACCURACY, TEST_ACCURACY, EPSILON = "val/accuracy", "test/accuracy", "epsilon"
VAL_AUROC = "val/auroc"


class EpochCurves(L.Callback):
    """Keeps, for every epoch that ended, what the record keeps of it.

    Must stand after the callbacks that log what it keeps.

    Args:
        spent: ε and its unit, of what has been executed so far; None where nothing is promised.
        multilabel: labels are findings.

    Attributes:
        values: metric to one value an epoch, in order. ``nonprivate/accuracy`` is the share of
            the epoch's training images that were classified rightly at the step that trained on
            them (NaN where every batch of the epoch was empty), of findings ``nonprivate/loss``
            their mean loss there; ``epsilon`` that of the guarantee at the end of the epoch, where
            there is one; ``val/accuracy`` (of findings ``val/auroc``) and ``test/accuracy`` stand
            where these images are evaluated in every epoch.
    """

    def __init__(
        self, spent: Callable[[], tuple[float, str] | None], *, multilabel: bool = False
    ) -> None:
        self._spent = spent
        self.values: dict[str, list[float]] = {}
        self._sum: float | Tensor = 0.0  # of all images of the epoch
        self._images = 0
        self._train = TRAIN_LOSS if multilabel else TRAIN_ACCURACY
        self._evaluated = (VAL_AUROC,) if multilabel else (VAL_ACCURACY, TEST_ACCURACY)

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"values": self.values, "sum": float(self._sum), "images": self._images}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on in the middle of an epoch."""
        self.values = state_dict["values"]
        self._sum, self._images = state_dict["sum"], state_dict["images"]

    def on_train_epoch_start(self, *_: Any) -> None:
        """Start to count."""
        self._sum, self._images = 0.0, 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Count the images of the step; an empty batch has none."""
        if images := outputs["images"]:  # in double, where they are: nothing waits for a device
            mean = outputs[self._train.rpartition("/")[2]]
            self._sum = self._sum + mean.double() * images
            self._images += images

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the epoch's values; validation was before."""
        logged = trainer.callback_metrics
        ended = {self._train: float(self._sum) / self._images if self._images else math.nan}
        ended |= {name: float(logged[name]) for name in self._evaluated if name in logged}
        if spent := self._spent():
            ended[EPSILON] = spent[0]
        for name, value in ended.items():
            self.values.setdefault(name, []).append(value)


class EvaluateTestImages(L.Callback):
    """Logs ``test/accuracy`` after every epoch, as those do who then choose an epoch by it.

    Args:
        loader: the test images.
    """

    def __init__(self, loader: DataLoader[tuple[Tensor, Tensor]]) -> None:
        self._loader = loader

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Evaluate as the end of the run does: no layer in training mode, nothing is learned."""
        net: Any = pl_module.net
        net.eval()
        with torch.no_grad(), torch.random.fork_rng():  # the next epoch draws what it would have
            batches = [
                (net(images.to(pl_module.device)).cpu(), labels) for images, labels in self._loader
            ]
        net.train()
        logits, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        accuracy = multiclass_accuracy(logits, labels, logits.shape[1], average="micro")
        pl_module.log(TEST_ACCURACY, accuracy, batch_size=len(labels))


def selected_on_test(curves: dict[str, list[float]]) -> dict[str, float]:
    """The best test epoch: what a report that chooses the epoch on the test images would say.

    Args:
        curves: of a run; without ``test/accuracy`` there is nothing to choose from.

    Returns:
        ``selected_on_test/accuracy`` and ``selected_on_test/epoch``, the first of the best,
        counted from 1. It is too high: a maximum over epochs of what the same images measured.
    """
    by_epoch = curves.get(TEST_ACCURACY)
    if not by_epoch:
        return {}
    best = max(by_epoch)
    return {
        "selected_on_test/accuracy": best,
        "selected_on_test/epoch": float(by_epoch.index(best) + 1),
    }
