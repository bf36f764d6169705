"""Statistics that a network is given before its first step, noised or not."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True)
class ExactStatistics:
    """Statistics handed over as they are: where nothing is promised, or not of what they tell.

    Attributes:
        train: what they are of.
        names: which, as in ``StatisticRelease``.
    """

    train: TrainingSet | None = None
    names: tuple[str, ...] = ()

    def hand_over(self, net: nn.Module, first_step: int) -> None:
        """Give them to a network before its first step; later it has them from a checkpoint.

        Raises:
            ValueError: there are no images for a statistic.
        """
        for name in () if first_step else self.names:
            value = statistic(self.train, name)
            hand_over(net, name, value, self.train.n if self.train else 0)


NO_STATISTICS = ExactStatistics()
