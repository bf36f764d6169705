"""Local differential privacy: Laplace noise on every pixel of every training image, once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from dpmi.data.batches import Batches
from dpmi.data.prepare import PreparedData, Split
from dpmi.mechanisms.base import COUNTED, EVALUATED, NO_GROUPS
from dpmi.models.gradient import Gradient, MeanGradient
from dpmi.privacy.guarantee import (
    REPEATABLE,
    STRICTER_DELTAS,
    Group,
    Guarantee,
    printed_delta,
)
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
        together: training images that belong to one, by the name of what they have in common.
    """

    name = "ldp"

    def __init__(
        self,
        beta: float,
        noise_test: bool,
        noise: NoiseSource,
        ranks: Ranks = ALONE,
        together: Mapping[str, int] = NO_GROUPS,
    ) -> None:
        self._beta, self._noise_test, self._noise, self._ranks = beta, noise_test, noise, ranks
        self._together = together
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
        splits = data.splits | {"train": self._noised(train, self._noise.numpy("laplace_train"))}
        if self._noise_test:
            rng = self._noise.numpy("laplace_test")
            for name in sorted(data.splits.keys() - {"train"}):
                splits[name] = self._noised(data.splits[name], rng)
        return dataclasses.replace(data, splits=splits)

    def _noised(self, split: Split, rng: np.random.Generator) -> Split:
        return dataclasses.replace(split, pixels=laplace_mechanism(split.pixels, self._beta, rng))

    def train_batches(self) -> Batches | None:
        """Shuffled batches of the noised images."""
        return None

    def make_gradient(self, net: nn.Module, first_step: int = 0) -> Gradient:
        """Plain mean gradient: the images are already released."""
        return MeanGradient(net, self._ranks)

    def spent(self) -> tuple[float, str] | None:
        """ε = 1/β, of a pixel."""
        if self._values_per_image is None or self._noise.reproducible:
            return None
        return pixel_epsilon(self._beta), "pixel"

    def guarantee(self) -> Guarantee:
        """ε = 1/β for a pixel, and that times the number of values for an image."""
        if self._values_per_image is None:
            return Guarantee.none(self.name, "the images were not released yet")
        if self._noise.reproducible:
            return Guarantee.none(self.name, REPEATABLE)
        epsilon = pixel_epsilon(self._beta)
        of_image = epsilon * self._values_per_image
        return Guarantee(
            mechanism=self.name,
            epsilon=epsilon,
            delta=0.0,
            unit="pixel",
            adjacency="replace-one",
            accountant="Laplace mechanism: sensitivity / β",
            image_epsilon=of_image,
            epsilons={printed_delta(delta): epsilon for delta in STRICTER_DELTAS},  # at any δ
            replace_one_epsilon=of_image,
            private={
                name: Group(images, images * of_image) for name, images in self._together.items()
            },
            assumptions=(
                "a pixel is one 8-bit value (of one colour channel) of the resized image",
                "labels, the number of images and their order are not protected; the number is "
                + COUNTED,
                f"a whole image has {self._values_per_image} values, and ε that many times over",
                EVALUATED,
                self._noise.assumption,
                "the noise is drawn in double precision and the result rounded to 8 bits",
            ),
        )

    def describe(self) -> dict[str, Any]:
        """Nothing to add: the guarantee says all."""
        return {}
