"""The highest true positive rate that a guarantee allows an attack on one image.

The one place where an attack is compared with what was promised.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from dpmi.privacy.accounting import epsilon
from dpmi.privacy.spending import LedgerEntry

_DELTAS = tuple(10.0 ** -(k / 2) for k in range(2, 21))  # 0.1 to 1e-10


def highest_true_positive(
    entries: Sequence[LedgerEntry], accountant: str, false_positive: NDArray[np.float64]
) -> tuple[NDArray[np.float64], str]:
    """Of any test between a training set and the same with one image zeroed out.

    Where every release is of all images it is exact: Gaussian mechanisms compose to one with
    μ² = Σ 1/σ², whose trade-off is Φ(Φ⁻¹(FPR) + μ) (Dong, Roth and Su 2022, arXiv 1905.02383,
    equation 6 and corollary 3.3). Else it is the least of what (ε, δ) allows, over several δ
    (Kairouz, Oh and Viswanath 2015, arXiv 1311.0776): sound, not tight.

    Args:
        entries: of the ledger of a run.
        accountant: that computes ε.
        false_positive: (m,) in [0, 1].

    Returns:
        (m,), and how it was computed, in words.
    """
    if all(entry.sample_rate == 1.0 for entry in entries):
        mu = math.sqrt(sum(entry.steps / entry.noise_multiplier**2 for entry in entries))
        return np.asarray(ndtr(ndtri(false_positive) + mu)), f"exact, Gaussian with μ = {mu:.3g}"
    allowed = np.ones_like(false_positive)
    for delta in _DELTAS:
        factor = math.exp(min(epsilon(entries, delta, accountant), 700.0))
        allowed = np.minimum(allowed, factor * false_positive + delta)
        allowed = np.minimum(allowed, 1 - (1 - delta - false_positive) / factor)
    return np.clip(allowed, 0.0, 1.0), f"the least that (ε, δ) allows over {len(_DELTAS)} δ"
