"""The fair coins that decide which canaries are in."""

from __future__ import annotations

import secrets
import time

import numpy as np

from dpmi.auditing.replica import Claimed
from dpmi.auditing.result import Audit, Found


class Coins:
    """Coins of one audit, drawn from a seed that nobody knew before it; they start its clock.

    Attributes:
        rng: draws them, and whatever else of the audit is random.
    """

    def __init__(self) -> None:
        self._seed, self._started = secrets.token_hex(16), time.monotonic()
        self.rng = np.random.default_rng(int(self._seed, 16))

    def audit(self, claim: Claimed, found: Found, confidence: float) -> Audit:
        """What was found, with the seed and the seconds that passed.

        Args:
            claim: of the audited run.
            found: bounds that hold together.
            confidence: with which they do.
        """
        return Audit(
            claimed=claim.epsilon,
            delta=claim.delta,
            unit=claim.unit,
            confidence=confidence,
            bounds=found.bounds,
            canaries=found.canaries,
            runs=found.runs,
            coins=self._seed,
            seconds=time.monotonic() - self._started,
        )
