"""What an audit found."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Bound:
    """A lower bound on ε, and what it takes for granted.

    Attributes:
        claimed: where it is of another ε than the guarantee's first (under replace-one): that.
    """

    epsilon: float
    assumes: str
    claimed: float | None = None


@dataclass(frozen=True)
class Found:
    """What one more attack adds to an audit: see :class:`Audit`."""

    bounds: dict[str, Bound]
    canaries: int
    runs: int


@dataclass(frozen=True)
class Audit:
    """Lower bounds on ε that hold together, and the ε that was claimed.

    Attributes:
        claimed: ε of the run's guarantee, at ``delta``, per ``unit``.
        confidence: with which all bounds hold at once.
        bounds: by method.
        canaries: of all runs, each included by a fair coin.
        runs: that were made.
        coins: seed of the auditor's coins.
        seconds: that it took.
    """

    claimed: float
    delta: float
    unit: str
    confidence: float
    bounds: dict[str, Bound]
    canaries: int
    runs: int
    coins: str
    seconds: float

    @property
    def method(self) -> str:
        """Which gave the strongest bound of the ε claimed."""
        of_claim = [name for name, bound in self.bounds.items() if bound.claimed is None]
        return max(of_claim, key=lambda name: self.bounds[name].epsilon)

    @property
    def epsilon(self) -> float:
        """The strongest bound."""
        return self.bounds[self.method].epsilon

    @property
    def refuted_by(self) -> tuple[str, ...]:
        """Methods whose bound is above what is claimed of it."""
        return tuple(name for name, one in self.bounds.items() if one.epsilon > self.claim_of(name))

    @property
    def refuted(self) -> bool:
        """More was learnt than what was claimed allows."""
        return bool(self.refuted_by)

    def claim_of(self, method: str) -> float:
        """The ε that a method's bound is compared with."""
        own = self.bounds[method].claimed
        return self.claimed if own is None else own

    def __str__(self) -> str:
        """As it stands beside a guarantee; rounded downward."""
        return f"audited: ε ≥ {rounded_down(self.epsilon)} ({100 * self.confidence:g} %)"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the record."""
        summary = {"lower_bound": self.epsilon, "method": self.method, "refuted": self.refuted}
        return summary | asdict(self) | {"says": str(self)}


def rounded_down(epsilon: float) -> str:
    """Three digits, never more than ``epsilon``."""
    if epsilon <= 0:
        return "0"
    unit = 10.0 ** (math.floor(math.log10(epsilon)) - 2)
    return f"{math.floor(epsilon / unit + 1e-9) * unit:.3g}"
