"""From what an attacker got right to lower bounds on ε.

All tests are fixed before the run is looked at. Their intervals hold together with the confidence
asked for, so whatever is concluded from them does, too: the largest bound may be taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from dp_accounting.pld import privacy_loss_distribution as pld
from numpy.typing import NDArray
from scipy import stats

Values = NDArray[np.float64]

LEAST_NOISE = 0.1  # of a member of the family: below it ε is in the hundreds
_GRID = 4e-3  # of privacy losses, rounded upward; downward, errors of all steps add up
_DRIFT = 0.02  # that they may add up to
_EPSILONS = np.linspace(0.0, 15.0, 51)
_ROUNDING = 3e-3  # relative, of the noise multiplier found


@dataclass(frozen=True)
class Rates:
    """What is known of a test, that says of each canary whether it was included.

    Attributes:
        true_positive: lower bound of the probability that it says so of one that was.
        false_positive: upper bound of the probability that it says so of one that was not.
        advantage: lower bound of the first less the second; above what the two bounds give where
            it was measured as one proportion, of right guesses.
    """

    true_positive: float
    false_positive: float
    advantage: float

    def excess(self, epsilons: Values) -> Values:
        """Lower bound of δ(ε), the hockey-stick divergence, at ``epsilons``: either world first."""
        factor = np.exp(epsilons)
        one = self.true_positive - factor * self.false_positive
        other = (1 - self.false_positive) - factor * (1 - self.true_positive)
        at_zero = np.where(epsilons == 0, self.advantage, -np.inf)
        return np.maximum.reduce([one, other, at_zero])

    def epsilon(self, delta: float) -> float:
        """Lower bound of ε that holds whatever the mechanism: (ε, δ)-DP bounds TPR and FPR."""
        pairs = (
            (self.true_positive, self.false_positive),
            (1 - self.false_positive, 1 - self.true_positive),
        )
        bounds = [math.log((p - delta) / q) for p, q in pairs if p > delta and q > 0]
        return max([0.0, *bounds])

    def sampled(self, rate: float) -> Rates:
        """The same test of an image that is drawn with probability ``rate``, else without trace."""
        return Rates(rate * self.true_positive, self.false_positive, rate * self.advantage)


def measured(
    inside: Values, outside: Values, threshold: float, error: float, fair: bool = True
) -> Rates:
    """Bounds of the test "the score is above the threshold", by Clopper and Pearson (1934).

    Args:
        inside: scores of the canaries that were included; independent trials.
        outside: of those that were not.
        threshold: fixed beforehand.
        error: probability that any of the bounds does not hold; where coins are fair, half of it
            for the advantage.
        fair: whether the coins are.
    """
    hits, alarms = int((inside > threshold).sum()), int((outside > threshold).sum())
    passed = len(outside) - alarms
    each = error / 4 if fair else error / 2
    true_positive = at_least(hits, len(inside), each)
    false_positive = 1 - at_least(passed, len(outside), each)
    advantage = true_positive - false_positive
    if fair:  # a guess is right with probability (1 + TPR - FPR) / 2
        right = at_least(hits + passed, len(inside) + len(outside), error / 2)
        advantage = max(advantage, 2 * right - 1)
    return Rates(true_positive, false_positive, advantage)


def at_least(successes: int, trials: int, error: float) -> float:
    """Lower bound of a proportion that is wrong with probability ``error`` at most."""
    if successes == 0:
        return 0.0
    return float(stats.beta.ppf(error, successes, trials - successes + 1))


@dataclass(frozen=True)
class Family:
    """DP-SGD with the audited run's sample rate and steps, and any noise (Nasr et al. 2023).

    arXiv 2302.07956: where a test does better than any could against a member, the mechanism has
    not that member's trade-off curve. The bound is the ε of the member with the least noise that
    is refuted. It assumes that the mechanism is of the family; that a member is refuted does not.

    Attributes:
        sample_rate: with which an image enters a batch.
        steps: of the run.
    """

    sample_rate: float
    steps: int

    def epsilon(self, noise_multiplier: float, delta: float) -> float:
        """ε of a member, rounded downward."""
        losses = _losses(self.sample_rate, self.steps, noise_multiplier, False)
        return max(0.0, float(losses.get_epsilon_for_delta(delta)))

    def refutes(self, rates: Sequence[Rates], noise_multiplier: float) -> bool:
        """Whether what was measured is impossible for a member, whose δ(ε) is rounded upward."""
        allowed = _curve(self.sample_rate, self.steps, noise_multiplier)
        return any(bool((one.excess(_EPSILONS) > allowed).any()) for one in rates)

    def bound(self, rates: Sequence[Rates], delta: float, claimed: float) -> float:
        """ε of the least private member that is refuted.

        Args:
            rates: of all tests.
            delta: at which ε is stated.
            claimed: noise multiplier where the search begins.
        """
        noise = self.refuted(rates, claimed)
        return self.epsilon(noise, delta) if noise else 0.0

    def refuted(self, rates: Sequence[Rates], claimed: float) -> float | None:
        """The least noise multiplier with which a member is refuted, None where none is.

        Not below LEAST_NOISE, where ε is in the hundreds.
        """
        low, high = LEAST_NOISE, max(64 * claimed, 64 * LEAST_NOISE)
        if not self.refutes(rates, high):
            return None
        if self.refutes(rates, low):
            return low
        # The member refuted is near what is claimed, mostly.
        for guess in (claimed * 2, claimed / 1.5):
            if low < guess < high:
                low, high = (low, guess) if self.refutes(rates, guess) else (guess, high)
        while high / low > 1 + _ROUNDING:
            middle = math.sqrt(low * high)
            low, high = (low, middle) if self.refutes(rates, middle) else (middle, high)
        return high


@lru_cache(maxsize=512)
def _losses(
    sample_rate: float, steps: int, noise_multiplier: float, pessimistic: bool
) -> pld.PrivacyLossDistribution:
    step = pld.from_gaussian_mechanism(
        noise_multiplier,
        pessimistic_estimate=pessimistic,
        value_discretization_interval=_GRID if pessimistic else min(_GRID, _DRIFT / steps),
        sampling_prob=sample_rate,
        use_connect_dots=pessimistic,
    )
    return step.self_compose(steps)


@lru_cache(maxsize=512)
def _curve(sample_rate: float, steps: int, noise_multiplier: float) -> Values:
    losses = _losses(sample_rate, steps, noise_multiplier, True)
    return np.asarray(losses.get_delta_for_epsilon(list(_EPSILONS)))


def one_run(canaries: int, guesses: int, right: int, delta: float, error: float) -> float:
    """Lower bound of ε from one run with many canaries (Steinke, Nasr and Jagielski 2023).

    arXiv 2305.08846, theorem 5.2: whatever the mechanism, and however its canaries interact, the
    number of right guesses is stochastically at most Binomial(guesses, e^ε / (1 + e^ε)), but for
    what δ allows. The bound is the largest ε for which so many are improbable.

    Args:
        canaries: m, each included by a fair coin of its own.
        guesses: of which as many were guessed; the others abstained from.
        right: guesses that were right.
        delta: of the (ε, δ) that is bounded.
        error: probability that the bound does not hold.
    """

    def refuted(epsilon: float) -> bool:
        probability = 1 / (1 + math.exp(-epsilon))
        tail = float(stats.binom.sf(right - 1, guesses, probability))
        # max over i of P(right > W >= right - i) / i, as appendix D of the paper has it
        below = np.cumsum(stats.binom.pmf(np.arange(right - 1, -1, -1), guesses, probability))
        most = float((below / np.arange(1, right + 1)).max(initial=0.0))
        return tail + 2 * canaries * delta * most <= error

    if right == 0 or not refuted(0.0):
        return 0.0
    low, high = 0.0, 50.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low
