"""Dividing a budget between statistics that are released once and the training steps.

Gaussian mechanisms compose exactly, as squares of μ = 1 / noise_multiplier (Dong, Roth and Su 2022,
arXiv 1905.02383, corollary 3.3). So shares are shares of μ², of the one Gaussian release that
satisfies (ε, δ); whatever the steps are, they get the noise that makes the whole reach ε.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import dp_accounting

from dpmi.privacy.accounting import calibrate_noise_multiplier
from dpmi.privacy.ledger import LedgerEntry
from dpmi.privacy.plan import StatisticRelease


def share_out(
    target_epsilon: float,
    delta: float,
    sample_rate: float,
    steps: int,
    accountant: str,
    shares: Mapping[str, float],
) -> tuple[tuple[StatisticRelease, ...], float]:
    """Noise of the statistics, and of the steps after them, that together reach ``target_epsilon``.

    Args:
        target_epsilon: of the whole.
        delta: of the whole.
        sample_rate: of the steps.
        steps: how many.
        accountant: "prv", "rdp" or "pld".
        shares: name of a statistic to its share; empty where nothing is released before the steps.

    Returns:
        The statistics, and the noise multiplier of each step.

    Raises:
        ValueError: the shares leave nothing for the steps; or no noise gives so small an ε.
    """
    if sum(shares.values()) >= 1:
        raise ValueError(f"shares of {sum(shares.values()):.3g} leave nothing for the steps")
    whole = float(dp_accounting.get_sigma_gaussian(target_epsilon, delta))
    statistics = tuple(
        StatisticRelease(name, whole / math.sqrt(share), share) for name, share in shares.items()
    )
    before = tuple(LedgerEntry(s.noise_multiplier, 1.0, 1) for s in statistics)
    noise_multiplier = calibrate_noise_multiplier(
        target_epsilon, delta, sample_rate, steps, accountant, before
    )
    return statistics, noise_multiplier
