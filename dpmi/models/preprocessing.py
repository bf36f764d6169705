"""How a network is shown an image: a matter of its weights, which learned on images shown so."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Preprocessing:
    """(x - mean) / std of x in [0, 1], channel by channel.

    Attributes:
        mean, std: a value for each channel that the network takes; gray is repeated where it takes
            three.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def channels(self) -> int:
        """That the network takes: 1 or 3."""
        return len(self.mean)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a record."""
        return asdict(self) | {"channels": self.channels}


IMAGENET = "imagenet"
INPUTS = {
    # torchvision's, and most of timm's: of ImageNet, never computed from the user's images.
    IMAGENET: Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    # [-1, 1]: of some of timm's.
    "half": Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    # [-1024, 1024], one channel: torchxrayvision's.
    "xrv": Preprocessing((0.5,), (1 / 2048,)),
}
