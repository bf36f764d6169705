"""Local differential privacy: Laplace noise on every pixel of every training image, once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from dpmi.base.errors import UserError
from dpmi.base.ranks import ALONE, Ranks
from dpmi.data.batches import Batches
from dpmi.data.prepare import PreparedData, Split
from dpmi.mechanisms.base import COUNTED, EVALUATED, NO_GROUPS, PUBLIC_WEIGHTS, FirstWeights
from dpmi.mechanisms.ldp_release import Release, coarse, gray_images, noised, shared_release
from dpmi.mechanisms.statistics import NO_STATISTICS, ExactStatistics
from dpmi.models.gradient import Gradient, MeanGradient
from dpmi.privacy.guarantee import (
    REPEATABLE,
    STRICTER_DELTAS,
    Group,
    Guarantee,
    printed_delta,
)
from dpmi.privacy.laplace import WHITE, mean_moves, pixel_epsilon
from dpmi.privacy.randomness import NoiseSource

SHIFTED = (
    "the kept weights hold how much noise moves the mean logits of validation images, or of test "
    "images where there are none: no ε covers it"
)
ONE_EACH = (
    "each patient gives one image to training, drawn by public numbers, the same in all runs on "
    "the same images: ε of an image is that of its patient; one who goes by several names, or "
    "gives other images to other runs, has the sum"
)
_DRAWS = 2  # of noise on each image by which a network is matched

# Name of a release, ε of a channel value, ε of an image, and whose images they are: a patient's
# where each patient has one in it.
Announce = Callable[[str, float, float, str], None]


class LocalDP:
    """Releases noised training images; what is done with them afterwards costs nothing more.

    The release is one for all runs (see ldp_release), unless the noise can be repeated: then it is
    this run's own.

    Args:
        beta: scale of the Laplace noise, a pixel being in [0, 1].
        pool: side of the blocks of pixels whose means get the noise, less of it for the same ε of
            a pixel (:func:`mean_moves`); clean images are pooled alike.
        matched: correct for what noise does to the logits, where clean images are met.
        seed: of the noise on clean images by which that is found; it protects nothing.
        noise: says whether the noise can be repeated, and then is where it comes from.
        cache_dir: where releases are kept.
        ranks: who trains; the first finds or makes the release that all use.
        together: training images that belong to one, by the name of what they have in common.
        announce: called before the release of the training images is made or used.
        first: the weights before training: other releases that they were trained on are in ε.
        statistics: of labels, which are not protected, that the network is given.
        one_each: the training images are one of each patient, so that ε is a patient's.
    """

    name = "ldp"

    def __init__(
        self,
        beta: float,
        pool: int,
        matched: bool,
        seed: int,
        noise: NoiseSource,
        cache_dir: Path,
        ranks: Ranks = ALONE,
        together: Mapping[str, int] = NO_GROUPS,
        announce: Announce | None = None,
        first: FirstWeights = PUBLIC_WEIGHTS,
        statistics: ExactStatistics = NO_STATISTICS,
        one_each: bool = False,
    ) -> None:
        self._one_each = one_each
        self._announce, self._first, self._statistics = announce, first, statistics
        self._beta, self._pool, self._matched = beta, pool, matched
        self._seed, self._noise = seed, noise
        self._cache_dir, self._ranks, self._together = cache_dir, ranks, together
        self._shape: tuple[int, ...] | None = None  # (C, R, R) of the values that got noise
        self._release: Release | None = None

    @property
    def release_id(self) -> str | None:
        """Of the training images' release, the same in all runs that use it.

        None before there is one, and where the noise can be repeated: that is no release.
        """
        return self._release.id if self._release else None

    def release_data(self, data: PreparedData) -> PreparedData:
        """Noise the images, or find them noised.

        Raises:
            RuntimeError: called a second time.
            UserError: the release cannot be kept.
        """
        if self._shape is not None:
            raise RuntimeError("the noised images of this run were already released")
        train = data.splits["train"].pixels
        values_a_pixel = 1 if gray_images(train).all() else train.shape[1]
        self._shape = (values_a_pixel, *train.shape[2:])
        if self._noise.reproducible:
            released = np.concatenate(
                list(noised(train, self._beta, self._pool, self._noise, "laplace_train"))
            )
        else:
            self._release = self._shared(train)
            released = self._release.pixels
        splits = {
            name: dataclasses.replace(
                split, pixels=released if name == "train" else coarse(split.pixels, self._pool)
            )
            for name, split in data.splits.items()
        }
        return dataclasses.replace(data, splits=splits)

    def _shared(self, train: NDArray[np.uint8]) -> Release:
        found: list[Release] = []

        def find() -> str:
            found.append(shared_release(train, self._beta, self._pool, self._cache_dir, self._tell))
            return found[-1].id

        release = self._ranks.from_first(find)  # the others wait
        if not found and find() != release:
            raise UserError(
                f"cache_dir={self._cache_dir}: the noised images changed while the processes of "
                "this run opened them; give the same command again"
            )
        return found[-1]

    def reference(self, data: PreparedData) -> tuple[Split, Split] | None:
        """Clean images, and the same with noise of the release's law; None where not matched.

        They are the validation images, or of a set without any the test images, none of which is
        protected, and their labels say nothing here. The noise comes from the run's seed, never
        from a release's key.
        """
        if not self._matched:
            return None
        clean = data.splits.get("val", data.splits["test"])
        both = dataclasses.replace(
            clean,
            pixels=np.concatenate([clean.pixels] * _DRAWS),
            labels=np.concatenate([clean.labels] * _DRAWS),
            patients=clean.patients * _DRAWS,
            groups={},
        )
        source = NoiseSource(self._seed)
        drawn = noised(both.pixels, self._beta, self._pool, source, "laplace_test")
        seen = dataclasses.replace(clean, pixels=coarse(clean.pixels, self._pool))
        return seen, dataclasses.replace(both, pixels=np.concatenate(list(drawn)))

    def _tell(self, release: str) -> None:
        if self._announce and self._shape:
            epsilon = pixel_epsilon(self._beta)
            self._announce(
                release, epsilon, self._of_image(), "patient" if self._one_each else "image"
            )

    def train_batches(self) -> Batches | None:
        """Shuffled batches of the noised images."""
        return None

    def make_gradient(self, net: nn.Module, first_step: int = 0) -> Gradient:
        """Plain mean gradient: the images are already released."""
        self._statistics.hand_over(net, first_step)
        return MeanGradient(net, self._ranks)

    def settle(self, net: nn.Module, logits: Tensor) -> None:
        """Give the network its threshold, of the noised images and their labels."""
        self._statistics.settle(net, logits)

    def spent(self) -> tuple[float, str] | None:
        """ε = 1/β, of a value."""
        if self._shape is None or self._noise.reproducible:
            return None
        return pixel_epsilon(self._beta), self._unit

    def _of_image(self) -> float:
        """ε of an image: of each block's mean, which all its pixels together move by all it can."""
        assert self._shape
        means = prod(self._shape) // self._pool**2
        return pixel_epsilon(self._beta) * means * WHITE / mean_moves(self._pool)

    @property
    def _unit(self) -> str:
        value = "channel value" if self._shape and self._shape[0] > 1 else "pixel"
        return f"{value} of a patient" if self._one_each else value

    def guarantee(self) -> Guarantee:
        """ε = 1/β for a value, and that times the number of values for a pixel and an image."""
        if self._shape is None:
            return Guarantee.none(self.name, "the images were not released yet")
        if self._noise.reproducible:
            return Guarantee.none(self.name, REPEATABLE)
        channels, values = self._shape[0], prod(self._shape)
        before = [took for took in self._first.taken if took.entry != self.release_id]
        epsilon = pixel_epsilon(self._beta) + sum(took.value_epsilon or 0.0 for took in before)
        of_image = self._of_image()
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
                f"a whole image has {values} values, and ε that many times over"
                if self._pool == 1
                else f"what is released is the mean of each block of {self._pool} x {self._pool} "
                "values, rounded to 8 bits, of which one value moves one alone",
                *[ONE_EACH] * self._one_each,
                *self._first.assumptions,
                EVALUATED,
                *[SHIFTED] * self._matched,
                "the key of the noise came from the operating system, for this release alone, and "
                "was written nowhere",
                "the noise is exact on the 8-bit grid, in probabilities of 64 bits",
            ),
        )

    def describe(self) -> dict[str, Any]:
        """Return which release was used, and whether this run made it or found it."""
        if not self._release:
            return {}
        return {"release": self._release.id, "release_made_by_this_run": self._release.made}
