"""DP-SGD as the poster's authors ran it: microbatches and BatchNorm. It guarantees nothing."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from dpmi.data.batches import Batches
from dpmi.data.prepare import PreparedData
from dpmi.mechanisms.statistics import NO_STATISTICS, ExactStatistics
from dpmi.privacy.guarantee import Claim, Guarantee
from dpmi.privacy.microbatches import MicrobatchGradient
from dpmi.privacy.noise import GaussianNoise
from dpmi.privacy.randomness import NoiseSource


class DPSGDAsPublished:
    """Clips means of microbatches of shuffled batches, and adds the authors' noise.

    Args:
        microbatches: microbatches in a batch.
        max_grad_norm: norm to which a microbatch's mean gradient is clipped.
        noise_multiplier: standard deviation of the noise in units of ``max_grad_norm``.
        claim: what the authors said that this gives.
        noise: where the randomness comes from.
        statistics: that the network is given.
    """

    name = "dpsgd_published"

    def __init__(
        self,
        *,
        microbatches: int,
        max_grad_norm: float,
        noise_multiplier: float,
        claim: Claim,
        noise: NoiseSource,
        statistics: ExactStatistics = NO_STATISTICS,
    ) -> None:
        self._microbatches = microbatches
        self._bound, self._noise_multiplier = max_grad_norm, noise_multiplier
        self._claim, self._noise, self._statistics = claim, noise, statistics
        self._gradient: MicrobatchGradient | None = None

    def release_data(self, data: PreparedData) -> PreparedData:
        """Leave the images as they are."""
        return data

    def train_batches(self) -> Batches | None:
        """Shuffled batches of a fixed size, for which the authors' accounting does not hold."""
        return None

    def make_gradient(self, net: nn.Module, first_step: int = 0) -> MicrobatchGradient:
        """Noised mean of clipped means of microbatches."""
        self._statistics.hand_over(net, first_step)
        self._gradient = MicrobatchGradient(
            net,
            microbatches=self._microbatches,
            max_grad_norm=self._bound,
            noise_multiplier=self._noise_multiplier,
            noise=GaussianNoise(self._noise),
            first_step=first_step,
        )
        return self._gradient

    def settle(self, net: nn.Module, logits: Tensor) -> None:
        """Give the network its threshold, as it is."""
        self._statistics.settle(net, logits)

    def guarantee(self) -> Guarantee:
        """None; the ε that was claimed stands beside it as a claim."""
        reason = (
            "BatchNorm in training mode keeps statistics of the images without noise, and makes an "
            "image part of the gradient of every microbatch, of which the means are clipped: one "
            f"image moves their sum by up to {2 * self._microbatches} times max_grad_norm, not "
            "once; and batches are shuffled, but were accounted as Poisson"
        )
        return Guarantee.none(self.name, reason, self._claim)

    def spent(self) -> None:
        """Nothing that has an ε."""

    def describe(self) -> dict[str, Any]:
        """Return what was executed."""
        return {
            "microbatches": self._microbatches,
            "max_grad_norm": self._bound,
            "noise_multiplier": self._noise_multiplier,
            "steps": self._gradient.steps if self._gradient else 0,
        }
