"""How well any attacker distinguishes two neighbouring data sets: hits over false alarms.

A test that says "it was there" has a false positive rate α and a true positive rate. The most that
any test of level α reaches is 1 - f(α), with f the trade-off function of the mechanism (Dong, Roth
and Su 2022, arXiv 1905.02383, definition 2.1). It is made here of the privacy profile δ(ε) of both
orders of the two data sets, by the duality of proposition 2.12: f(α) = sup over ε >= 0 of
max(0, 1 - δ(ε) - e^ε α, e^-ε (1 - δ(ε) - α)). That is convex and its own inverse, so that it holds
for who says "it was there" as for who says "it was not". Each ε gives two lines above the power of
every test: a δ that is rounded upward, or an ε that is left out, can only raise the bound.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from dpmi.privacy.accounting import History, composed_losses, history_of
from dpmi.privacy.dominating import Adjacency
from dpmi.privacy.spending import LedgerEntry

Values = NDArray[np.float64]

# The slope of a concave curve at α is at most 1/α: no larger ε is needed down to this level.
LEAST_RATE = 1e-4
_EPSILONS = math.log(1 / LEAST_RATE) * np.linspace(0, 1, 193) ** 2
_MANY = math.log(1 / LEAST_RATE) * np.linspace(0, 1, 2049) ** 2  # where they cost nothing
_COARSE = 1e-3  # relative, of what the grid of losses may add to δ(0): about half of it
_NOTHING = 1e-12  # a δ from which on larger ε say no more
_FLOATING = 1e-10  # what sums and Fourier transforms of a loss distribution may lose: far less
_STEEPEST = 700.0  # of an ε, whose line reaches 1 at a rate below any


@dataclass(frozen=True)
class TradeOff:
    """A bound of what any test reaches, from points of the privacy profile.

    Attributes:
        epsilons: from 0, increasing, (m,).
        deltas: upper bounds of the hockey-stick divergences at them, of both orders, (m,).
    """

    epsilons: Values
    deltas: Values

    @property
    def advantage(self) -> float:
        """Most that a true positive rate can be above its false positive rate: δ(0), at most 1."""
        return min(1.0, float(self.deltas[0]))

    def true_positive_rate(self, false_positive_rate: float) -> float:
        """Most that any test with at most this false positive rate reaches; both in [0, 1]."""
        alpha, factors = false_positive_rate, np.exp(np.minimum(self.epsilons, _STEEPEST))
        rising = factors * alpha + self.deltas
        levelling = 1 - (1 - self.deltas - alpha) / factors
        return float(min(1.0, rising.min(), levelling.min()))


def of_pure(epsilon: float) -> TradeOff:
    """Of ε-DP, exactly (Dong, Roth and Su 2022, equation 5 with δ = 0)."""
    return TradeOff(np.array([0.0, epsilon]), np.array([math.tanh(epsilon / 2), 0.0]))


def of_gaussian(mu: float) -> TradeOff:
    """Of a Gaussian mechanism that moves by ``mu`` standard deviations: that of G_μ.

    The profile in closed form (Balle and Wang 2018, arXiv 1805.06530, theorem 8; Dong, Roth and Su
    2022, corollary 2.13).
    """
    held = _MANY + special.log_ndtr(-mu / 2 - _MANY / mu)
    deltas = special.ndtr(mu / 2 - _MANY / mu) - np.exp(held)
    return TradeOff(_MANY, np.maximum(deltas, 0) + _FLOATING)


def of_ledger(entries: Sequence[LedgerEntry], adjacency: Adjacency, images: int = 1) -> TradeOff:
    """Of what a ledger says was released, for one image: both orders, whichever is worse.

    Args:
        entries: at least one.
        adjacency: what the image is replaced by.
        images: how many change at once, as all those of one patient do.

    Raises:
        ValueError: no entry.
    """
    if not entries:
        raise ValueError("nothing was released: there is nothing to distinguish")
    return _of_history(history_of(entries), adjacency, images)


@functools.lru_cache  # a run asks for it for its record and for its loggers
def _of_history(history: History, adjacency: Adjacency, images: int) -> TradeOff:
    if all(rate == 1.0 for _, rate, _ in history):
        ((noise_multiplier, _, _),) = history
        moved = images * (2 if adjacency == "replace-one" else 1)
        return of_gaussian(moved / noise_multiplier)
    # Of one image, which is finer than several need: it adds less to a larger δ.
    losses = composed_losses(history, adjacency, images, finest=_fine_enough(history))
    if losses is None:
        return TradeOff(np.zeros(1), np.ones(1))
    deltas: list[float] = []
    for epsilon in _EPSILONS:  # one by one: dp-accounting's way for several is a loop over losses
        deltas.append(float(losses.get_delta_for_epsilon(float(epsilon))) + _FLOATING)
        if deltas[-1] < _NOTHING + _FLOATING:
            break
    return TradeOff(_EPSILONS[: len(deltas)], np.array(deltas))


def _fine_enough(history: History) -> float:
    """A grid of losses that adds little to δ: finer ones cost seconds where losses are large.

    Rounding upward to a grid of h adds about h²/8 to the mean loss of a step. The whole is about a
    Gaussian mechanism of μ² = Σ steps q² (e^(1/σ²) - 1) (Bu et al. 2020, arXiv 1911.11607).
    """
    steps = sum(times for _, _, times in history)
    squares = [
        times * rate**2 * math.expm1(min(noise**-2, _STEEPEST)) for noise, rate, times in history
    ]
    mu = min(4.0, math.sqrt(sum(squares)))
    return math.sqrt(_COARSE * mu / steps)
