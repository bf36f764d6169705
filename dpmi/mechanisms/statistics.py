"""Statistics that a network is given before its first step, noised or not."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from dpmi.models.head import FeatureHead
from dpmi.models.prior import DecidingNetwork
from dpmi.privacy.statistics import TrainingSet

CENTRE, CLASS_COUNTS = "centre", "class_counts"


def statistic(train: TrainingSet | None, name: str) -> Tensor:
    """The exact statistic of this name: private, of sensitivity 1.

    Raises:
        ValueError: there are no images for it.
    """
    if train is None:
        raise ValueError(f"{name} is of training images, and none were given")
    return train.vector_sum() if name == CENTRE else train.class_counts()


def hand_over(net: nn.Module, name: str, value: Tensor, n: int) -> None:
    """Give a network the statistic of this name, of n images; its buffers keep it."""
    if name == CENTRE:
        cast(FeatureHead, net).centre.copy_(value / n)
    else:
        cast(DecidingNetwork, net).set_class_counts(value)
