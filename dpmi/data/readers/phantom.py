"""Images that the program draws: no file, no download, no patient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpmi.config.data_sets import PhantomData
from dpmi.data.catalogue import Catalogue
from dpmi.data.phantoms import fundus, xray
from dpmi.data.phantoms.seeds import image_generator

# Part of the cache's key: raise it whenever a change in the phantoms changes a pixel.
DRAWING_VERSION = 3

Draw = Callable[[int, np.random.Generator], tuple[NDArray[np.uint8], int]]


@dataclass(frozen=True)
class _Family:
    key: str  # of its generators
    classes: tuple[str, ...]
    graded: bool
    channels: int
    draw: Draw
    label: Callable[[np.random.Generator], int]
    groups: Callable[[np.random.Generator], dict[str, str]]  # given what label has drawn from


_FAMILIES = {
    "phantom_xray": _Family(
        *("xray", xray.CLASSES, False, 1, xray.draw_xray, xray.xray_label, xray.xray_groups)
    ),
    "phantom_fundus": _Family(
        *("fundus", fundus.CLASSES, True, 3, fundus.draw_fundus, fundus.fundus_label),
        groups=lambda _: {},
    ),
}


@dataclass(frozen=True)
class PhantomSource:
    """Draws images named "family/seed=S/index"."""

    name: str

    def fetch(self, path: str) -> bytes:
        """Return what determines the drawing: its version, family, seed and index."""
        return f"{path} drawn by version {DRAWING_VERSION}".encode()

    def load(self, path: str, resize: int) -> NDArray[np.uint8]:
        """Draw one image at ``resize`` pixels a side: (resize, resize, channels)."""
        family = _FAMILIES[self.name]
        _, seed, index = path.split("/")
        rng = image_generator("user", family.key, int(seed.removeprefix("seed=")), int(index))
        return family.draw(resize, rng)[0]


def read_phantom(config: PhantomData) -> Catalogue:
    """List the phantoms of a seed: first those to train on, then to validate, then to test.

    They name no patients: drawn images are nobody's.
    """
    family = _FAMILIES[config.name]
    counts = (config.train_images, config.val_images, config.test_images)
    indices = range(sum(counts))
    generators = [image_generator("user", family.key, config.seed, i) for i in indices]
    labels = [family.label(rng) for rng in generators]
    groups = [family.groups(rng) for rng in generators]
    return Catalogue(
        name=config.name,
        classes=family.classes,
        graded=family.graded,
        channels=family.channels,
        paths=tuple(f"{config.name}/seed={config.seed}/{i:06d}" for i in indices),
        labels=np.array(labels, np.int64),
        patients=("",) * len(indices),
        splits=tuple(np.repeat(("train", "val", "test"), counts).tolist()),
        source=PhantomSource(config.name),
        groups={name: tuple(of[name] for of in groups) for name in groups[0]},
    )
