"""What a run spends of the privacy of its training images, as plain values."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

RESERVED: Literal["reserved"] = "reserved"  # of a run that is not settled yet


@dataclass(frozen=True)
class LedgerEntry:
    """``steps`` noised releases in a row with the same noise and the same sampling."""

    noise_multiplier: float
    sample_rate: float
    steps: int


@dataclass(frozen=True)
class Spending:
    """What one run, or one release of noised images, takes from its training images.

    One of three: noised gradients (``ledger``), noised images (``value_epsilon``), or what has no
    ε (``reason``). Nothing of them: nothing was released.

    Attributes:
        entry: name of this spending, random. What has the same name is the same and counts once:
            a run that is resumed, runs that share one release of noised images.
        run: name of the cell.
        ledger: noised gradients of DP-SGD, which hide a unit (zero-out).
        delta: the δ at which the run states ε.
        value_epsilon: ε of one channel value, of noised images (local DP, δ = 0).
        image_epsilon: ε of a whole image, of the same.
        reason: why the run has no ε.
        unit: "image", or "patient" with all their images: whom ``ledger`` hides, or whose
            ``image_epsilon`` is (each patient has one image in the release, or one answer); None
            where it is not known.
    """

    entry: str
    run: str
    ledger: tuple[LedgerEntry, ...] = ()
    delta: float | None = None
    value_epsilon: float | None = None
    image_epsilon: float | None = None
    reason: str | None = None
    unit: str | None = "image"

    @property
    def is_nothing(self) -> bool:
        """Whether nothing was released."""
        return not self.ledger and self.value_epsilon is None and self.reason is None

    @property
    def hides_images(self) -> bool:
        """Whether it is a release of noised images that hides an image no less than a value."""
        return self.value_epsilon is not None and self.value_epsilon == self.image_epsilon

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self) | {"ledger": [dataclasses.asdict(e) for e in self.ledger]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Spending:
        """Read what :meth:`to_dict` gave.

        Raises:
            TypeError, KeyError: it is not that.
        """
        ledger = tuple(LedgerEntry(**entry) for entry in values["ledger"])
        return cls(**(values | {"ledger": ledger}))
