"""The LightningModule: a network as a classifier. It does not know which mechanism trains it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytorch_lightning as L
import torch
from pytorch_lightning.utilities.types import STEP_OUTPUT, OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MetricCollection

from dpmi.base.ranks import ALONE, Ranks
from dpmi.base.targets import example_losses, probabilities
from dpmi.base.views import labels_of_views
from dpmi.models.gradient import Gradient
from dpmi.models.metrics import counted_images, metrics_of, named, reliability
from dpmi.models.names import NONPRIVATE, TRAIN_METRICS
from dpmi.models.prior import DecidingNetwork
from dpmi.models.schedule import make_schedule


@contextlib.contextmanager
def last_layer_in_float32(net: nn.Module, device: str) -> Iterator[None]:
    """Under autocast, the network's last layer ("head") works in float32; all, if it has none.

    Logits of bfloat16's 8 bits would tie, and AUROC ranks them.

    Args:
        net: which may have a ``head``.
        device: type of the one that autocast is on for.
    """
    head = getattr(net, "head", None)
    if not torch.is_autocast_enabled(device) or not isinstance(head, nn.Module):
        with torch.autocast(device, enabled=False):
            yield
        return
    before, plain = head.__dict__.get("forward"), head.forward

    def forward(x: Tensor) -> Tensor:
        with torch.autocast(device, enabled=False):
            logits: Tensor = plain(x.float())
        return logits

    head.forward = forward
    try:
        yield
    finally:
        del head.forward
        if before is not None:
            head.forward = before


class ImageClassifier(L.LightningModule):
    """Trains by whatever gradient it is given, and measures.

    Args:
        net: (B, C, H, W) images in [0, 1], or (B, D) vectors, to (B, K) logits.
        classes: names of the K classes, or findings, in the order of the labels.
        graded: the classes are ordered.
        multilabel: labels are findings (B, K), not classes (B,): see ``dpmi.base.targets``.
        make_gradient: given the network, on its device, and the number of the first step ahead,
            returns how a batch becomes a gradient.
        learning_rate, weight_decay, momentum: of SGD.
        schedule: of the learning rate, as ``make_schedule`` knows it.
        compiled: let torch.compile generate code for the network when training starts.
        ranks: who trains; each process evaluates all images.

    Attributes:
        reliability: of the test images, as :func:`reliability` tells it; empty before they were
            evaluated, and of findings.
        tested: probabilities (n, K) and labels (n,), or findings (n, K), of the test images, in
            their order; None before they were evaluated.
    """

    def __init__(
        self,
        net: DecidingNetwork,
        *,
        classes: tuple[str, ...],
        graded: bool,
        multilabel: bool = False,
        make_gradient: Callable[[nn.Module, int], Gradient],
        learning_rate: float,
        weight_decay: float,
        momentum: float,
        schedule: str = "constant",
        compiled: bool = False,
        ranks: Ranks = ALONE,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False  # a batch may take several backward passes, one step
        self.net = net
        self.classes, self.multilabel = classes, multilabel
        self.reliability: list[tuple[float, float, int]] = []
        self.tested: tuple[Tensor, Tensor] | None = None
        self._make_gradient, self._compiled, self._ranks = make_gradient, compiled, ranks
        self._gradient: Gradient | None = None
        self._schedule = schedule
        self._make_sgd = partial(
            torch.optim.SGD, lr=learning_rate, weight_decay=weight_decay, momentum=momentum
        )
        metrics = metrics_of(len(classes), graded, multilabel=multilabel)
        self.val_metrics = metrics.clone(prefix="val/")
        self.test_metrics = metrics.clone(prefix="test/")
        self.train_metrics = metrics.clone(prefix=f"{TRAIN_METRICS}/")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """SGD over the trainable parameters, on the schedule of all steps of the run."""
        sgd = self._make_sgd([p for p in self.net.parameters() if p.requires_grad])
        steps = int(self.trainer.estimated_stepping_batches)
        return [sgd], [make_schedule(self._schedule, sgd, steps)]

    def on_train_start(self) -> None:
        """Make the gradient, now that the network is on its device and a resumed run's restored."""
        self._gradient = self._make_gradient(self.net, self.global_step)
        if self._compiled:  # after the gradient, which may have changed how layers run
            self.net.compile(dynamic=True)  # Poisson batches are of every size

    def decide_clean(self, shift: Tensor | None = None) -> None:
        """Fold all that decides into the network: what is measured is, to the bit, what is kept.

        Args:
            shift: (K,), to be taken off the logits of images that differ from the training
                images by more than their class: by noise.
        """
        if shift is not None:
            self.net.take_off(shift)
        self.net.fold()

    def on_fit_end(self) -> None:
        """Let go of the gradient: it may have hooks in the network."""
        close = getattr(self._gradient, "close", None)
        if close is not None:
            close()
        self._gradient = None

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> STEP_OUTPUT:
        """One logical batch, one step of the optimizer; the batch may be empty.

        Returns:
            The number of ``images`` that the step trained on, in all processes, and their
            ``accuracy``; of findings their ``loss``.
        """
        assert self._gradient is not None
        images, labels = batch
        logits = self._gradient(images, labels)
        optimizer: Any = self.optimizers()
        optimizer.step()
        schedule: Any = self.lr_schedulers()
        schedule.step()
        names = ("loss",) if self.multilabel else ("loss", "accuracy")
        means = torch.zeros(len(names), device=images.device)
        if len(labels):
            of_views = labels_of_views(labels, len(logits) // len(labels))
            losses = [example_losses(logits, of_views).mean()]
            if not self.multilabel:
                losses.append((logits.argmax(1) == of_views).float().mean())
            means = torch.stack(losses)
        means, count = self._ranks.mean(means, len(labels))
        if count:
            logged = {f"{NONPRIVATE}/{k}": v for k, v in zip(names, means, strict=True)}
            self.log_dict(logged, batch_size=count)
        return {"images": count, names[-1]: means[-1]}

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Count one batch of the validation split."""
        self._count(self.val_metrics, batch)

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        self._log_and_reset(self.val_metrics)

    def test_step(
        self, batch: tuple[Tensor, Tensor], batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Count one batch of the test (loader 0) or the validation split (1, if there is one)."""
        self._count(self.val_metrics if dataloader_idx else self.test_metrics, batch)

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> tuple[Tensor, Tensor]:
        """Logits (B, K) of one batch, in float32, and its labels."""
        images, labels = batch
        return self._logits(images), labels

    def count_training_images(self, logits: Tensor, labels: Tensor) -> None:
        """Count the training images, all at once, by their logits (n, K): before a test."""
        self.train_metrics.update(probabilities(logits, multilabel=self.multilabel), labels)

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the splits."""
        self.reliability = reliability(self.test_metrics)
        self.tested = counted_images(self.test_metrics)
        self._log_and_reset(self.test_metrics)
        self._log_and_reset(self.train_metrics)
        if self.trainer.num_test_batches[1:]:
            self._log_and_reset(self.val_metrics)

    def _logits(self, images: Tensor) -> Tensor:
        with last_layer_in_float32(self.net, images.device.type):
            logits: Tensor = self.net(images)
        return logits.float()

    def _count(self, metrics: MetricCollection, batch: tuple[Tensor, Tensor]) -> None:
        images, labels = batch
        metrics.update(probabilities(self._logits(images), multilabel=self.multilabel), labels)

    def _log_and_reset(self, metrics: MetricCollection) -> None:
        values = named(metrics, self.classes)
        metrics.reset()
        for name, value in values.items():
            self.log(name, value, add_dataloader_idx=False)
