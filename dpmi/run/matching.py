"""Where a trained network decides: on the training images, and on clean ones after noised ones."""

from __future__ import annotations

from typing import cast

import pytorch_lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from dpmi.data.datamodule import ImageDataset
from dpmi.data.prepare import PreparedData, Split
from dpmi.mechanisms import LocalDP, Mechanism
from dpmi.models.classifier import ImageClassifier

_BATCH = 64
Loader = DataLoader[tuple[Tensor, Tensor]]


def find_threshold(
    model: ImageClassifier,
    trainer: L.Trainer,
    mechanism: Mechanism,
    train: Loader,
    data: PreparedData,
    image_size: int,
) -> None:
    """Find where a trained network decides; count the training images, decided so.

    Args:
        model: with the weights that are evaluated and kept.
        trainer: that trained it: its device and precision are those of the logits.
        mechanism: that trained it.
        train: batches of the training images as training saw them.
        data: of the run, before the mechanism released any.
        image_size: side of the square that the network sees, in pixels.
    """
    logits, labels = _logits_of(model, trainer, train)
    before = model.net.log_shares.clone()
    mechanism.settle(model.net, logits)
    model.count_training_images(logits - (model.net.log_shares - before), labels)
    reference = mechanism.reference(data) if isinstance(mechanism, LocalDP) else None
    model.decide_clean(clean_shift(model, trainer, *reference, image_size) if reference else None)


def clean_shift(
    model: ImageClassifier, trainer: L.Trainer, clean: Split, noised: Split, image_size: int
) -> Tensor:
    """Find how much the lack of noise moves the logits of images, in the mean.

    Noise moves all logits of a network much, and their order little: taken off, this shift leaves
    clean images with the threshold that training on noised ones has found. No label is looked at.

    Args:
        model: trained.
        trainer: of it.
        clean: images as they are.
        noised: the same, with noise of the training images' law.
        image_size: side of the square that the network sees, in pixels.

    Returns:
        (K,): mean logits of the clean images, less those of the noised ones.
    """
    means = []
    for split in (clean, noised):
        loader: Loader = DataLoader(
            ImageDataset(split, image_size), batch_size=_BATCH, collate_fn=lambda batch: batch
        )
        logits, _ = _logits_of(model, trainer, loader)
        means.append(logits.double().mean(0).float())
    return means[0] - means[1]


def _logits_of(model: ImageClassifier, trainer: L.Trainer, loader: Loader) -> tuple[Tensor, Tensor]:
    """(n, K) logits in evaluation, and labels, of what a loader gives, in its order."""
    batches = cast(list[tuple[Tensor, Tensor]], trainer.predict(model, dataloaders=loader))
    logits, labels = zip(*batches, strict=True)
    return torch.cat(logits), torch.cat(labels)
