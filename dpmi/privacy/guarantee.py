"""What a run promises. It is printed wherever an accuracy is printed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


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
            f"{self.by} claimed ε = {self.epsilon:.4g}, δ = {self.delta:.4g} per {self.unit}, "
            "which does not hold"
        )


@dataclass(frozen=True)
class Guarantee:
    """(ε, δ)-differential privacy of one run, or none, with the reason.

    Attributes:
        mechanism: name of the mechanism, as in the config.
        epsilon: ε of one ``unit``; None where there is no guarantee.
        delta: δ; 0.0 for pure ε-DP; None where there is no guarantee.
        unit: whose change is hidden: "channel value", "pixel", "image" or "patient".
        adjacency: what neighbouring data sets are.
        accountant: who computed ε.
        pixel_epsilon: ε of a pixel of all channels where ``unit`` is smaller than it, else None.
        image_epsilon: ε of a whole image where ``unit`` is smaller than it, else None.
        assumptions: what must hold for the promise to hold, a sentence each.
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
    assumptions: tuple[str, ...] = field(default=())
    reason: str | None = None
    claim: Claim | None = None

    def __post_init__(self) -> None:
        """A promise has an ε; the lack of one has a reason; a claim is no promise."""
        if (self.epsilon is None) == (self.reason is None):
            raise ValueError("a guarantee states either an epsilon or the reason why it has none")
        if self.epsilon is not None and self.claim is not None:
            raise ValueError("a claim stands only where there is no guarantee")

    @classmethod
    def none(cls, mechanism: str, reason: str, claim: Claim | None = None) -> Guarantee:
        """No guarantee, and why, and what was claimed."""
        return cls(mechanism, None, None, None, None, None, reason=reason, claim=claim)

    def __str__(self) -> str:
        """One line, as it stands beside an accuracy."""
        if self.epsilon is None:
            claimed = f" ({self.claim})" if self.claim else ""
            return f"no privacy guarantee: {self.reason}{claimed}"
        line = f"ε = {self.epsilon:.4g}, δ = {self.delta:.4g} per {self.unit} ({self.adjacency})"
        if self.pixel_epsilon is not None:
            line += f"; ε = {self.pixel_epsilon:.4g} per pixel"
        if self.image_epsilon is not None:
            line += f"; ε = {self.image_epsilon:.4g} per image"
        return line

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the record."""
        return asdict(self) | {"assumptions": list(self.assumptions)}
