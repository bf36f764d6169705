"""The processes that train one model together, one a device, and what they exchange."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

_T = TypeVar("_T")


@dataclass(frozen=True)
class Ranks:
    """One process among those of a run.

    Of several, all must make the same calls in the same order: each waits for the others.

    Attributes:
        rank: of this process, from 0.
        size: how many there are; more than one needs torch's default process group.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes files."""
        return self.rank == 0

    def part(self, whole: Any) -> Any:
        """Return this process's share of a list or (n, ...) tensor; each item is in one share."""
        return whole[self.rank :: self.size]

    def sum(self, tensor: Tensor) -> None:
        """Replace a tensor by the sum of all processes' tensors, the same to the bit in each."""
        if self.size > 1:
            dist.all_reduce(tensor)

    def gather(self, *values: int) -> list[list[int]]:
        """Whole numbers of all processes, a row for each."""
        if self.size == 1:
            return [list(values)]
        own = torch.tensor(values)
        rows = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(rows, own)
        return [row.tolist() for row in rows]

    def mean(self, values: Tensor, count: int) -> tuple[Tensor, int]:
        """Means over all processes' items, of means over ``count`` items in each, and their number.

        Args:
            values: (k,) means; left out where ``count`` is 0.
            count: items of this process.
        """
        if self.size == 1:
            return values, count
        counts = [row[0] for row in self.gather(count)]
        shares = values * (count / max(1, sum(counts))) if count else torch.zeros_like(values)
        self.sum(shares)
        return shares, sum(counts)

    def any(self, *flags: bool) -> list[bool]:
        """Whether each flag is up in one process or more."""
        return [any(column) for column in zip(*self.gather(*flags), strict=True)]

    def from_first(self, make: Callable[[], _T]) -> _T:
        """What the first process makes, handed to all."""
        if self.size == 1:
            return make()
        made: list[Any] = [make() if self.is_first else None]
        dist.broadcast_object_list(made, device=torch.device("cpu"))
        result: _T = made[0]
        return result


ALONE = Ranks()
