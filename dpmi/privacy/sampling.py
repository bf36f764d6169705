"""Poisson batches: each image is in a batch with the same probability, independently."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from opacus.utils.uniform_sampler import UniformWithReplacementSampler
from torch.utils.data import Sampler

from dpmi.privacy.plan import PrivacyPlan


class PoissonBatchSampler(Sampler[list[int]]):
    """The plan's batches, ``steps_per_epoch`` a pass, drawn by Opacus' Poisson sampler.

    A batch may be empty, and is then a step like any other: leaving it out would make the number
    of steps depend on the data.

    Args:
        plan: gives n and the sample rate.
        steps_per_epoch: batches of one pass over the loader.
        generator: a CPU generator whose state the receiver of the model must not know.
    """

    def __init__(self, plan: PrivacyPlan, steps_per_epoch: int, generator: torch.Generator) -> None:
        self.plan = plan
        self._batches = UniformWithReplacementSampler(
            num_samples=plan.n,
            sample_rate=plan.sample_rate,
            generator=generator,
            steps=steps_per_epoch,
        )

    def __len__(self) -> int:
        """Batches of one pass."""
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        """Lists of indices from 0 to n-1; an empty list is an empty batch."""
        return iter(self._batches)
