"""ε of a ledger by accountants that are not this program's own: Opacus' PRV, dp-accounting's PLD.

They are called as their makers offer them, of the releases one by one as the ledger has them; the
code that stated the ε has no part in it. Both give upper bounds: an ε that neither proves is not
known to hold.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import dp_accounting
from dp_accounting import pld
from opacus.accountants import PRVAccountant

from dpmi.privacy.spending import LedgerEntry

PRV_ERROR = 0.002  # in ε: the error requested of Opacus
LARGEST = 60.0  # ε beyond which the grids of both grow without bound

Ledger = tuple[LedgerEntry, ...]


@dataclass(frozen=True)
class Recomputed:
    """Upper bounds of ε at a δ, of one unit under zero-out adjacency unless named otherwise."""

    prv: float
    pld: float
    pld_replace_one: float

    @property
    def least(self) -> float:
        """The smaller of the two bounds under zero-out: what is proven."""
        return min(self.prv, self.pld)

    @property
    def agree(self) -> bool:
        """Whether the two accountants are as close to each other as PRV's error allows."""
        return abs(self.prv - self.pld) <= 2 * PRV_ERROR + 1e-3 * self.pld


def recomputed(entries: Sequence[LedgerEntry], delta: float) -> Recomputed:
    """By both accountants; where ε is beyond ``LARGEST``, this may take all memory.

    Args:
        entries: at least one.
        delta: above 0.
    """
    ledger = tuple(entries)
    return Recomputed(
        prv=_prv(ledger, delta),
        pld=float(_pld(ledger, "REPLACE_SPECIAL").get_epsilon(delta)),
        pld_replace_one=float(_pld(ledger, "REPLACE_ONE").get_epsilon(delta)),
    )


def _event(entry: LedgerEntry) -> dp_accounting.DpEvent:
    gaussian = dp_accounting.GaussianDpEvent(entry.noise_multiplier)
    return dp_accounting.PoissonSampledDpEvent(entry.sample_rate, gaussian)


@functools.lru_cache
def _pld(ledger: Ledger, adjacency: str) -> pld.PLDAccountant:
    accountant = pld.PLDAccountant(dp_accounting.NeighboringRelation[adjacency])
    for entry in ledger:
        accountant.compose(_event(entry), entry.steps)
    return accountant


@functools.lru_cache
def _prv(ledger: Ledger, delta: float) -> float:
    accountant = PRVAccountant()
    accountant.history = [(e.noise_multiplier, e.sample_rate, e.steps) for e in ledger]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a logarithm of zero, at a sample rate of 1
        return float(accountant.get_epsilon(delta, eps_error=PRV_ERROR))
