"""How the learning rate changes over a run: one fixed rule, the same under every mechanism."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    SequentialLR,
)

WARMUP = 0.1  # of the steps


def make_schedule(name: str, optimizer: Optimizer, steps: int) -> LRScheduler:
    """Make the schedule of a run; step it after every step of the optimizer.

    Args:
        name: "constant"; or "cosine": up to the optimizer's learning rate over the first tenth of
            the steps, then down along half a cosine (Loshchilov and Hutter 2017, arXiv 1608.03983,
            without restarts), to nothing after the last.
        optimizer: whose learning rate is the peak.
        steps: of the whole run, 1 or more.

    Raises:
        ValueError: another name.
    """
    if name == "constant":
        return ConstantLR(optimizer, factor=1.0)
    if name != "cosine":
        raise ValueError(f"schedule={name!r}: allowed are constant, cosine")
    warm = round(WARMUP * steps)
    if not warm:
        return CosineAnnealingLR(optimizer, steps)
    rise = LinearLR(optimizer, start_factor=1 / (warm + 1), total_iters=warm)
    return SequentialLR(optimizer, [rise, CosineAnnealingLR(optimizer, steps - warm)], [warm])
