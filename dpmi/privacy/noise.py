"""Gaussian noise for many parameters at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpmi.base import devices
from dpmi.privacy.lattice import BLOCK, LatticeGaussian, lattice_gaussian
from dpmi.privacy.randomness import NoiseSource, SecretStream

PIECE = 1 << 18  # values with a stream of their own
_STEPS_IN_STD = 2.0**16
_ADDED_AT_ONCE = 1 << 24  # values, on another device: what is made of them takes 16 bytes each


@dataclass(frozen=True)
class _Drawing:
    """Noise of a release under way: what it is of, where it comes to stand, who draws it."""

    of: tuple[str, int, float, int]
    noise: Tensor
    shares: list[Future[None]]

    def wait(self) -> Tensor:
        for share in self.shares:
            share.result()
        return self.noise


class GaussianNoise:
    """Releases sums with Gaussian noise on a lattice, pieces of them side by side.

    The noise is drawn on the CPU wherever the sums are, for there the stream is. For sums on
    another device it is drawn one step ahead, while that computes, copied there in the background,
    and added there by the same arithmetic, which is exact: nothing waits for the device, and what
    is released is the same to the bit. Noise that was drawn and not added is no release.

    Args:
        source: gives the stream of a step. How many threads draw changes nothing.
    """

    def __init__(self, source: NoiseSource) -> None:
        self._source = source
        # NumPy works on one thread, and lets go of the interpreter meanwhile. Threads are kept:
        # starting them anew takes as long as drawing. They start here: where memory has run out,
        # Python waits for ever for a thread that could not begin.
        self._workers = torch.get_num_threads()
        self._threads, all_there = ThreadPoolExecutor(self._workers), Barrier(self._workers)
        for _ in range(self._workers):
            self._threads.submit(all_there.wait)
        self._ahead: _Drawing | None = None
        self._copied: list[tuple[Tensor, torch.cuda.Event | None]] = []  # and when it was

    def release(
        self, sums: Tensor, law: LatticeGaussian, unit: float, step: int, purpose: str = "gradient"
    ) -> None:
        """Replace ``sums`` by (round(sums) + n) * ``unit``, with an n of ``law`` for each.

        Both round(sums) and n are integers below 2^52, whose sum double precision holds exactly;
        what follows is post-processing.

        Args:
            sums: (P,) floating point and contiguous, in steps of the lattice.
            law: of the noise.
            unit: what a step is worth.
            step: number of the release; the same step gives the same noise again.
            purpose: of the stream.
        """
        if devices.on_host(sums):
            self._release(sums.numpy(), law, unit, self._source.stream(purpose, step))
            return
        drawing, self._ahead = self._ahead, None
        if drawing is None or drawing.of != (purpose, step, law.std, len(sums)):
            drawing = self._draw(purpose, step, law, sums)
        _add_where_they_are(sums, drawing.wait(), unit)
        copied = torch.cuda.Event() if sums.is_cuda else None
        if copied:
            copied.record()
        self._copied.append((drawing.noise, copied))
        self._ahead = self._draw(purpose, step + 1, law, sums)

    def fill(self, buffer: Tensor, std: float, step: int) -> None:
        """Overwrite ``buffer``, as :meth:`release` takes it, with noise of ``std`` alone."""
        buffer.zero_()
        self.release(buffer, lattice_gaussian(_STEPS_IN_STD), std / _STEPS_IN_STD, step)

    def _draw(self, purpose: str, step: int, law: LatticeGaussian, like: Tensor) -> _Drawing:
        kind = torch.int32 if law.dtype == np.int32 else torch.int64
        noise = self._memory(len(like), kind, like.is_cuda)

        def work(share: list[tuple[NDArray[Any], SecretStream]]) -> None:
            for values, part in share:
                law.draw(part, values)

        shares = self._begin(noise.numpy(), self._source.stream(purpose, step), work)
        return _Drawing((purpose, step, law.std, len(like)), noise, shares)

    def _memory(self, size: int, kind: torch.dtype, pinned: bool) -> Tensor:
        """That of the release before the last, when it was copied; so a step waits for no other."""
        if len(self._copied) > 1:
            noise, copied = self._copied.pop(0)
            if copied:
                copied.synchronize()
            if (len(noise), noise.dtype) == (size, kind):
                return noise
        return torch.empty(size, dtype=kind, pin_memory=pinned)

    def _release(
        self, sums: NDArray[Any], law: LatticeGaussian, unit: float, stream: SecretStream
    ) -> None:
        def work(share: list[tuple[NDArray[Any], SecretStream]]) -> None:
            # Made once: memory that is had anew costs a thread as much as the drawing.
            noise, total = np.empty(PIECE, law.dtype), np.empty(BLOCK)
            for values, part in share:
                law.draw(part, noise[: len(values)])
                for start in range(0, len(values), BLOCK):
                    block = values[start : start + BLOCK]
                    wide = total[: len(block)]
                    np.rint(block, out=block)
                    np.copyto(wide, block)
                    wide += noise[start : start + len(block)]
                    wide *= unit
                    block[:] = wide

        for share in self._begin(sums, stream, work):
            share.result()

    def _begin(
        self,
        values: NDArray[Any],
        stream: SecretStream,
        work: Callable[[list[tuple[NDArray[Any], SecretStream]]], None],
    ) -> list[Future[None]]:
        """Share the pieces of ``values``, each with a stream of its own, out among the threads."""
        starts = range(0, len(values), PIECE)
        parts = stream.spawn(len(starts))
        pieces = [
            (values[start : start + PIECE], part) for start, part in zip(starts, parts, strict=True)
        ]
        workers = self._workers
        return [self._threads.submit(work, pieces[first::workers]) for first in range(workers)]


def _add_where_they_are(sums: Tensor, noise: Tensor, unit: float) -> None:
    """(round(sums) + noise) * unit, in double; ``noise`` is on the host, and is not waited for."""
    for start in range(0, len(sums), _ADDED_AT_ONCE):
        part, drawn = (values[start : start + _ADDED_AT_ONCE] for values in (sums, noise))
        there = torch.empty_like(part, dtype=drawn.dtype).copy_(drawn, non_blocking=True)
        part.copy_(part.round().double().add_(there).mul_(unit))
