"""Which images are in the batch of which step: a function of the step, so that runs can resume."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
import torch
from torch.utils.data import Sampler

from dpmi.ranks import ALONE, Ranks


class Batches(Protocol):
    """The training batches of a whole run."""

    steps_per_epoch: int

    def draw(self, step: int) -> list[int]:
        """Return the indices of the images of a step, counted from 0 over the whole run."""
        ...


class ShuffledBatches:
    """Each image once an epoch, in an order that the seed and the epoch give.

    Args:
        n: images.
        batch_size: images in a batch; an epoch's last may be smaller.
        seed: of the order.
    """

    def __init__(self, n: int, batch_size: int, seed: int) -> None:
        self.steps_per_epoch = -(-n // batch_size)
        self._n, self._batch_size, self._seed = n, batch_size, seed
        self._epoch, self._order = -1, torch.empty(0)

    def draw(self, step: int) -> list[int]:
        """Indices from 0 to n-1."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(step_seed(self._seed, epoch))
            self._epoch, self._order = epoch, torch.randperm(self._n, generator=generator)
        start = place * self._batch_size
        members: list[int] = self._order[start : start + self._batch_size].tolist()
        return members


def step_seed(seed: int, step: int, stream: int = 0) -> int:
    """64 bits to seed what is public and drawn at a step (or epoch), in streams from 0."""
    words = [seed, step, stream] if stream else [seed, step]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])


class NumberedBatch(list[int]):
    """Indices of a batch, or of one process's part of it, that know their step over the run."""

    def __init__(self, indices: Iterable[int], step: int) -> None:
        super().__init__(indices)
        self.step = step


class StepSampler(Sampler[NumberedBatch]):
    """The batches of an epoch a pass; the first pass may begin in the middle of one.

    Args:
        batches: what is drawn.
        first_step: where the first pass begins; not 0 where a run is resumed.
        ranks: who trains: each process draws the whole batch, the same, and takes its part, which
            may be empty.
    """

    def __init__(self, batches: Batches, first_step: int = 0, ranks: Ranks = ALONE) -> None:
        self.batches, self.ranks, self._next_step = batches, ranks, first_step

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return self.batches.steps_per_epoch

    def __iter__(self) -> Iterator[NumberedBatch]:
        """Batches up to the end of the epoch."""
        length, first = self.batches.steps_per_epoch, self._next_step
        self._next_step = (first // length + 1) * length
        for step in range(first, self._next_step):
            yield NumberedBatch(self.ranks.part(self.batches.draw(step)), step)
