"""What a guarantee means: the most that an attacker can do who knows everything but one unit.

The attacker knows the network, all other training images, and everything that was released,
including every training step. Nothing is assumed about the method. Three questions are asked:

- Was it there? Under zero-out adjacency: was this unit trained on, or one that contributes nothing
  in its place; under replace-one: was it this one or that. If a fair coin decided, the answer is
  right with probability (1 + advantage) / 2 at most, where the advantage is TPR - FPR (Yeom et al.
  2018, arXiv 1709.01604), bounded by the total variation δ(0).
- Who can be identified with few errors? The true positive rate at a low false positive rate
  (Carlini et al. 2022, arXiv 2112.03570), bounded by the trade-off curve.
- Which of N equally likely candidates was it? Reconstruction robustness (Balle et al. 2022, arXiv
  2201.04845), bounded by the blow-up function, the true positive rate at a false positive rate of
  1/N (Hayes, Mahloujifar and Balle 2023, arXiv 2302.07225, theorem 2; Kaissis et al. 2023, arXiv
  2307.03928). The release with the candidate in place is compared with one in which the place is
  empty, the same for all candidates: zero-out is enough. Under ε-DP and replace-one Bayes' rule
  gives a tighter bound: 1 / (1 + (N - 1) e^-ε), which randomized response reaches.

Every number is an upper bound, rounded up. Guessing alone is right with the prior, 1/N.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from dpmi.privacy.guarantee import Guarantee, printed_epsilon
from dpmi.privacy.spending import LedgerEntry

if TYPE_CHECKING:
    from dpmi.privacy.dominating import Adjacency
    from dpmi.privacy.tradeoff import TradeOff

FALSE_POSITIVE_RATES = (0.001, 0.01)
CANDIDATES = (2, 10, 1000)
LEVELS = 256  # that a value of 8 bits can have: no more candidates
_VALUES = ("pixel", "channel value")
_OF_A_PATIENT = " of a patient"  # where each patient has one image in training
_WITH = " with "  # how many images
_DIGITS = 4  # of what is kept: it is rounded up to them
# False positive rates of the curve: as many on a logarithmic axis as on a linear one.
_RATES = (
    *(round(10 ** (k / 5), 6) for k in range(-20, -5)),
    *(round(k / 20, 2) for k in range(2, 21)),
)


@dataclass(frozen=True)
class Risk:
    """Bounds of what an attacker can do about one unit.

    Attributes:
        unit: whose change is hidden: as in the guarantee, or "image", or
            "patient", where that is smaller; "patient with 18 images", of whom all change at once.
        adjacency: what is distinguished: "zero-out" or "replace-one".
        advantage: bound on the true positive rate minus the false positive rate.
        accuracy: probability of the best guess, where a fair coin decides.
        true_positive_rates: at the false positive rates "0.001" and "0.01".
        candidates: number of equally likely candidates to the probability that he picks the right
            one; "1000", or "256" where the unit has no more values.
        curve: false and true positive rate, the most that any attacker reaches.
    """

    unit: str
    adjacency: Literal["zero-out", "replace-one"]
    advantage: float
    accuracy: float
    true_positive_rates: dict[str, float]
    candidates: dict[str, float]
    curve: tuple[tuple[float, float], ...]

    @property
    def says_nothing(self) -> bool:
        """Whether an attacker may be right always, for all that the bound says."""
        return self.accuracy >= 1

    @property
    def sentences(self) -> tuple[str, ...]:
        """What it means, for who has not heard of ε; unit and adjacency in each."""
        unit, of = self.unit, f"({self.unit}, {self.adjacency})"
        if unit.removesuffix(_OF_A_PATIENT) in _VALUES:
            guess, alike = "which of two values it has", f"values of one {unit}"
            claim = "take one value for the other", "recognizes that other"
        elif self.adjacency == "zero-out":
            one, *size = unit.split(_WITH)
            guess = "whether it was there, or a blank in its place"
            alike = _WITH.join([f"{one}s", *size])
            claim = f"find the {unit} where there is a blank", "finds it where it is"
        else:
            guess, alike = f"which of two {unit}s it was", f"{unit}s"
            claim = f"take one {unit} for the other", "recognizes that other"
        if self.says_nothing:
            return (
                f"For one {unit} the bound says nothing: an attacker who knows everything else may "
                f"always be right about {guess} {of}.",
            )
        rate, most = min(self.true_positive_rates, key=float), max(self.candidates, key=int)
        return (
            f"An attacker who knows everything but one {unit} is right in at most "
            f"{_at_most(100, self.accuracy)} of 100 guesses about {guess} {of}; by chance, in 50.",
            f"An attacker who may {claim[0]} in {_at_most(1000, float(rate))} of 1000 cases "
            f"{claim[1]} in at most {_at_most(1000, self.true_positive_rates[rate])} of 1000 {of}; "
            f"by chance, in {_at_most(1000, float(rate))}.",
            f"Among {most} equally likely {alike} the right one is found with a probability of at "
            f"most {percent(self.candidates[most])} {of}; by chance, {percent(1 / int(most))}.",
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def risks(guarantee: Guarantee, entries: Sequence[LedgerEntry] = ()) -> tuple[Risk, ...]:
    """What follows from a guarantee: of its unit, and of an image where the unit is smaller.

    Args:
        guarantee: of what was executed.
        entries: all Gaussian releases that it is of; none where it is of ε-DP.

    Returns:
        Nothing where there is no guarantee: then nothing bounds what an attacker can do, for the
        reason that the guarantee has.

    Raises:
        ValueError: a guarantee with a δ, and no entry; or one of another adjacency.
    """
    from dpmi.privacy.tradeoff import of_ledger  # slow to import: records are read without it

    if guarantee.epsilon is None or guarantee.unit is None:
        return ()
    if guarantee.adjacency not in ("zero-out", "replace-one"):
        raise ValueError(f"adjacency={guarantee.adjacency} must be zero-out or replace-one")
    adjacency = cast("Adjacency", guarantee.adjacency)
    if guarantee.delta:
        return (_risk(guarantee.unit, adjacency, of_ledger(entries, adjacency)),)
    of_unit = _of_pure(guarantee.unit, adjacency, guarantee.epsilon)
    if guarantee.image_epsilon is None:
        return (of_unit,)
    whole = "patient" if guarantee.unit.endswith(_OF_A_PATIENT) else "image"
    return of_unit, _of_pure(whole, adjacency, guarantee.image_epsilon)


def patient_risk(guarantee: Guarantee, entries: Sequence[LedgerEntry]) -> Risk | None:
    """Of the patient with the most training images, where an image is the unit.

    All of the patient's images are replaced at once, under the guarantee's adjacency: from the
    same privacy losses as ``guarantee.private``, and as little for publication as that.

    Args:
        guarantee: of what was executed.
        entries: all Gaussian releases that it is of.

    Returns:
        None where patients are not known, or each has one image.
    """
    from dpmi.privacy.tradeoff import of_ledger

    largest = guarantee.private.get("largest_patient")
    if guarantee.unit != "image" or largest is None or largest.images < 2:
        return None
    adjacency = cast("Adjacency", guarantee.adjacency)
    unit = f"patient{_WITH}{largest.images} images"
    return _risk(unit, adjacency, of_ledger(entries, adjacency, largest.images))


def _risk(unit: str, adjacency: Adjacency, curve: TradeOff) -> Risk:
    return _rounded(unit, adjacency, curve, lambda n: curve.true_positive_rate(1 / n))


def _of_pure(unit: str, adjacency: Adjacency, epsilon: float) -> Risk:
    from dpmi.privacy.tradeoff import of_pure

    if adjacency == "zero-out":
        return _risk(unit, adjacency, of_pure(epsilon))
    return _rounded(
        unit, adjacency, of_pure(epsilon), lambda n: 1 / (1 + (n - 1) * math.exp(-epsilon))
    )


def _rounded(
    unit: str, adjacency: Adjacency, curve: TradeOff, picked: Callable[[int], float]
) -> Risk:
    # A curve that is its own inverse has its advantage where it meets 1 - α: the kink of ε-DP.
    rates = {*_RATES, round((1 - curve.advantage) / 2, 6)}
    counts = [
        min(n, LEVELS) if unit.removesuffix(_OF_A_PATIENT) in _VALUES else n for n in CANDIDATES
    ]
    return Risk(
        unit=unit,
        adjacency=adjacency,
        advantage=_up(curve.advantage),
        accuracy=_up((1 + curve.advantage) / 2),
        true_positive_rates={
            f"{rate:g}": _up(curve.true_positive_rate(rate)) for rate in FALSE_POSITIVE_RATES
        },
        candidates={str(n): _up(picked(n)) for n in counts},
        curve=tuple((rate, _up(curve.true_positive_rate(rate))) for rate in sorted(rates)),
    )


def percent(value: float) -> str:
    """A probability in per cent, rounded up to three digits."""
    return f"{printed_epsilon(100 * value)} %"


def _up(value: float) -> float:
    return min(1.0, float(printed_epsilon(value, _DIGITS)))


def _at_most(cases: int, probability: float) -> int:
    """How many of so many cases, rounded up; nothing of it by what a float leaves over."""
    return math.ceil(round(cases * probability, 9))
