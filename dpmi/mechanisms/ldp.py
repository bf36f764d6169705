"""Local differential privacy: Laplace noise on every pixel of every training image, once."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from torch import nn

from dpmi.data.batches import Batches
from dpmi.data.prepare import PreparedData, Split
from dpmi.models.gradient import Gradient, MeanGradient
from dpmi.privacy.guarantee import Guarantee
from dpmi.privacy.laplace import laplace_mechanism, pixel_epsilon
from dpmi.privacy.randomness import NoiseSource
from dpmi.ranks import ALONE, Ranks


class LocalDP:
    """Releases noised training images; what is done with them afterwards costs nothing more.

    Args:
        beta: scale of the Laplace noise, a pixel being in [0, 1].
        noise_test: noise the test and validation images too.
        noise: where the randomness comes from.
        ranks: who trains; each process draws the same noise, from the same key: one release.
    """

    name = "ldp"

    def __init__(
        self, beta: float, noise_test: bool, noise: NoiseSource, ranks: Ranks = ALONE
    ) -> None:
        self._beta, self._noise_test, self._noise, self._ranks = beta, noise_test, noise, ranks
        self._values_per_image: int | None = None

    def release_data(self, data: PreparedData) -> PreparedData:
        """Draw the noise of this run.

        Raises:
            RuntimeError: called a second time: a second draw would spend a second ε.
        """
        if self._values_per_image is not None:
            raise RuntimeError("the noised images of this run were already released")
        train = data.splits["train"]
        self._values_per_image = int(np.prod(train.pixels.shape[1:]))
        noised = data.splits if self._noise_test else ["train"]
        splits = data.splits | {name: self._noised(name, data.splits[name]) for name in noised}
        return dataclasses.replace(data, splits=splits)

    def _noised(self, name: str, split: Split) -> Split:
        stream = self._noise.stream(f"laplace_{name}")
        pixels = laplace_mechanism(split.pixels, self._beta, stream)
        return dataclasses.replace(split, pixels=pixels)

    def train_batches(self) -> Batches | None:
        """Shuffled batches of the noised images."""
        return None

    def make_gradient(self, net: nn.Module, first_step: int = 0) -> Gradient:
        """Plain mean gradient: the images are already released."""
        return MeanGradient(net, self._ranks)

    def guarantee(self) -> Guarantee:
        """ε = 1/β for a pixel, and that times the number of values for an image."""
        if self._values_per_image is None:
            return Guarantee.none(self.name, "the images were not released yet")
        epsilon = pixel_epsilon(self._beta)
        return Guarantee(
            mechanism=self.name,
            epsilon=epsilon,
            delta=0.0,
            unit="pixel",
            adjacency="replace one value",
            accountant="Laplace mechanism: sensitivity / β",
            image_epsilon=epsilon * self._values_per_image,
            assumptions=(
                "a pixel is one 8-bit value (of one colour channel) of the resized image",
                "labels, the number of images and their order are not protected",
                f"a whole image has {self._values_per_image} values, and ε that many times over",
                self._noise.assumption,
                "the noise is exact on the 8-bit grid, in probabilities of 64 bits",
            ),
        )

    def describe(self) -> dict[str, Any]:
        """Nothing to add: the guarantee says all."""
        return {}
