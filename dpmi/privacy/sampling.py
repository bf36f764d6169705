"""Poisson batches: each image is in a batch with the same probability, independently."""

from __future__ import annotations

import torch

from dpmi.privacy.plan import PrivacyPlan
from dpmi.privacy.randomness import NoiseSource


class PoissonBatches:
    """The plan's batches, each a function of the secret key and its step.

    A batch may be empty, and is then a step like any other: leaving it out would make the number
    of steps depend on the data.

    Args:
        plan: gives n and the sample rate.
        steps_per_epoch: batches of one pass over the loader.
        source: of the randomness, which the receiver of the model must not know.
    """

    def __init__(self, plan: PrivacyPlan, steps_per_epoch: int, source: NoiseSource) -> None:
        self.plan, self.steps_per_epoch, self._source = plan, steps_per_epoch, source

    def draw(self, step: int) -> list[int]:
        """Indices from 0 to n-1 of a step's batch, in order; an empty list is an empty batch."""
        generator = self._source.torch("sampling", step)[0]
        drawn = torch.rand(self.plan.n, generator=generator, dtype=torch.float64)
        members: list[int] = (drawn < self.plan.sample_rate).nonzero().flatten().tolist()
        return members
