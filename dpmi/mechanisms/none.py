"""No mechanism: the non-private original that the others are compared with."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn

from dpmi.data.batches import Batches
from dpmi.data.prepare import PreparedData
from dpmi.mechanisms.statistics import hand_over, statistic
from dpmi.models.gradient import Gradient, MeanGradient
from dpmi.privacy.guarantee import Guarantee
from dpmi.privacy.statistics import TrainingSet
from dpmi.ranks import ALONE, Ranks


class NonPrivate:
    """Clean images, shuffled batches, plain gradients, no promise.

    Args:
        ranks: who trains.
        train: what statistics are of.
        statistics: names of those that the network is given, as in ``StatisticRelease``.

    Raises:
        ValueError: there are no images for a statistic.
    """

    name = "none"

    def __init__(
        self,
        ranks: Ranks = ALONE,
        train: TrainingSet | None = None,
        statistics: Collection[str] = (),
    ) -> None:
        if statistics and train is None:
            raise ValueError(f"{', '.join(statistics)}: of training images, and none were given")
        self._ranks, self._train, self._statistics = ranks, train, statistics

    def release_data(self, data: PreparedData) -> PreparedData:
        """Leave the images as they are."""
        return data

    def train_batches(self) -> Batches | None:
        """Shuffled batches."""
        return None

    def make_gradient(self, net: nn.Module, first_step: int = 0) -> Gradient:
        """Plain mean gradient, after the network was given the statistics as they are."""
        if self._train is not None and not first_step:  # else a checkpoint has them
            for name in self._statistics:
                hand_over(net, name, statistic(self._train, name), self._train.n)
        return MeanGradient(net, self._ranks)

    def guarantee(self) -> Guarantee:
        """None."""
        return Guarantee.none(self.name, "trained on the images without any mechanism")

    def spent(self) -> None:
        """Nothing that could be told as an ε."""

    def describe(self) -> dict[str, Any]:
        """Nothing to add."""
        return {}
