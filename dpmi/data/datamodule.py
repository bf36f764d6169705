"""Batches of decoded images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytorch_lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from dpmi.data.augment import affine_crops
from dpmi.data.prepare import PreparedData, Split

Batch = tuple[Tensor, Tensor]  # images float32 (B, C, S, S) in [0, 1]; labels int64 (B,)


class ImageDataset(Dataset[Batch]):
    """One split, served a batch at a time.

    A loader hands over all indices of a batch at once, so that an empty list, which Poisson
    sampling may draw, gives an empty batch: images ``(0, C, S, S)``, labels ``(0,)``.
    """

    def __init__(self, split: Split, image_size: int, augment: str = "none") -> None:
        """Serve the centre ``image_size`` square of each image.

        Args:
            split: images, uint8 ``(n, C, R, R)``; float images pass unscaled.
            image_size: side S of the square, in pixels; at most R.
            augment: "none" or "affine" (see ``augment.affine_crops``).
        """
        if augment not in ("none", "affine"):
            raise ValueError(f"augment must be 'none' or 'affine', not {augment!r}")
        self._split = split
        self._size = image_size
        self._affine = augment == "affine"

    def __len__(self) -> int:
        return len(self._split.labels)

    def __getitem__(self, index: int) -> Batch:
        images, labels = self.__getitems__([index])
        return images[0], labels[0]

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        rows = np.asarray(indices, dtype=np.int64)
        pixels = self._split.pixels[rows]  # (B, C, R, R), a copy
        if self._affine:
            pixels = affine_crops(pixels, self._size)
        else:
            edge = round((pixels.shape[-1] - self._size) / 2)  # as torchvision's CenterCrop
            pixels = pixels[..., edge : edge + self._size, edge : edge + self._size]
        images = torch.from_numpy(np.ascontiguousarray(pixels))  # (B, C, S, S)
        labels = torch.from_numpy(self._split.labels[rows])
        if images.dtype == torch.uint8:
            images = images.to(torch.float32).div_(255)
        return images, labels


def _identity(batch: Any) -> Any:
    return batch


class ImageDataModule(L.LightningDataModule):
    """Loaders of a prepared data set; batches are images and labels as in ``Batch``."""

    def __init__(
        self,
        prepared: PreparedData,
        *,
        image_size: int,
        batch_size: int,
        augment: str,
        num_workers: int,
        seed: int,
        train_batch_sampler: Sampler[list[int]] | None = None,
    ) -> None:
        """Make the loaders' parts.

        Args:
            prepared: the images.
            image_size: side S of the images served, in pixels; at most ``prepared.size``.
            batch_size: images in a batch, except where ``train_batch_sampler`` decides.
            augment: "none" or "affine", for the training images alone (see ImageDataset).
            num_workers: processes that make batches; 0 makes them in this one.
            seed: of the order in which training images are shuffled.
            train_batch_sampler: draws the training batches, instead of shuffling.
        """
        super().__init__()
        self.prepared = prepared
        self._image_size = image_size
        self._batch_size = batch_size
        self._augment = augment
        self._num_workers = num_workers
        self._seed = seed
        self._train_batch_sampler = train_batch_sampler

    def train_dataloader(self) -> DataLoader[Batch]:
        """Training batches: drawn by the batch sampler if one was given, else shuffled."""
        dataset = ImageDataset(self.prepared.splits["train"], self._image_size, self._augment)
        generator = torch.Generator().manual_seed(self._seed)
        if self._train_batch_sampler is not None:
            return DataLoader(
                dataset,
                batch_sampler=self._train_batch_sampler,
                num_workers=self._num_workers,
                collate_fn=_identity,
                generator=generator,
            )
        return DataLoader(
            dataset,
            batch_size=self._batch_size,
            shuffle=True,
            num_workers=self._num_workers,
            collate_fn=_identity,
            generator=generator,
        )

    def train_eval_dataloader(self) -> DataLoader[Batch]:
        """Training images in order and not augmented."""
        return self._in_order("train")

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """Return the validation images in order; an empty list where the set has none."""
        return self._in_order("val") if "val" in self.prepared.splits else []

    def test_dataloader(self) -> DataLoader[Batch]:
        """Test images in order."""
        return self._in_order("test")

    def _in_order(self, split: str) -> DataLoader[Batch]:
        return DataLoader(
            ImageDataset(self.prepared.splits[split], self._image_size),
            batch_size=self._batch_size,
            num_workers=self._num_workers,
            collate_fn=_identity,
        )
