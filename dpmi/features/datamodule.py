"""Batches of features, drawn as those of images are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as L
import torch
from torch.utils.data import DataLoader, Dataset

from dpmi.data.batches import Batches, ShuffledBatches, StepSampler
from dpmi.data.datamodule import Batch, drawn_rows
from dpmi.data.patients import Patients
from dpmi.features.extract import Features

_EVALUATED_AT_ONCE = 4096


class FeatureDataset(Dataset[Batch]):
    """One split's unit vectors (B, D) and labels (B,), a batch at a time; a batch may be empty.

    Where patients are given, an index is one of a patient: (B, K, D) and (B, K) of K images each.

    Args:
        features: of all splits.
        split: which of them.
        patients: whose the images are; None: an index is one of an image.
        images: K, of each patient, drawn anew at each step.
        seed: of that draw.
    """

    def __init__(
        self,
        features: Features,
        split: str,
        patients: Patients | None = None,
        images: int = 1,
        seed: int = 0,
    ) -> None:
        self._vectors, self._labels = features.vectors[split], features.labels[split]
        self._patients, self._images, self._seed = patients, images, seed

    def __len__(self) -> int:
        return len(self._labels if self._patients is None else self._patients)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        rows = torch.from_numpy(drawn_rows(indices, self._patients, self._images, self._seed))
        return self._vectors[rows], self._labels[rows]


def _identity(batch: Any) -> Any:
    return batch


class FeatureDataModule(L.LightningDataModule):
    """Loaders of features; batches are drawn, numbered and resumed as in ``ImageDataModule``.

    Args:
        features: of all splits.
        batch_size: features in a batch, except where ``train_batches`` decides.
        seed: of the order in which they are shuffled.
        train_batches: draws the training batches, instead of shuffling.
        first_step: of training; not 0 where a run is resumed.
        patients: whose the training images are, where ``train_batches`` draws patients.
        images: of each patient at a step.
    """

    def __init__(
        self,
        features: Features,
        *,
        batch_size: int,
        seed: int,
        train_batches: Batches | None = None,
        first_step: int = 0,
        patients: Patients | None = None,
        images: int = 1,
    ) -> None:
        super().__init__()
        self._features, self._first_step = features, first_step
        self._drawn = patients, images, seed
        n = len(features.labels["train"])
        self._train_batches = train_batches or ShuffledBatches(n, batch_size, seed)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Training batches, from the first step on."""
        return DataLoader(
            FeatureDataset(self._features, "train", *self._drawn),
            batch_sampler=StepSampler(self._train_batches, self._first_step),
            collate_fn=_identity,
        )

    def train_eval_dataloader(self) -> DataLoader[Batch]:
        """Training features in order."""
        return self._in_order("train")

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """Return the validation features in order; an empty list where the set has none."""
        return self._in_order("val") if "val" in self._features.labels else []

    def test_dataloader(self) -> DataLoader[Batch]:
        """Test features in order."""
        return self._in_order("test")

    def _in_order(self, split: str) -> DataLoader[Batch]:
        return DataLoader(
            FeatureDataset(self._features, split),
            batch_size=_EVALUATED_AT_ONCE,
            collate_fn=_identity,
        )
