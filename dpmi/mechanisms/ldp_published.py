"""LDP as the poster's authors ran it: one Laplace number per image. It guarantees nothing."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from torch import Tensor, nn

from dpmi.base.ranks import ALONE, Ranks
from dpmi.data.batches import Batches
from dpmi.data.prepare import PreparedData
from dpmi.mechanisms.statistics import NO_STATISTICS, ExactStatistics
from dpmi.models.gradient import Gradient, MeanGradient
from dpmi.privacy.guarantee import Claim, Guarantee
from dpmi.privacy.published import blank, expected_blank_share, scalar_laplace
from dpmi.privacy.randomness import NoiseSource

REASON = (
    "one number is added to all pixels of an image: the differences between pixels, that is the "
    "image, stay in clear"
)


class LocalDPAsPublished:
    """Shifts the brightness of each training image at random, and saturates it.

    Args:
        beta: scale of the number, a pixel being in [0, 1]; the authors claim ε = 1/β.
        noise: where the randomness comes from.
        ranks: who trains; each process draws the same numbers.
        statistics: that the network is given.
    """

    name = "ldp_published"

    def __init__(
        self,
        beta: float,
        noise: NoiseSource,
        ranks: Ranks = ALONE,
        statistics: ExactStatistics = NO_STATISTICS,
    ) -> None:
        self._beta, self._noise, self._ranks = beta, noise, ranks
        self._statistics = statistics
        self._executed: dict[str, Any] = {}

    def release_data(self, data: PreparedData) -> PreparedData:
        """Draw the numbers of this run, once; the other splits stay clean."""
        train = data.splits["train"]
        stream = self._noise.stream("laplace_train")
        pixels = scalar_laplace(train.pixels, self._beta, stream)
        self._executed = {
            "nonprivate/blank_share": float(blank(pixels).mean()),
            "nonprivate/expected_blank_share": expected_blank_share(train.pixels, self._beta),
            "least_blank_share": float(np.exp(-1 / self._beta)),
            "nonprivate/majority_share": float(np.bincount(train.labels).max() / len(train.labels)),
        }
        noised = dataclasses.replace(train, pixels=pixels)
        return dataclasses.replace(data, splits=data.splits | {"train": noised})

    def train_batches(self) -> Batches | None:
        """Shuffled batches."""
        return None

    def make_gradient(self, net: nn.Module, first_step: int = 0) -> Gradient:
        """Plain mean gradient."""
        self._statistics.hand_over(net, first_step)
        return MeanGradient(net, self._ranks)

    def settle(self, net: nn.Module, logits: Tensor) -> None:
        """Give the network its threshold, as it is."""
        self._statistics.settle(net, logits)

    def guarantee(self) -> Guarantee:
        """None; the ε that was claimed stands beside it as a claim."""
        claim = Claim(1 / self._beta, 0.0, "image", "the poster's authors")
        return Guarantee.none(self.name, REASON, claim)

    def spent(self) -> None:
        """Nothing that has an ε."""

    def describe(self) -> dict[str, Any]:
        """Return the closed form of the share of blank images, and what was drawn."""
        return dict(self._executed)
