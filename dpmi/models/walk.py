"""How far the noise of DP-SGD alone moves a weight, and the learning rate that bounds it.

Each step adds noise of the same size to the gradient of every weight, so that over a run each
weight walks at random. Pretrained weights have a standard deviation of some hundredths. A walk as
long as that replaces the network by a random one, whatever it has learned. The length follows from
the plan alone, so that no ε is spent on keeping it short.
"""

from __future__ import annotations

import math
import warnings

import torch

from dpmi.models.schedule import make_schedule


def noise_walk(schedule: str, steps: int, momentum: float) -> float:
    """Standard deviation of a weight after the last step, if nothing but noise moved it.

    Of noise N(0, 1) in the gradient of each step, at a peak learning rate of 1; it is proportional
    to both. Weight decay, which shortens it by little, is left out.

    Args:
        schedule: of the learning rate, as ``make_schedule`` knows it.
        steps: of the run, 1 or more.
        momentum: of SGD, as torch has it: velocity = momentum * velocity + gradient.
    """
    sgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    rates = make_schedule(schedule, sgd, steps)
    # Second moments of weight w and velocity v, both linear in the noise:
    # v' = momentum v + noise, w' = w - rate v'.
    ww, wv, vv = 0.0, 0.0, 0.0
    with warnings.catch_warnings():
        # That the optimizer made no step: it has no gradient, and hooks of real ones would see it.
        warnings.filterwarnings("ignore", message=".*before `optimizer.step()`")
        for _ in range(steps):
            rate = sgd.param_groups[0]["lr"]
            vv, wv = momentum**2 * vv + 1, momentum * wv
            ww, wv = ww - 2 * rate * wv + rate**2 * vv, wv - rate * vv
            rates.step()
    return math.sqrt(ww)
