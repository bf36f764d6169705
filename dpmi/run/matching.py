"""Matching the threshold of a network trained on noised images to clean ones."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dpmi.data.datamodule import ImageDataset
from dpmi.data.prepare import PreparedData, Split
from dpmi.mechanisms import LocalDP, Mechanism
from dpmi.models.classifier import ImageClassifier

_BATCH = 64


def find_threshold(
    model: ImageClassifier,
    mechanism: Mechanism,
    train: Iterable[tuple[Tensor, Tensor]],
    data: PreparedData,
    image_size: int,
) -> None:
    """Find where a trained network decides, on the training images and on clean ones.

    Args:
        model: with the weights that are evaluated and kept.
        mechanism: that trained it.
        train: batches of the training images as training saw them.
        data: of the run, before the mechanism released any.
        image_size: side of the square that the network sees, in pixels.
    """
    mechanism.settle(model.net, lambda: _logits_of(model.net, train))
    reference = mechanism.reference(data) if isinstance(mechanism, LocalDP) else None
    model.decide_clean(clean_shift(model.net, *reference, image_size) if reference else None)


def clean_shift(net: nn.Module, clean: Split, noised: Split, image_size: int) -> Tensor:
    """Find how much the lack of noise moves the logits of images, in the mean.

    Noise moves all logits of a network much, and their order little: taken off, this shift leaves
    clean images with the threshold that training on noised ones has found. No label is looked at.

    Args:
        net: on its device.
        clean: images as they are.
        noised: the same, with noise of the training images' law.
        image_size: side of the square that the network sees, in pixels.

    Returns:
        (K,): mean logits of the clean images, less those of the noised ones.
    """
    return _mean_logits(net, clean, image_size) - _mean_logits(net, noised, image_size)


def _mean_logits(net: nn.Module, split: Split, image_size: int) -> Tensor:
    loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
        ImageDataset(split, image_size), batch_size=_BATCH, collate_fn=lambda batch: batch
    )
    return _logits_of(net, loader).double().mean(0).float()


@torch.no_grad()
def _logits_of(net: nn.Module, loader: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """(n, K) logits in evaluation, of what a loader gives, in its order; in float32."""
    device, training = next(net.parameters()).device, net.training
    net.eval()
    logits = torch.cat([net(images.to(device)).float() for images, _ in loader])
    net.train(training)
    return logits
