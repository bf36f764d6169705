"""The worst case of one step: for several images at once, under either adjacency.

A step releases the sum of the clipped gradients of the images drawn, plus Gaussian noise; here in
units in which the clipping norm is 1. When ``images`` images change together, s of them are in the
batch with probability w_s = Binomial(images, sample_rate), and move the sum by a vector of norm s
at most. Given the rest of the batch, the release is a mixture of normals around 0 and these
vectors. Let A be any event, and H the half-space, orthogonal to a line, with N(0)(H) = N(0)(A). By
Neyman and Pearson no shift by v raises the probability of A by more than a shift by |v| along the
line raises that of H, nor lowers it by more than the opposite shift lowers that of H. So two
mixtures on the line bound what any event can reveal, and a single threshold is the best event for
them; they are a dominating pair, which composes over adaptive steps (Zhu, Dong and Wang 2022,
arXiv 2106.08567, theorem 10):

- zero-out (the images are replaced by some that contribute nothing): Σ w_s N(s, σ²) and N(0, σ²),
  in both orders, the mixture of Gaussians of Choquette-Choo et al. (2023, arXiv 2310.15526);
- replace-one (they are replaced by others): Σ w_s N(s, σ²) and Σ w_s N(-s, σ²), whose orders are
  the mirror images of each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from dp_accounting.pld import pld_pmf
from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution
from numpy.typing import NDArray
from scipy import special, stats

Adjacency = Literal["zero-out", "replace-one"]
Values = NDArray[np.float64]

TAIL = 1e-18  # probability in a step that is counted as a total loss of privacy: twice that in all
FINEST = 1e-4  # grid of privacy losses, as dp-accounting's
MOST_POINTS = 50_000  # of a step's grid, which is coarser where the losses are large
COARSEST = 1.0  # beyond which no ε that it gives is worth telling


@dataclass(frozen=True)
class DominatingPair:
    """Two mixtures of normals on a line, of unit variance: those above zero and those below it.

    Attributes:
        upper: means, (a,), none below zero, of the mixture that events are likelier under.
        upper_logs: logarithms of their weights, (a,).
        lower: means, (b,), none above zero, of the other.
        lower_logs: logarithms of their weights, (b,).
    """

    upper: Values
    upper_logs: Values
    lower: Values
    lower_logs: Values

    def losses(self, places: Values) -> Values:
        """Logarithm of the ratio of the densities at ``places``, (m,), which it grows with."""
        over = places[:, None] * self.upper - self.upper**2 / 2 + self.upper_logs
        under = places[:, None] * self.lower - self.lower**2 / 2 + self.lower_logs
        return np.asarray(special.logsumexp(over, axis=1) - special.logsumexp(under, axis=1))

    def bounds(self) -> tuple[float, float]:
        """Places beyond which the upper mixture has a probability of ``TAIL`` each way."""
        width = -special.ndtri(TAIL)
        left, low, high = self.upper.min() - width, self.upper.min(), self.upper.max() + width
        while high - low > 1e-3:  # its right end is far less than the largest mean's
            middle = (low + high) / 2
            beyond = special.logsumexp(self.upper_logs + special.log_ndtr(self.upper - middle))
            low, high = (middle, high) if beyond > math.log(TAIL) else (low, middle)
        return float(left), float(high)

    def deltas(self, epsilons: Values) -> Values:
        """Hockey-stick divergences at increasing ``epsilons``, (m,), and the tails cut off."""
        places = np.linspace(*self.bounds(), MOST_POINTS)
        for _ in range(2):  # the second time between neighbours that are close to what is sought
            thresholds = np.interp(epsilons, self.losses(places), places)
            places = np.sort(np.concatenate([places, thresholds]))
        over = self.upper_logs + special.log_ndtr(self.upper - thresholds[:, None])
        under = self.lower_logs + special.log_ndtr(self.lower - thresholds[:, None])
        deltas = np.exp(special.logsumexp(over, axis=1))
        deltas -= np.exp(epsilons + special.logsumexp(under, axis=1))
        return np.clip(np.maximum.accumulate(deltas[::-1])[::-1] + 2 * TAIL, 0, 1)


def dominating_pairs(
    noise_multiplier: float, sample_rate: float, images: int, adjacency: Adjacency
) -> list[DominatingPair]:
    """Of one step, for each order of the two data sets in which it differs.

    Args:
        noise_multiplier: standard deviation of the noise in units of the sensitivity.
        sample_rate: probability with which an image is in the batch, independently.
        images: how many images change at once.
        adjacency: what they are replaced by: nothing ("zero-out") or others ("replace-one").
    """
    drawn = np.arange(images + 1)
    # Those so improbable that they are among the tails; to forget them below is to err upward.
    drawn = drawn[stats.binom.sf(drawn - 1, images, sample_rate) > TAIL]
    logs = stats.binom.logpmf(drawn, images, sample_rate)
    drawn, logs = drawn[np.isfinite(logs)], logs[np.isfinite(logs)]
    means, nothing = drawn / noise_multiplier, np.zeros(1)
    if adjacency == "replace-one":
        return [DominatingPair(means, logs, -means, logs)]
    return [
        DominatingPair(means, logs, nothing, nothing),
        DominatingPair(nothing, nothing, -means, logs),
    ]


def grid_interval(pairs: list[DominatingPair]) -> float:
    """Spacing of a grid of losses that is fine enough, and has not too many points, for all."""
    widest = max(float(np.ptp(pair.losses(np.array(pair.bounds())))) for pair in pairs)
    return max(FINEST, widest / MOST_POINTS)


def loss_distribution(
    pairs: list[DominatingPair], steps: int, interval: float
) -> PrivacyLossDistribution:
    """Privacy loss of ``steps`` equal steps, rounded upward (Doroshenko et al. 2022).

    Args:
        pairs: a step's.
        steps: how many of them.
        interval: of the grid; the same for all that is composed.
    """
    composed = []
    for pair in pairs:
        first, last = pair.losses(np.array(pair.bounds())) / interval
        grid = np.arange(math.floor(first), math.ceil(last) + 1)
        step = pld_pmf.create_pmf_pessimistic_connect_dots_fixed_gap(
            interval, int(grid[0]), int(grid[-1]), pair.deltas(grid * interval)
        )
        composed.append(step.to_dense_pmf().self_compose(steps))
    return PrivacyLossDistribution(*composed)
