"""The guarantee of a run. It is printed wherever an accuracy is printed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from decimal import ROUND_CEILING, Decimal
from typing import Any

STRICTER_DELTAS = (1e-5, 1e-6)  # at which every guarantee states its ε, too
REPEATABLE = "the noise can be repeated from noise_seed by whoever knows or guesses it"


def printed_epsilon(epsilon: float, digits: int = 3) -> str:
    """An ε to three digits, no fewer before the point, rounded up: never read as too small."""
    return _rounded_up(epsilon, digits)


def printed_delta(delta: float) -> str:
    """A δ to two digits, rounded up; 1e-4, not 0.0001: narrow, and no zero is miscounted."""
    if not 0 < delta < 0.01:
        return _rounded_up(delta, digits=2)
    exact = Decimal(repr(delta))
    rounded = exact.quantize(Decimal(1).scaleb(exact.adjusted() - 1), ROUND_CEILING)
    power = rounded.adjusted()
    return f"{_plain(rounded.scaleb(-power))}e{power}"


def _rounded_up(value: float, digits: int) -> str:
    exact = Decimal(repr(float(value)))  # what the float is written as, not its binary tail
    if not exact or not exact.is_finite():
        return f"{value:g}"
    digit = min(exact.adjusted() - digits + 1, 0)
    return _plain(exact.quantize(Decimal(1).scaleb(digit), ROUND_CEILING))


def _plain(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


@dataclass(frozen=True)
class Claim:
    """What somebody said that a mechanism gives, and it does not. Never to be read as an ε.

    Attributes:
        epsilon, delta: as claimed.
        unit: whose change was said to be hidden.
        by: who claimed it.
    """

    epsilon: float
    delta: float
    unit: str
    by: str

    def __str__(self) -> str:
        """One clause that says who claimed it."""
        return (
            f"{self.by} claimed ε = {printed_epsilon(self.epsilon)}, "
            f"δ = {printed_delta(self.delta)} per {self.unit}, which does not hold"
        )


@dataclass(frozen=True)
class Group:
    """Images that belong to one, and change together.

    Attributes:
        images: how many.
        epsilon: of all of them at once, at the guarantee's δ and under its adjacency, for images.
    """

    images: int
    epsilon: float


@dataclass(frozen=True)
class Guarantee:
    """(ε, δ)-differential privacy of one run, or none, with the reason.

    Attributes:
        mechanism: name of the mechanism, as in the config.
        epsilon: ε of one ``unit``; None where there is no guarantee.
        delta: δ; 0.0 for pure ε-DP; None where there is no guarantee.
        unit: whose change is hidden: "channel value", "pixel", "image" or "patient"; "pixel of a
            patient" or "channel value of a patient" where each gives one image.
        adjacency: what neighbouring data sets are.
        accountant: who computed ε.
        pixel_epsilon: ε of a pixel of all channels where ``unit`` is smaller than it, else None.
        image_epsilon: ε of a whole image where ``unit`` is smaller than it, else None. Of a patient
            as well, where ``unit`` speaks of a patient: then each has one image in training.
        epsilons: ε of one ``unit`` at stricter δ: "1e-5" and "1e-6".
        replace_one_epsilon: ε of a whole image that is replaced by any other, at ``delta``; of a
            patient where ``unit`` is one, and then of each of their images.
        private: ε of groups of images: "largest_patient", "median_patient" (where patients are
            known, and an image is the unit), "copies" (the image with most byte-identical copies).
            How large they are is a fact about the training images that no ε covers: what is
            published must leave out this field whole.
        assumptions: what must be true for the guarantee to hold, a sentence each.
        reason: why there is none, where there is none.
        claim: what was claimed all the same, where there is none.
    """

    mechanism: str
    epsilon: float | None
    delta: float | None
    unit: str | None
    adjacency: str | None
    accountant: str | None
    pixel_epsilon: float | None = None
    image_epsilon: float | None = None
    epsilons: dict[str, float] = field(default_factory=dict)
    replace_one_epsilon: float | None = None
    private: dict[str, Group] = field(default_factory=dict)
    assumptions: tuple[str, ...] = field(default=())
    reason: str | None = None
    claim: Claim | None = None

    def __post_init__(self) -> None:
        """Check that there is either an ε or a reason why not, and a claim only without ε."""
        if (self.epsilon is None) == (self.reason is None):
            raise ValueError("a guarantee states either an epsilon or the reason why it has none")
        if self.epsilon is not None and self.claim is not None:
            raise ValueError("a claim is allowed only where there is no guarantee")

    @classmethod
    def none(cls, mechanism: str, reason: str, claim: Claim | None = None) -> Guarantee:
        """No guarantee, and why, and what was claimed."""
        return cls(mechanism, None, None, None, None, None, reason=reason, claim=claim)

    def __str__(self) -> str:
        """One line, as it stands beside an accuracy; nothing of it is ``private``."""
        if self.epsilon is None or self.delta is None:
            claimed = f" ({self.claim})" if self.claim else ""
            return f"no privacy guarantee: {self.reason}{claimed}"
        line = (
            f"ε = {printed_epsilon(self.epsilon)}, δ = {printed_delta(self.delta)} per "
            f"{self.unit} ({self.adjacency})"
        )
        if self.pixel_epsilon is not None:
            line += f"; ε = {printed_epsilon(self.pixel_epsilon)} per pixel"
        if self.image_epsilon is not None:
            line += f"; ε = {printed_epsilon(self.image_epsilon)} per image"
        if self.replace_one_epsilon not in (None, self.image_epsilon):
            line += f"; ε = {printed_epsilon(self.replace_one_epsilon)} (replace-one)"
        return line

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the record."""
        return asdict(self) | {"assumptions": list(self.assumptions)}
