"""95 % intervals of a figure, over seeds or over test images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Literal

from scipy.stats import binomtest, t

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A confidence interval within [0, 1].

    Attributes:
        low, high: its ends.
        over: what was drawn anew: "seeds" (Student's t for the mean) or "images" (Wilson's score).
        n: how many.
    """

    low: float
    high: float
    over: Literal["seeds", "images"]
    n: int


def over_seeds(values: Sequence[float]) -> Interval:
    """Of the mean of independent repeats: mean ± t(n - 1) s/√n, cut to [0, 1].

    Args:
        values: shares, one a seed; at least two.

    Raises:
        ValueError: a single value says nothing of its spread.
    """
    n = len(values)
    if n < 2:
        raise ValueError("an interval over seeds needs at least two values")
    low, high = around_mean(values)
    return Interval(max(0.0, low), min(1.0, high), "seeds", n)


def around_mean(values: Sequence[float]) -> tuple[float, float]:
    """The ends mean ± t(n - 1) s/√n of two or more independent values, wherever they lie."""
    n, middle = len(values), mean(values)
    half = float(t.ppf((1 + LEVEL) / 2, n - 1)) * stdev(values) / math.sqrt(n)
    return middle - half, middle + half


def over_images(share: float, images: int) -> Interval:
    """Of the share that one network gets right, had other images been drawn (Wilson 1927).

    Args:
        share: of the images, in [0, 1].
        images: how many.
    """
    found = binomtest(round(share * images), images).proportion_ci(LEVEL, method="wilson")
    return Interval(float(found.low), float(found.high), "images", images)
