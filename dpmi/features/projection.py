"""A public projection of features: principal directions of images that the program draws."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dpmi.config.data_sets import PhantomData
from dpmi.features.vectors import unit

DRAWN = 256  # images that directions are fitted on
_SEED = 2**40  # of theirs: no user's
_MEAN, _DIRECTIONS = "projection.mean", "projection.directions"


@dataclass(frozen=True)
class Projection:
    """x to P (x - mean), brought to length one.

    Attributes:
        mean: (D,).
        directions: P, (k, D), orthonormal.
    """

    mean: Tensor
    directions: Tensor

    def __call__(self, vectors: Tensor) -> Tensor:
        """(n, D) to (n, k) float32, each row of its image alone, of length one or 0."""
        return unit((vectors.double() - self.mean) @ self.directions.T).float()

    def exported(self) -> dict[str, Tensor]:
        """What is kept of it, by its names in a file."""
        return {_MEAN: self.mean, _DIRECTIONS: self.directions}

    @classmethod
    def kept(cls, state: dict[str, Tensor]) -> Projection | None:
        """The one that a file holds; None where it holds none."""
        return cls(state[_MEAN], state[_DIRECTIONS]) if _DIRECTIONS in state else None


def fitted(vectors: Tensor, dimensions: int) -> Projection:
    """The mean and the first principal directions of (n, D) vectors, which must be public."""
    rows = vectors.double()
    mean = rows.mean(0)
    directions = torch.linalg.svd(rows - mean, full_matrices=False).Vh[:dimensions]
    # A sign that depends on no library.
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    return Projection(mean, directions * largest.sign())


def drawn_images(channels: int, size: int) -> PhantomData:
    """Chests for gray images, retinas for those in colour."""
    return PhantomData(
        name="phantom_xray" if channels == 1 else "phantom_fundus",
        seed=_SEED,
        train_images=DRAWN,
        val_images=0,
        test_images=1,
        image_size=size,
        resize=None,
        batch_size="all",
        augment="none",
        multiplicity=1,
        on_corrupt="error",
        num_workers=0,
        resident=False,
        groups=None,
    )
