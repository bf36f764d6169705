"""One generator for each phantom, so that no drawing depends on any other.

The users' phantoms and the public ones for pretraining live in two spaces: the first word of the
seed says which, so that no choice of ``data.seed`` can draw an image that pretraining has seen.
"""

from __future__ import annotations

import numpy as np

_SPACES = ("user", "public")
FAMILIES = ("xray", "fundus")


def image_generator(space: str, family: str, seed: int, index: int) -> np.random.Generator:
    """Make the generator of one image.

    Args:
        space: "user" or "public".
        family: "xray" or "fundus".
        seed: of the data set, 0 or more.
        index: of the image in it, 0 or more.
    """
    words = (_SPACES.index(space), FAMILIES.index(family), seed, index)
    return np.random.default_rng(np.random.SeedSequence(words))
