"""The networks that can be trained: a file each, whose name is the value of ``model.name``.

docs/extending.md says how to add one. Importable without torch, which a config is checked without:
what makes a network imports it when it is called.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

State = dict[str, "Tensor"]
Renames = tuple[tuple[str, str], ...]  # pattern and replacement, as ``re.sub`` takes them

PENULTIMATE = "penultimate"  # what the last layer is given


@dataclass(frozen=True)
class Backbone:
    """What the program must know of a network.

    Attributes:
        make: from the number of classes and the side of an image, in pixels, to the network, with
            random weights: (B, 3, H, W) to logits. Nothing in it may drop at random.
        imagenet: torchvision's weights, as ``torchvision.models.get_weight`` knows them.
        head: dotted name of the last linear layer.
        stages: from the input to the output, "stem" and "layer1" to "layer4": dotted names of
            layers or parameters, the layer that gives the stage's output last.
        batch_norm: its norm layers are BatchNorm, to be replaced for DP-SGD; else LayerNorm.
        maps: stages give (B, C, H, W), whose channel means are features.
        patch: the side of an image must be a multiple of it.
        samplers: Opacus makes examples' gradients of all its layers.
        older: from names that torchvision's files have to those that its network has.
        timm: from timm's names to torchvision's; none where they are the same.
        timm_input: how timm's weights are shown images; None where they differ in that.
        resized: makes a state dict fit images of another side.
    """

    make: Callable[[int, int], nn.Module]
    imagenet: str
    head: str
    stages: Mapping[str, tuple[str, ...]]
    batch_norm: bool = True
    maps: bool = True
    patch: int = 1
    samplers: bool = True
    older: Renames = ()
    timm: Renames = ()
    timm_input: str | None = "imagenet"
    resized: Callable[[State, int], State] | None = None
    features: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Name what a head may see, from the input to the output."""
        maps = [name for name in self.stages if name != "stem"] if self.maps else []
        object.__setattr__(self, "features", (*maps, PENULTIMATE))

    @property
    def norms(self) -> tuple[str, ...]:
        """Allowed values of ``model.norm``."""
        return ("batch", "group", "frozen_batch") if self.batch_norm else ("layer",)

    @property
    def constant_norm(self) -> str:
        """The norm with which the network is what it was pretrained as."""
        return "frozen_batch" if self.batch_norm else "layer"

    def features_to(self, deepest: str) -> list[str]:
        """What a head may see up to one of them."""
        return list(self.features[: self.features.index(deepest) + 1])


def names() -> list[str]:
    """All that can be a ``model.name``."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def backbone(name: str) -> Backbone:
    """The network of that name.

    Raises:
        KeyError: there is none.
    """
    if name not in names():
        raise KeyError(name)
    found: Backbone = import_module(f"{__name__}.{name}").BACKBONE
    return found
