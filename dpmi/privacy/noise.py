"""Gaussian noise for many parameters at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpmi.privacy.lattice import BLOCK, LatticeGaussian, lattice_gaussian
from dpmi.privacy.randomness import NoiseSource, SecretStream

PIECE = 1 << 18  # values with a stream of their own
_STEPS_IN_STD = 2.0**16


class GaussianNoise:
    """Releases sums with Gaussian noise on a lattice, pieces of them side by side.

    The noise is drawn on the CPU wherever the sums are, for there the stream is.

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
        self._host: Tensor | None = None

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
        if sums.device.type == "cpu":
            self._release(sums.numpy(), law, unit, self._source.stream(purpose, step))
            return
        if self._host is None or self._host.shape != sums.shape:
            self._host = torch.empty(sums.shape, dtype=sums.dtype, pin_memory=sums.is_cuda)
        self._host.copy_(sums)
        self._release(self._host.numpy(), law, unit, self._source.stream(purpose, step))
        sums.copy_(self._host)

    def fill(self, buffer: Tensor, std: float, step: int) -> None:
        """Overwrite ``buffer``, as :meth:`release` takes it, with noise of ``std`` alone."""
        buffer.zero_()
        self.release(buffer, lattice_gaussian(_STEPS_IN_STD), std / _STEPS_IN_STD, step)

    def _release(
        self, sums: NDArray[Any], law: LatticeGaussian, unit: float, stream: SecretStream
    ) -> None:
        starts = range(0, len(sums), PIECE)
        parts = stream.spawn(len(starts))
        pieces = [
            (sums[start : start + PIECE], part) for start, part in zip(starts, parts, strict=True)
        ]

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

        workers = self._workers
        shares = [self._threads.submit(work, pieces[first::workers]) for first in range(workers)]
        for share in shares:
            share.result()
