"""Which images are in the batch of which step: a function of the step, so that runs can resume."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler

from dpmi.base.ranks import ALONE, Ranks


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
        batch_size: images in a batch; an epoch's last may be smaller. A single image that would be
            left over joins the batch before: BatchNorm has nothing to compare one image with.
        seed: of the order.
    """

    def __init__(self, n: int, batch_size: int, seed: int) -> None:
        left_over = 1 if batch_size > 1 and n > batch_size and n % batch_size == 1 else 0
        self.steps_per_epoch = -(-(n - left_over) // batch_size)
        self._n, self._batch_size, self._seed = n, batch_size, seed
        self._epoch, self._order = -1, torch.empty(0)

    def draw(self, step: int) -> list[int]:
        """Indices from 0 to n-1."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(step_seed(self._seed, epoch))
            self._epoch, self._order = epoch, torch.randperm(self._n, generator=generator)
        start = place * self._batch_size
        end = self._n if place == self.steps_per_epoch - 1 else start + self._batch_size
        members: list[int] = self._order[start:end].tolist()
        return members


def step_seed(seed: int, step: int, stream: int = 0) -> int:
    """64 bits to seed what is public and drawn at a step (or epoch), in streams from 0."""
    words = [seed, step, stream] if stream else [seed, step]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])


def uniform_of(
    indices: Sequence[int] | NDArray[np.int64], count: int, key: int
) -> NDArray[np.float64]:
    """``(count, len(indices))`` values in [0, 1): elements of the SplitMix64 sequence of ``key``.

    Steele, Lea and Flood 2014, "Fast Splittable Pseudorandom Number Generators": element number j
    of the sequence is a hash of key + j γ, so those of an index are had without those of others.
    It is no cryptographic generator: for what is public, such as augmentation.
    """
    number = np.asarray(indices, dtype=np.uint64) * np.uint64(count)
    element = number + np.arange(1, count + 1, dtype=np.uint64)[:, None]
    z = np.uint64(key) + element * np.uint64(0x9E3779B97F4A7C15)  # modulo 2^64, as all below
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


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
