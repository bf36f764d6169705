"""The total that several runs spend of the privacy of images they share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from dpmi.privacy.accounting import epsilon
from dpmi.privacy.guarantee import printed_delta, printed_epsilon
from dpmi.privacy.spending import LedgerEntry, Spending

ACCOUNTANT = "pld"  # the tightest, whichever each run uses


@dataclass(frozen=True)
class Total:
    """What several spendings take together from images that all of them were trained on.

    Noised gradients are composed exactly, from their ledgers, by privacy loss distributions
    (Doroshenko et al. 2022, arXiv 2207.04380); the pure ε of releases of noised images add up.
    Where both are there, gradients are counted under the adjacency of the images, replace-one.
    The total is a patient's where each spending hides patients. Else it is an image's: an image
    that is blanked replaces what its patient contributes by something else, so gradients that hide
    patients are counted under replace-one.

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
    def unit(self) -> str:
        """Whose total it is: "patient" where all spendings hide patients, else "image"."""
        counted = (*self.models, *self.releases)
        return "patient" if counted and all(s.unit == "patient" for s in counted) else "image"

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
        """ε of ``unit`` at ``delta`` by the models alone: zero-out, where all hide that unit."""
        if any(s.unit != self.unit for s in self.models):
            return self._models_epsilon_replace_one
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
        """ε of an image, or of ``unit``, by the same (δ = 0)."""
        return sum(s.image_epsilon or 0.0 for s in self.releases)

    @property
    def value_epsilon(self) -> float:
        """ε of a channel value, replace-one, at ``delta``, by all: who hides an image, hides it."""
        return self.releases_epsilon + self._models_epsilon_replace_one

    @property
    def unit_epsilon(self) -> float:
        """ε of ``unit`` at ``delta``, by all: zero-out by models alone, else replace-one."""
        if not self.releases:
            return self.models_epsilon
        return self.releases_image_epsilon + self._models_epsilon_replace_one

    @property
    def lines(self) -> list[str]:
        """ε by unit and what takes it; and what has none, beside which the whole has none."""
        delta = f", δ = {printed_delta(self.delta)}"
        parts = []
        if self.models:
            largest = " (the largest of theirs)" if self.deltas_differ else ""
            whose = _count(len(self.models), "run")
            epsilon_ = printed_epsilon(self.models_epsilon)
            parts.append(f"ε = {epsilon_}{delta}{largest} per {self.unit}: {whose} by DP-SGD")
        if self.releases:
            whose = _count(len(self.releases), "release")
            epsilon_ = printed_epsilon(self.releases_epsilon)
            parts.append(f"ε = {epsilon_} per channel value: {whose} by LDP")
        if any(release.hides_images for release in self.releases):
            whole = printed_epsilon(self.releases_image_epsilon)
            parts.append(f"ε = {whole} per {self.unit}, replace-one: the same")
        if self.models and self.releases:
            value, whole = map(printed_epsilon, (self.value_epsilon, self.unit_epsilon))
            parts.append(
                f"ε = {value}{delta} per channel value, {whole} per {self.unit}, replace-one: both"
            )
        counted = (*self.models, *self.releases)
        images = sum(s.unit != "patient" for s in counted)
        if 0 < images < len(counted):
            parts.append(
                f"ε of a patient is not known: {images} of {len(counted)} protect images alone"
            )
        if without := self.without_epsilon:
            more = f" and {len(without) - 1} more" if len(without) > 1 else ""
            parts.append(f"no ε with {without[0].run}{more}: {without[0].reason}")
        return parts

    def __str__(self) -> str:
        """The lines, in one."""
        return "; ".join(self.lines) or "nothing was released"


def total(spendings: Iterable[Spending]) -> Total:
    """Put spendings together; of those with the same name the last counts."""
    by_entry = {spending.entry: spending for spending in spendings}
    return Total(tuple(s for s in by_entry.values() if not s.is_nothing))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
