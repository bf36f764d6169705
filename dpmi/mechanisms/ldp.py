"""Local differential privacy: Laplace noise on every pixel of every training image, once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from dpmi.data.batches import Batches
from dpmi.data.prepare import PreparedData
from dpmi.errors import UserError
from dpmi.mechanisms.base import COUNTED, EVALUATED, NO_GROUPS, PUBLIC_WEIGHTS, FirstWeights
from dpmi.mechanisms.ldp_release import Release, gray_images, noised, shared_release
from dpmi.models.gradient import Gradient, MeanGradient
from dpmi.privacy.guarantee import (
    REPEATABLE,
    STRICTER_DELTAS,
    Group,
    Guarantee,
    printed_delta,
)
from dpmi.privacy.laplace import pixel_epsilon
from dpmi.privacy.randomness import NoiseSource
from dpmi.ranks import ALONE, Ranks

# Name of a release, ε of a channel value, ε of an image.
Announce = Callable[[str, float, float], None]


class LocalDP:
    """Releases noised training images; what is done with them afterwards costs nothing more.

    The release is one for all runs (see ldp_release), unless the noise can be repeated: then it is
    this run's own.

    Args:
        beta: scale of the Laplace noise, a pixel being in [0, 1].
        noise_test: noise the test and validation images too.
        noise: says whether the noise can be repeated, and then is where it comes from.
        cache_dir: where releases are kept.
        ranks: who trains; the first finds or makes the release that all use.
        together: training images that belong to one, by the name of what they have in common.
        announce: told of the release of the training images before it is made, or used.
        first: the weights before training: other releases that they were trained on are in ε.
    """

    name = "ldp"

    def __init__(
        self,
        beta: float,
        noise_test: bool,
        noise: NoiseSource,
        cache_dir: Path,
        ranks: Ranks = ALONE,
        together: Mapping[str, int] = NO_GROUPS,
        announce: Announce | None = None,
        first: FirstWeights = PUBLIC_WEIGHTS,
    ) -> None:
        self._announce, self._first = announce, first
        self._beta, self._noise_test, self._noise = beta, noise_test, noise
        self._cache_dir, self._ranks, self._together = cache_dir, ranks, together
        self._shape: tuple[int, ...] | None = None  # (C, R, R) of the values that got noise
        self._releases: dict[str, Release] = {}

    @property
    def release_id(self) -> str | None:
        """Of the training images' release, the same in all runs that use it.

        None before there is one, and where the noise can be repeated: that is no release.
        """
        return self._releases["train"].id if self._releases else None

    def release_data(self, data: PreparedData) -> PreparedData:
        """Noise the images, or find them noised.

        Raises:
            RuntimeError: called a second time.
            UserError: the release cannot be kept.
        """
        if self._shape is not None:
            raise RuntimeError("the noised images of this run were already released")
        clean = {
            name: split.pixels
            for name, split in data.splits.items()
            if self._noise_test or name == "train"
        }
        train = clean["train"]
        values_a_pixel = 1 if gray_images(train).all() else train.shape[1]
        self._shape = (values_a_pixel, *train.shape[2:])
        if self._noise.reproducible:
            released = {name: self._own(name, pixels) for name, pixels in clean.items()}
        else:
            self._releases = self._shared(clean)
            released = {name: release.pixels for name, release in self._releases.items()}
        splits = {
            name: dataclasses.replace(data.splits[name], pixels=pixels)
            for name, pixels in released.items()
        }
        return dataclasses.replace(data, splits=data.splits | splits)

    def _own(self, name: str, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.concatenate(list(noised(pixels, self._beta, self._noise, f"laplace_{name}")))

    def _shared(self, clean: dict[str, NDArray[np.uint8]]) -> dict[str, Release]:
        found: dict[str, Release] = {}

        def find() -> dict[str, str]:
            for name, pixels in clean.items():
                tell = self._tell if name == "train" else None
                found[name] = shared_release(pixels, self._beta, self._cache_dir, tell)
            return {name: release.id for name, release in found.items()}

        ids = self._ranks.from_first(find)  # the others wait
        if not found and find() != ids:
            raise UserError(
                f"cache_dir={self._cache_dir}: the noised images changed while the processes of "
                "this run opened them; give the same command again"
            )
        return found

    def _tell(self, release: str) -> None:
        if self._announce and self._shape:
            epsilon = pixel_epsilon(self._beta)
            self._announce(release, epsilon, epsilon * prod(self._shape))

    def train_batches(self) -> Batches | None:
        """Shuffled batches of the noised images."""
        return None

    def make_gradient(self, net: nn.Module, first_step: int = 0) -> Gradient:
        """Plain mean gradient: the images are already released."""
        return MeanGradient(net, self._ranks)

    def spent(self) -> tuple[float, str] | None:
        """ε = 1/β, of a value."""
        if self._shape is None or self._noise.reproducible:
            return None
        return pixel_epsilon(self._beta), self._unit

    @property
    def _unit(self) -> str:
        return "channel value" if self._shape and self._shape[0] > 1 else "pixel"

    def guarantee(self) -> Guarantee:
        """ε = 1/β for a value, and that times the number of values for a pixel and an image."""
        if self._shape is None:
            return Guarantee.none(self.name, "the images were not released yet")
        if self._noise.reproducible:
            return Guarantee.none(self.name, REPEATABLE)
        channels, values = self._shape[0], prod(self._shape)
        before = [took for took in self._first.taken if took.entry != self.release_id]
        epsilon = pixel_epsilon(self._beta) + sum(took.value_epsilon or 0.0 for took in before)
        of_image = pixel_epsilon(self._beta) * values
        of_image += sum(took.image_epsilon or 0.0 for took in before)
        in_colour = channels > 1
        return Guarantee(
            mechanism=self.name,
            epsilon=epsilon,
            delta=0.0,
            unit=self._unit,
            adjacency="replace-one",
            accountant="Laplace mechanism: sensitivity / β",
            pixel_epsilon=epsilon * channels if in_colour else None,
            image_epsilon=of_image,
            epsilons={printed_delta(delta): epsilon for delta in STRICTER_DELTAS},  # at any δ
            replace_one_epsilon=of_image,
            private={
                name: Group(images, images * of_image) for name, images in self._together.items()
            },
            assumptions=(
                "a value is 8 bits of the resized image, one a pixel where it is gray and "
                f"{channels} where it is in colour"
                if in_colour
                else "a pixel is one 8-bit value of the resized image",
                "whether an image is gray or in colour is not protected",
                "labels, the number of images and their order are not protected; the number is "
                + COUNTED,
                f"a whole image has {values} values, and ε that many times over",
                *self._first.assumptions,
                EVALUATED,
                "the key of the noise came from the operating system, for this release alone, and "
                "was written nowhere",
                "the noise is exact on the 8-bit grid, in probabilities of 64 bits",
            ),
        )

    def describe(self) -> dict[str, Any]:
        """Return which release was used, and whether this run made it or found it."""
        if not self._releases:
            return {}
        train = self._releases["train"]
        return {"release": train.id, "release_made_by_this_run": train.made}
