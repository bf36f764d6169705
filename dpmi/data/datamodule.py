"""Batches of decoded images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pytorch_lightning as L
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dpmi.base.devices import handed_over
from dpmi.base.ranks import ALONE, Ranks
from dpmi.data.augment import affine_crops, draw_affine
from dpmi.data.batches import (
    Batches,
    NumberedBatch,
    ShuffledBatches,
    StepSampler,
)
from dpmi.data.patients import Patients
from dpmi.data.prepare import PreparedData, Split

_SHARE_OF_FREE = 0.25  # of a GPU's memory, for images; the network has the rest
_BYTES_AT_ONCE = 1 << 28

# Images float32 (B, C, S, S) in [0, 1] and labels int64 (B,); or K views of each, (B, K, C, S, S),
# and labels (B,), or of each view (B, K).
Batch = tuple[Tensor, Tensor]


class ImageDataset(Dataset[Batch]):
    """One split, served a batch at a time.

    A loader hands over all indices of a batch at once, so that an empty list, which Poisson
    sampling may draw, gives an empty batch: images ``(0, C, S, S)``, labels ``(0,)``. With a
    multiplicity K above 1 they are ``(B, K, C, S, S)``. Where patients are given, an index is one
    of a patient, whose images are the K views: labels are then ``(B, K)``.
    """

    def __init__(
        self,
        split: Split,
        image_size: int,
        augment: str = "none",
        seed: int = 0,
        resident: Tensor | None = None,
        multiplicity: int = 1,
        patients: Patients | None = None,
    ) -> None:
        """Serve the centre ``image_size`` square of each image.

        Args:
            split: images, uint8 ``(n, C, R, R)``; float images pass unscaled.
            image_size: side S of the square, in pixels; at most R.
            augment: "none" or "affine" (see ``augment.affine_crops``), which needs batches that
                know their step: what is drawn for an image depends on it, on the seed and on the
                index alone.
            seed: of the augmentation.
            resident: the split's pixels on the device where batches are wanted; None takes them
                from the split, on the CPU. The batches are the same.
            multiplicity: views of each image in a batch, each augmented by itself (augmentation
                multiplicity, De et al. 2022, arXiv 2204.13650, section 3.2).
            patients: whose the images are; then a batch has patients, of whom ``multiplicity``
                images each are drawn anew at each step.
        """
        if augment not in ("none", "affine"):
            raise ValueError(f"augment must be 'none' or 'affine', not {augment!r}")
        if augment == "none" and multiplicity > 1 and patients is None:
            raise ValueError(f"{multiplicity} views that are not augmented would be the same")
        self._split = split
        self._size = image_size
        self._affine = augment == "affine"
        self._seed, self._resident, self._multiplicity = seed, resident, multiplicity
        self._patients = patients

    def __len__(self) -> int:
        return len(self._split.labels if self._patients is None else self._patients)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        rows = drawn_rows(indices, self._patients, self._multiplicity, self._seed)
        if rows.ndim == 1:
            pixels = self._pixels(rows)  # the same image in all views
            views = [self._cropped(pixels, indices, view) for view in range(self._multiplicity)]
        else:
            views = [self._cropped(self._pixels(r), indices, k) for k, r in enumerate(rows.T)]
        # (B, C, S, S) or (B, K, C, S, S)
        images = (torch.stack(views, 1) if len(views) > 1 else views[0]).contiguous()
        labels = handed_over(self._split.labels[rows], images.device)
        if images.dtype == torch.uint8:
            images = images.to(torch.float32).div_(255)
        return images, labels

    def _pixels(self, rows: NDArray[np.int64]) -> Tensor:
        """(B, C, R, R), a copy."""
        if self._resident is None:
            return torch.from_numpy(self._split.pixels[rows])
        return self._resident[handed_over(rows, self._resident.device)]

    def _cropped(self, pixels: Tensor, indices: Sequence[int], view: int) -> Tensor:
        """(B, C, R, R) to one view of each, (B, C, S, S)."""
        if self._affine:
            if not isinstance(indices, NumberedBatch):
                raise TypeError("an augmented batch must know its step: give a NumberedBatch")
            draw = draw_affine(indices, pixels.shape[-1], self._seed, indices.step, view)
            moves = (handed_over(drawn.numpy(), pixels.device) for drawn in draw)
            return affine_crops(pixels, self._size, *moves)
        edge = round((pixels.shape[-1] - self._size) / 2)  # as torchvision's CenterCrop
        return pixels[..., edge : edge + self._size, edge : edge + self._size]


def drawn_rows(
    indices: Sequence[int], patients: Patients | None, images: int, seed: int
) -> NDArray[np.int64]:
    """Rows of a batch's images: (B,), or of several images of each patient (B, K).

    Args:
        indices: of images; of patients, where they are given, in a batch that knows its step.
        patients: whose the images are.
        images: K, of each patient.
        seed: of the draw.

    Raises:
        TypeError: a batch of patients does not know its step.
    """
    if patients is None:
        return np.asarray(indices, dtype=np.int64)
    if not isinstance(indices, NumberedBatch):
        raise TypeError("a batch of patients must know its step: give a NumberedBatch")
    rows = patients.draw(indices, images, seed, indices.step)
    return rows if images > 1 else rows[:, 0]


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
        resident: bool | Literal["auto"] = False,
        train_batches: Batches | None = None,
        first_step: int = 0,
        ranks: Ranks = ALONE,
        multiplicity: int = 1,
        patients: Patients | None = None,
    ) -> None:
        """Make the loaders' parts.

        Args:
            prepared: the images.
            image_size: side S of the images served, in pixels; at most ``prepared.size``.
            batch_size: images in a batch, except where ``train_batch_sampler`` decides.
            augment: "none" or "affine", for the training images alone (see ImageDataset).
            num_workers: processes that make batches; 0 makes them in this one.
            seed: of the order in which training images are shuffled, and of the augmentation.
            resident: keep the training images on the device that trains, and make their batches
                there, in this process; "auto" does so on a GPU where they fill no more than a
                quarter of the free memory.
            train_batches: draws the training batches, instead of shuffling.
            first_step: of training; not 0 where a run is resumed.
            ranks: who trains; each process evaluates all images.
            multiplicity: views of each training image in a batch (see ImageDataset).
            patients: whose the training images are, where ``train_batches`` draws patients.
        """
        super().__init__()
        self.prepared = prepared
        self._image_size = image_size
        self._batch_size = batch_size
        self._augment, self._multiplicity, self._patients = augment, multiplicity, patients
        self._num_workers = num_workers
        self._seed = seed
        self._first_step, self._ranks = first_step, ranks
        self._resident = resident
        self._on_device: Tensor | None = None
        n = len(prepared.splits["train"].labels)
        self._train_batches = train_batches or ShuffledBatches(n, batch_size, seed)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Training batches, from the first step on."""
        split, resident = self.prepared.splits["train"], self._resident_pixels()
        drawn = self._augment, self._seed, resident, self._multiplicity, self._patients
        return DataLoader(
            ImageDataset(split, self._image_size, *drawn),
            batch_sampler=StepSampler(self._train_batches, self._first_step, self._ranks),
            num_workers=self._num_workers if resident is None else 0,
            collate_fn=_identity,
            pin_memory=resident is None and self._on_a_gpu(),
        )

    def _on_a_gpu(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    def _resident_pixels(self) -> Tensor | None:
        """Pixels of the training images on the training device, copied once; None where not."""
        if self._on_device is None and self._resident and self.trainer is not None:
            device = self.trainer.strategy.root_device
            pixels = self.prepared.splits["train"].pixels
            if self._resident is True or (
                device.type == "cuda"
                and pixels.nbytes <= _SHARE_OF_FREE * torch.cuda.mem_get_info(device)[0]
            ):
                self._on_device = _copied(pixels, device)
        return self._on_device

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
        resident = self._on_device if split == "train" else None
        return DataLoader(
            ImageDataset(self.prepared.splits[split], self._image_size, resident=resident),
            batch_size=self._batch_size,
            num_workers=self._num_workers if resident is None else 0,
            collate_fn=_identity,
        )


def _copied(pixels: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Copy to ``device``, some images at a time: they may be mapped from a file, and many."""
    pieces = np.array_split(pixels, -(-pixels.nbytes // _BYTES_AT_ONCE))
    return torch.cat([torch.from_numpy(np.array(piece)).to(device) for piece in pieces])
