"""No mechanism: the non-private original that the others are compared with."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from dpmi.base.ranks import ALONE, Ranks
from dpmi.data.batches import Batches
from dpmi.data.prepare import PreparedData
from dpmi.mechanisms.statistics import NO_STATISTICS, ExactStatistics
from dpmi.models.gradient import Gradient, MeanGradient
from dpmi.privacy.guarantee import Guarantee


class NonPrivate:
    """Clean images, shuffled batches, plain gradients, no promise.

    Args:
        ranks: who trains.
        statistics: that the network is given.
        clip_norm: of a batch's gradient, for stability; None: whatever it is.
    """

    name = "none"

    def __init__(
        self,
        ranks: Ranks = ALONE,
        statistics: ExactStatistics = NO_STATISTICS,
        clip_norm: float | None = None,
    ) -> None:
        self._ranks, self._statistics, self._clip_norm = ranks, statistics, clip_norm

    def release_data(self, data: PreparedData) -> PreparedData:
        """Leave the images as they are."""
        return data

    def train_batches(self) -> Batches | None:
        """Shuffled batches."""
        return None

    def make_gradient(self, net: nn.Module, first_step: int = 0) -> Gradient:
        """Plain mean gradient, after the network was given the statistics as they are."""
        self._statistics.hand_over(net, first_step)
        return MeanGradient(net, self._ranks, self._clip_norm)

    def settle(self, net: nn.Module, logits: Tensor) -> None:
        """Give the network its threshold, as it is."""
        self._statistics.settle(net, logits)

    def guarantee(self) -> Guarantee:
        """None."""
        return Guarantee.none(self.name, "trained on the images without any mechanism")

    def spent(self) -> None:
        """Nothing that has an ε."""

    def describe(self) -> dict[str, Any]:
        """Nothing to add."""
        return {}
