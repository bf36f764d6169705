"""Public images that the program draws: to pretrain on, and to whiten features by."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpmi.data.parallel import cpu_count
from dpmi.data.phantoms.public import Subject, draw_public

_WORTH_A_PROCESS = 1000  # images, which take a process longer to draw than to start


def draw_images(
    subject: Subject,
    seed: int,
    count: int,
    size: int,
    progress: Callable[[], None] = lambda: None,
) -> tuple[Tensor, Tensor]:
    """Draw public phantoms.

    Args:
        subject: chests or retinas.
        seed: of the images.
        count: n, how many.
        size: side in pixels.
        progress: called after each.

    Returns:
        Images, uint8 (n, 3, size, size), and their classes, (n,).
    """
    draw = partial(draw_public, subject, seed, size=size)
    # Drawing holds the interpreter's lock: processes draw side by side, threads do not.
    workers = min(cpu_count(), count // _WORTH_A_PROCESS)
    if workers < 2:
        return _stacked(map(draw, range(count)), count, size, progress)
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        drawn = pool.map(draw, range(count), chunksize=50)
        return _stacked(drawn, count, size, progress)


def _stacked(
    drawn: Iterable[tuple[NDArray[np.uint8], int]],
    count: int,
    size: int,
    progress: Callable[[], None],
) -> tuple[Tensor, Tensor]:
    images = torch.empty(count, 3, size, size, dtype=torch.uint8)
    labels = torch.empty(count, dtype=torch.long)
    for index, (image, label) in enumerate(drawn):
        images[index] = torch.from_numpy(image).permute(2, 0, 1)
        labels[index] = label
        progress()
    return images, labels
