"""Gaussian noise for many parameters at once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor


class GaussianNoise:
    """Fills a buffer with independent N(0, std²), each generator its own part, side by side.

    Args:
        generators: independent generators, all on the buffer's device. How many there are changes
            the noise that is drawn, the number of threads does not.
    """

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self._generators = tuple(generators)
        # PyTorch draws on one thread, and lets go of the interpreter meanwhile. Threads are kept:
        # starting them anew takes as long as drawing.
        self._threads = ThreadPoolExecutor(torch.get_num_threads())

    def fill(self, buffer: Tensor, std: float) -> None:
        """Overwrite ``buffer``, (P,) float32 and contiguous.

        Args:
            buffer: where the noise goes.
            std: standard deviation of each value.
        """
        parts = buffer.tensor_split(len(self._generators))
        if len(parts) == 1:
            parts[0].normal_(0.0, std, generator=self._generators[0])
            return
        draws = [
            self._threads.submit(part.normal_, 0.0, std, generator=generator)
            for part, generator in zip(parts, self._generators, strict=True)
        ]
        for draw in draws:
            draw.result()
