"""What several runs take together from images that all of them were trained on."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from dpmi.privacy.accounting import epsilon
from dpmi.privacy.spending import LedgerEntry, Spending

ACCOUNTANT = "pld"  # the tightest, whichever each run is told by


@dataclass(frozen=True)
class Total:
    """What several spendings take together from images that all of them were trained on.

    Noised gradients are composed exactly, from their ledgers, by privacy loss distributions
    (Doroshenko et al. 2022, arXiv 2207.04380); the pure ε of releases of noised images add up.
    Where both are there, gradients are counted under the adjacency of the images, replace-one.

    Attributes:
        spendings: each once, without those that are nothing.
    """

    spendings: tuple[Spending, ...]

    @property
    def without_epsilon(self) -> tuple[Spending, ...]:
        """Those for which no ε holds; beside them, none holds for the whole."""
        return tuple(s for s in self.spendings if s.reason is not None)

    @property
    def models(self) -> tuple[Spending, ...]:
        """Those by noised gradients."""
        return tuple(s for s in self.spendings if s.ledger and s.reason is None)

    @property
    def releases(self) -> tuple[Spending, ...]:
        """Releases of noised images."""
        return tuple(s for s in self.spendings if s.value_epsilon is not None and s.reason is None)

    @property
    def delta(self) -> float:
        """The largest δ of the models; 0.0 where there is none."""
        return max((s.delta or 0.0 for s in self.models), default=0.0)

    @property
    def deltas_differ(self) -> bool:
        """Whether the models state ε at several δ."""
        return len({s.delta for s in self.models}) > 1

    @property
    def ledger(self) -> list[LedgerEntry]:
        """Noised gradients of all models."""
        return [entry for spending in self.models for entry in spending.ledger]

    @cached_property
    def models_epsilon(self) -> float:
        """ε of an image, zero-out, at ``delta``, by the models alone."""
        return epsilon(self.ledger, self.delta, ACCOUNTANT)

    @cached_property
    def _models_epsilon_replace_one(self) -> float:
        return epsilon(self.ledger, self.delta, ACCOUNTANT, adjacency="replace-one")

    @property
    def releases_epsilon(self) -> float:
        """ε of a channel value, by the releases of noised images alone (δ = 0)."""
        return sum(s.value_epsilon or 0.0 for s in self.releases)

    @property
    def releases_image_epsilon(self) -> float:
        """ε of an image, by the same (δ = 0)."""
        return sum(s.image_epsilon or 0.0 for s in self.releases)

    @property
    def value_epsilon(self) -> float:
        """ε of a channel value, replace-one, at ``delta``, by all: who hides an image, hides it."""
        return self.releases_epsilon + self._models_epsilon_replace_one

    @property
    def image_epsilon(self) -> float:
        """ε of an image at ``delta``, by all: zero-out by models alone, else replace-one."""
        if not self.releases:
            return self.models_epsilon
        return self.releases_image_epsilon + self._models_epsilon_replace_one

    def __str__(self) -> str:
        """A line: ε by unit, or that there is none and why, and what it is without those."""
        told = self._promise() or "nothing was released"
        if not (without := self.without_epsilon):
            return told
        first, others = without[0], len(self.spendings) - len(without)
        more = f" and {len(without) - 1} more" if len(without) > 1 else ""
        line = f"no ε, because {first.run}{more} has none ({first.reason})"
        return f"{line}; without it, of {_count(others, 'other')}: {told}" if others else line

    def _promise(self) -> str:
        delta = f", δ = {self.delta:.3g}"
        parts = []
        if self.models:
            largest = " (the largest of theirs)" if self.deltas_differ else ""
            parts.append(
                f"ε = {_up(self.models_epsilon)}{delta}{largest} per image of "
                f"{_count(len(self.models), 'run')} by DP-SGD"
            )
        if self.releases:
            parts.append(
                f"ε = {_up(self.releases_epsilon)} per channel value of "
                f"{_count(len(self.releases), 'release')} by LDP"
            )
        if self.models and self.releases:
            parts.append(
                f"of both, one replaced by another: ε = {_up(self.value_epsilon)}{delta} per "
                f"channel value, {_up(self.image_epsilon)} per image"
            )
        return "; ".join(parts)


def total(spendings: Iterable[Spending]) -> Total:
    """Put spendings together; of those with the same name the last counts."""
    by_entry = {spending.entry: spending for spending in spendings}
    return Total(tuple(s for s in by_entry.values() if not s.is_nothing))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _up(value: float) -> str:
    """Three digits, rounded up: no ε is told smaller than it is."""
    digits = 2 - math.floor(math.log10(value)) if value else 0
    return f"{math.ceil(value * 10**digits) / 10**digits:.10g}"
