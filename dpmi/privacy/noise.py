"""Gaussian noise for many parameters at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from dpmi.privacy.randomness import NoiseSource


class GaussianNoise:
    """Fills a buffer with independent N(0, std²), each generator its own part, side by side.

    Args:
        source: gives the generators of a step. How many there are changes the noise that is drawn,
            the number of threads does not.
    """

    def __init__(self, source: NoiseSource) -> None:
        self._source = source
        # PyTorch draws on one thread, and lets go of the interpreter meanwhile. Threads are kept:
        # starting them anew takes as long as drawing.
        self._threads = ThreadPoolExecutor(torch.get_num_threads())

    def fill(self, buffer: Tensor, std: float, step: int) -> None:
        """Overwrite ``buffer``, (P,) float32 and contiguous, with the noise of a step.

        Args:
            buffer: where the noise goes.
            std: standard deviation of each value.
            step: number of the release; the same step gives the same noise again.
        """
        generators = self._source.torch("gradient", step, buffer.device)
        parts = buffer.tensor_split(len(generators))
        if len(parts) == 1:
            parts[0].normal_(0.0, std, generator=generators[0])
            return
        draws = [
            self._threads.submit(part.normal_, 0.0, std, generator=generator)
            for part, generator in zip(parts, generators, strict=True)
        ]
        for draw in draws:
            draw.result()
