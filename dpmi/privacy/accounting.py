"""From executed steps to ε, and from ε to the noise that it needs.

Three accountants are offered under Opacus' names: ``prv`` (Gopi et al. 2021, arXiv 2106.02848)
and ``rdp`` (Mironov et al. 2019, arXiv 1908.10530) are Opacus'; ``pld`` is dp-accounting's
(Doroshenko et al. 2022, arXiv 2207.04380), registered with Opacus here so that all three are
called alike. Each gives an upper bound of the true ε; ``prv`` is within ``PRV_ERROR`` of it
(beyond an ε of 8, within 1/4000 of what ``rdp`` states), ``pld`` is the tightest, ``rdp`` the
loosest. They know zero-out adjacency and one image; for
replace-one and for several images of one patient ε comes from the dominating pairs of the steps.
"""

from __future__ import annotations

import bisect
import functools
import math
import warnings
from collections import Counter
from collections.abc import Sequence

import dp_accounting
import numpy as np
from dp_accounting import pld
from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution
from numpy.typing import NDArray
from opacus.accountants import IAccountant, create_accountant
from opacus.accountants.analysis import rdp
from opacus.accountants.registry import register_accountant
from scipy import optimize

from dpmi.privacy.dominating import (
    COARSEST,
    Adjacency,
    dominating_pairs,
    grid_interval,
    loss_distribution,
)
from dpmi.privacy.ledger import LedgerEntry
from dpmi.privacy.plan import PrivacyPlan, step_event

PRV_ERROR = 0.002  # PRV's additive error in ε; Opacus' default of 0.01 is 4 % of ε = 0.25
_PLD_INTERVAL = 1e-4  # of the privacy losses that PLD counts; dp-accounting's default
# Beyond this ε both grow with it: on grids as fine as for a small ε, the losses of a large one
# take more time and memory than there is.
_FINE_UP_TO = 8.0
CALIBRATION_TOLERANCE = 1e-3  # how far below the target ε the calibrated noise may end, relative
_LARGEST_NOISE = 1e6


class PldAccountant(IAccountant):
    """dp-accounting's privacy-loss-distribution accountant under Opacus' interface."""

    def __init__(self) -> None:
        super().__init__()

    def step(self, *, noise_multiplier: float, sample_rate: float) -> None:
        """Add one release to the history."""
        self.history.append((noise_multiplier, sample_rate, 1))

    def get_epsilon(self, delta: float) -> float:
        """ε of the history at ``delta``, under zero-out adjacency (REPLACE_SPECIAL)."""
        interval = _PLD_INTERVAL * _coarser(self.history, delta)
        accountant = pld.PLDAccountant(
            dp_accounting.NeighboringRelation.REPLACE_SPECIAL,
            value_discretization_interval=interval,
        )
        for noise_multiplier, sample_rate, steps in self.history:
            accountant.compose(step_event(noise_multiplier, sample_rate, steps))
        return float(accountant.get_epsilon(delta))

    def __len__(self) -> int:
        """Releases in the history."""
        return sum(steps for _, _, steps in self.history)

    @classmethod
    def mechanism(cls) -> str:
        """Name under which Opacus knows it."""
        return "pld"


register_accountant("pld", PldAccountant, force=True)

_rdp_of_steps = rdp.compute_rdp


@functools.lru_cache(maxsize=1 << 14)
def _rdp_of_a_step(q: float, noise_multiplier: float, order: float) -> float:
    return float(_rdp_of_steps(q=q, noise_multiplier=noise_multiplier, steps=1, orders=order))


def _remembered_rdp(
    *, q: float, noise_multiplier: float, steps: int, orders: Sequence[float] | float
) -> NDArray[np.float64] | float:
    """Opacus' ``compute_rdp``, to the bit."""
    if isinstance(orders, float):
        return _rdp_of_a_step(q, noise_multiplier, orders) * steps
    of_a_step = [_rdp_of_a_step(q, noise_multiplier, float(order)) for order in orders]
    return np.array(of_a_step) * steps


# Of a step with the same noise, PRV asks for the same 150 Rényi divergences twice a call and in
# every call, at 2.6 ms for each fractional order: most of what a small run would wait for.
rdp.compute_rdp = _remembered_rdp


def _coarser(history: Sequence[tuple[float, float, int]], delta: float) -> float:
    """How much coarser than for a small ε losses may be counted: RDP says how large ε is."""
    bound = create_accountant("rdp")
    bound.history = list(history)
    epsilon_ = bound.get_epsilon(delta)
    return max(1.0, epsilon_ / _FINE_UP_TO) if math.isfinite(epsilon_) else 1.0  # infinite at δ = 0


def epsilon(
    entries: Sequence[LedgerEntry],
    delta: float,
    accountant: str,
    adjacency: Adjacency = "zero-out",
    images: int = 1,
) -> float:
    """ε at ``delta`` of what ``entries`` say was released.

    Args:
        entries: a ledger's, or those of several runs on the same images, one after the other; none
            means that nothing was released.
        delta: the δ at which ε is stated.
        accountant: "prv", "rdp" or "pld": of one image under zero-out. All else is computed from
            privacy loss distributions, whichever is named, and is never less than that.
        adjacency: what an image is replaced by: "zero-out", by one that contributes nothing;
            "replace-one", by any other.
        images: how many images change at once, as all those of one patient do.

    Returns:
        An upper bound of ε; 0.0 for an empty ledger; infinite where a single step has losses in
        the ten thousands, and where the numbers of "prv" overflow, beyond an ε of about 350.

    Raises:
        ValueError: fewer than one image.
    """
    if images < 1:
        raise ValueError(f"images={images} must be at least 1")
    history = history_of(entries)
    if not history:
        return 0.0
    if accountant != "rdp" and all(rate == 1.0 for _, rate, _ in history):
        ((noise_multiplier, _, _),) = history
        moved = images * (2 if adjacency == "replace-one" else 1)
        return float(dp_accounting.get_epsilon_gaussian(noise_multiplier / moved, delta))
    epsilon_ = _by_accountant(history, delta, accountant)
    if (adjacency, images) == ("zero-out", 1):
        return epsilon_
    return max(epsilon_, _by_dominating_pairs(history, delta, adjacency, images))


History = tuple[tuple[float, float, int], ...]  # noise multiplier, sample rate, steps


@functools.lru_cache  # the guarantee of a run is stated more than once
def _by_accountant(history: History, delta: float, accountant: str) -> float:
    counting, prv = create_accountant(accountant), accountant == "prv"
    counting.history = list(history)
    try:
        # Opacus' PRV would go on with infinite numbers, and state less than there is.
        with np.errstate(over="raise" if prv else "warn"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Optimal order is")  # no user chooses them
            settings = {"eps_error": PRV_ERROR * _coarser(history, delta)} if prv else {}
            epsilon_ = float(counting.get_epsilon(delta, **settings))
    except (FloatingPointError, OverflowError):
        return math.inf
    return _bound(epsilon_)


def _bound(epsilon_: float) -> float:
    """As it may be stated: infinite where it is no number; prv and rdp go below 0 within δ."""
    return math.inf if math.isnan(epsilon_) else max(0.0, epsilon_)


@functools.lru_cache
def _by_dominating_pairs(
    history: History, delta: float, adjacency: Adjacency, images: int
) -> float:
    losses = composed_losses(history, adjacency, images)
    return math.inf if losses is None else _bound(float(losses.get_epsilon_for_delta(delta)))


def composed_losses(
    history: History, adjacency: Adjacency, images: int = 1, finest: float = 0.0
) -> PrivacyLossDistribution | None:
    """Privacy loss of a history in both orders, rounded upward; None where it is too large.

    Args:
        history: not empty.
        adjacency: as for :func:`epsilon`.
        images: as for it.
        finest: grid of losses that is fine enough; the finest there is where it is smaller.
    """
    kinds = [
        (dominating_pairs(noise, rate, images, adjacency), steps) for noise, rate, steps in history
    ]
    interval = max(finest, grid_interval([pair for pairs, _ in kinds for pair in pairs]))
    if interval > COARSEST:
        return None
    losses = [loss_distribution(pairs, steps, interval) for pairs, steps in kinds]
    return functools.reduce(lambda one, other: one.compose(other), losses)


def history_of(entries: Sequence[LedgerEntry]) -> History:
    """What entries say was released, releases of a kind put together.

    Releases over all images (sample rate 1) are Gaussian mechanisms, of which any number is
    exactly one, with 1/σ² the sum of theirs (Dong, Roth and Su 2022, arXiv 1905.02383, corollary
    3.3), however each depends on those before.
    """
    kinds: Counter[tuple[float, float]] = Counter()
    precision = 0.0
    for entry in entries:
        if entry.sample_rate == 1.0:
            precision += entry.steps / entry.noise_multiplier**2
        else:
            kinds[entry.noise_multiplier, entry.sample_rate] += entry.steps
    if precision:
        kinds[precision**-0.5, 1.0] = 1
    return tuple((*kind, times) for kind, times in kinds.items())


@functools.lru_cache  # the same run with another seed asks for it again
def calibrate_noise_multiplier(
    target_epsilon: float,
    delta: float,
    sample_rate: float,
    steps: int,
    accountant: str,
    before: tuple[LedgerEntry, ...] = (),
) -> float:
    """Noise multiplier with which steps reach a target ε, less at most the tolerance.

    Args:
        target_epsilon: of the whole.
        delta: of the whole.
        sample_rate: of the steps.
        steps: how many.
        accountant: "prv", "rdp" or "pld".
        before: what else is released from the same images, and part of ε.

    Raises:
        ValueError: no noise multiplier up to 10^6 gives an ε so small, or the accountant states
            none so large.
    """
    goal = target_epsilon * (1 - CALIBRATION_TOLERANCE / 2)

    def above(noise_multiplier: float) -> float:
        entries = [*before, LedgerEntry(noise_multiplier, sample_rate, steps)]
        return min(epsilon(entries, delta, accountant), 100 * goal) - goal  # finite, for a root

    # Many steps are nearly one Gaussian mechanism, of 1/σ = q sqrt(T (exp(1/σ_step²) - 1)): a place
    # to begin at (Bu et al. 2020, arXiv 1911.11607, section 3.1).
    whole = float(dp_accounting.get_sigma_gaussian(goal, delta))
    low = high = 1 / math.sqrt(math.log1p(1 / (whole * sample_rate) ** 2 / steps))
    while above(high) > 0:
        low, high = high, high * 2
        if high > _LARGEST_NOISE:
            raise ValueError(f"no noise up to {_LARGEST_NOISE:g} gives ε = {target_epsilon:.4g}")
    while above(low) <= 0:
        low, high = low / 2, low
    found = float(optimize.brentq(above, low, high, rtol=CALIBRATION_TOLERANCE / 8))
    while above(found) > goal * CALIBRATION_TOLERANCE / 2:  # past the target itself
        found *= 1 + CALIBRATION_TOLERANCE / 4
    if above(found) < -target_epsilon * CALIBRATION_TOLERANCE:
        other = "; pld does" if accountant == "prv" else ""
        raise ValueError(f"accountant={accountant} states no ε so large{other}")
    return found


def planned_entries(
    plan: PrivacyPlan, steps: int, beside: Sequence[LedgerEntry] = ()
) -> list[LedgerEntry]:
    """What a plan has released after ``steps`` steps, its statistics, and what counts beside it."""
    statistics = [LedgerEntry(s.noise_multiplier, 1.0, 1) for s in plan.statistics]
    of_steps = [LedgerEntry(plan.noise_multiplier, plan.sample_rate, steps)] * bool(steps)
    return [*beside, *statistics, *of_steps]


def steps_within(max_epsilon: float, plan: PrivacyPlan, beside: Sequence[LedgerEntry] = ()) -> int:
    """Most steps of a plan with which ε stays within ``max_epsilon``.

    ε grows with the steps, so bisection finds them in log2(steps) calls of the accountant.

    Args:
        max_epsilon: the budget.
        plan: gives statistics, noise, sampling, δ, accountant, and how many steps are asked for.
        beside: released from the same images otherwise, and part of ε: what was lost, and what
            the weights before training took.
    """

    def passes(steps: int) -> bool:
        entries = planned_entries(plan, steps, beside)
        return epsilon(entries, plan.delta, plan.accountant) > max_epsilon

    return bisect.bisect_left(range(1, plan.steps + 1), True, key=passes)


class EpsilonSchedule:
    """ε after each step of a plan, at the price of a look-up.

    An accountant takes 10 to 200 ms a call, far too long for every step. ε grows with the steps,
    so it is computed at ``points`` steps and the value at a step is that of the next of
    them: exact there, at most one interval ahead in between, and never too small.

    Args:
        plan: gives statistics, noise, sampling, δ and accountant.
        beside: released from the same images otherwise, and part of ε, as for ``steps_within``.
        points: how many values are computed.
    """

    def __init__(
        self, plan: PrivacyPlan, beside: Sequence[LedgerEntry] = (), points: int = 8
    ) -> None:
        self._marks = sorted({-(-plan.steps * k // points) for k in range(1, points + 1)})
        self._epsilons = [
            epsilon(planned_entries(plan, mark, beside), plan.delta, plan.accountant)
            for mark in self._marks
        ]

    def at(self, steps: int) -> float:
        """Upper bound of ε after ``steps`` steps, from 1.

        Raises:
            ValueError: more steps than there should be.
        """
        for mark, value in zip(self._marks, self._epsilons, strict=True):
            if steps <= mark:
                return value
        raise ValueError(f"step {steps} is past the last, {self._marks[-1]}")
