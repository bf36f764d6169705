"""Whose the training images are, and which of a patient's images a step sees."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dpmi.base.errors import UserError
from dpmi.data.batches import step_seed, uniform_of
from dpmi.data.prepare import PreparedData

_STREAM = 1 << 20  # of public randomness: apart from those of augmentation, which count views
_SEED = 2005130  # of the one image that a patient gives: the same in all runs on the same images


@dataclass(frozen=True)
class Patients:
    """The patients of the training images, numbered in the order in which they first occur.

    Attributes:
        of_image: (n,) number of each image's patient; every number from 0 up occurs.
    """

    of_image: NDArray[np.int64]

    @classmethod
    def named(cls, names: Sequence[str]) -> Patients:
        """From each image's patient by name."""
        numbers: dict[str, int] = {}
        return cls(np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64))

    def __len__(self) -> int:
        """Patients."""
        return len(self.counts)

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """(patients,) images of each."""
        return np.bincount(self.of_image).astype(np.int64)

    @cached_property
    def _by_patient(self) -> NDArray[np.int64]:
        return np.argsort(self.of_image, kind="stable")

    @cached_property
    def _first(self) -> NDArray[np.int64]:
        return np.cumsum(self.counts) - self.counts

    def draw(self, patients: Sequence[int], images: int, seed: int, step: int) -> NDArray[np.int64]:
        """Draw some of each patient's images, every one equally likely.

        Which they are is a function of ``seed``, ``step``, the patient's number and how many images
        that patient has: never of who else is in the batch, or of how many images others have.

        Args:
            patients: (B,) numbers.
            images: K, of each patient: neighbours in a circle of that patient's images, from one
                drawn at random; a patient with fewer gives some of them again.
            seed: of the run, public.
            step: of training.

        Returns:
            (B, K) rows of the training images.
        """
        chosen = np.asarray(patients, np.int64)
        counts = self.counts[chosen]
        start = uniform_of(chosen, 1, step_seed(seed, step, _STREAM))[0] * counts
        places = (start.astype(np.int64)[:, None] + np.arange(images)) % counts[:, None]
        return self._by_patient[self._first[chosen][:, None] + places]

    def one_image_each(self) -> NDArray[np.int64]:
        """(patients,) rows: an image of each patient, drawn once for all runs."""
        return self.draw(range(len(self)), 1, _SEED, 0)[:, 0]


def known_patients(data: PreparedData, unit: str) -> Patients | None:
    """The patients of the training images, where a patient is what is to be protected.

    Args:
        data: of the run.
        unit: "patient"; "image"; or "auto", a patient where all images name theirs, an image where
            none does.

    Returns:
        None where an image is protected.

    Raises:
        UserError: patients are to be protected, and some images do not say whose they are.
    """
    names = data.splits["train"].patients
    nameless = sum(not name for name in names)
    if unit == "image" or (unit == "auto" and nameless == len(names)):
        return None
    if nameless:
        raise UserError(
            f"privacy.unit={unit}: {nameless} of the {len(names)} training images of "
            f"data={data.name} have no patient; give each one with data=csv and a column patient, "
            "or protect images instead: privacy.unit=image"
        )
    return Patients.named(names)


def one_image_of_each(data: PreparedData, patients: Patients) -> PreparedData:
    """The data set with one training image of each patient, the same in all runs on it."""
    kept = data.splits["train"].of_rows(patients.one_image_each())
    return dataclasses.replace(data, splits=data.splits | {"train": kept})
