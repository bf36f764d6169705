"""Poisson batches: each image, or patient, is in one by the same chance, independently."""

from __future__ import annotations

import numpy as np

from dpmi.privacy.plan import PrivacyPlan
from dpmi.privacy.randomness import NoiseSource

_WORDS = 2**64


class PoissonBatches:
    """The plan's batches, each a function of the secret key and its step.

    A batch may be empty, and is then a step like any other: leaving it out would make the number
    of steps depend on the data.

    Contract: an image, or a patient, is in a batch iff its own word of 64 bits is below
    floor(q 2^64), q being expected_batch_size / n: with a probability that is q or less by at most
    2^-64, so that ε at q bounds what is executed.

    Args:
        plan: gives n and the sample rate.
        steps_per_epoch: batches of one pass over the loader.
        source: of the randomness, which the receiver of the model must not know.
    """

    def __init__(self, plan: PrivacyPlan, steps_per_epoch: int, source: NoiseSource) -> None:
        self.plan, self.steps_per_epoch, self._source = plan, steps_per_epoch, source
        self._below = plan.expected_batch_size * _WORDS // plan.n

    def draw(self, step: int) -> list[int]:
        """Indices from 0 to n-1 of a step's batch, in order; an empty list is an empty batch."""
        words = self._source.stream("sampling", step).words(self.plan.n)
        # Compared with the largest word that is in: at q = 1 the bound itself is no word.
        members: list[int] = np.flatnonzero(words <= np.uint64(self._below - 1)).tolist()
        return members
