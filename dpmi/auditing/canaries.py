"""Worst-case canaries in gradient space: images that contribute a known direction, or nothing.

The network is linear and has no bias, so an image that is black but for one cell has a gradient in
that cell's weights alone, which clipping cuts to exactly C, and a black image contributes nothing:
white or black is zero-out adjacency itself. Canaries in different cells do not meet anywhere in
the release.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dpmi.config.data_sets import SMALLEST_IMAGE
from dpmi.data.prepare import DataFingerprint, PreparedData, Split
from dpmi.models.prior import DecidingNetwork

SIDE = SMALLEST_IMAGE
HEADS = 4
_STRIPE = 4  # columns of a cell where images are moved
_STEEPNESS = 8.0  # gradients before clipping, in units of C, at least 4
CLASSES = ("left", "right")


@dataclass(frozen=True)
class Cells:
    """Where in an image canaries live, each in a cell of its own.

    Attributes:
        count: cells in use.
        moving: the run augments: a cell is then a strip of four columns whose middle two are
            white, since an affine crop shifts rows by a tenth and moves no column out of its
            strip; else a pixel.
    """

    count: int
    moving: bool

    @property
    def per_channel(self) -> int:
        """Cells that a channel holds."""
        return SIDE // _STRIPE if self.moving else SIDE * SIDE

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return -(-self.count // self.per_channel)

    def paint(self, pixels: NDArray[np.uint8], cell: int) -> None:
        """Whiten a cell of an image (C, S, S)."""
        channel, place = divmod(cell, self.per_channel)
        if self.moving:
            pixels[channel, :, _STRIPE * place + 1 : _STRIPE * place + 3] = 255
        else:
            pixels[channel].flat[place] = 255


class CanaryNet(DecidingNetwork):
    """Linear in the cells, by four heads of opposite signs: no norm of one layer is the whole.

    A white cell j with label y has in head l the gradient (-1)^l (p - e_y) x_j, in the column of
    the cell; with two classes (p - e_y) is ±(1, -1)/2 as long as the weights are near 0. The heads
    are equal parts of the release: noise that is the same in two parts cancels along a canary.

    Args:
        cells: of the images.
        max_grad_norm: C; a canary's gradient is several times as long before it is clipped.
    """

    def __init__(self, cells: Cells, max_grad_norm: float) -> None:
        super().__init__(len(CLASSES))
        self._cells, self._scale = cells, _STEEPNESS * max_grad_norm
        width = cells.channels * cells.per_channel
        heads = [nn.Linear(width, len(CLASSES), bias=False) for _ in range(HEADS)]
        for head in heads:
            nn.init.zeros_(head.weight)
        self.net = nn.ModuleList(heads)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, S, S) to logits (B, 2)."""
        if self._cells.moving:
            images = images.mean(2).unflatten(-1, (-1, _STRIPE)).mean(-1)  # (B, C, S / 4)
        x = images.flatten(1) * self._scale
        logits: Tensor = sum(sign * head(x) for sign, head in zip(_SIGNS, self.net, strict=True))
        return self.decided(logits)

    def exported(self) -> dict[str, Tensor]:
        """The heads' weights."""
        state: dict[str, Tensor] = self.net.state_dict()
        return state

    def along_canaries(self, weights: Tensor, labels: Tensor) -> Tensor:
        """Project on each cell's canary direction, of length one.

        Args:
            weights: (4, 2, cells), as from :meth:`stacked`.
            labels: (cells,), of the canaries.
        """
        signs = torch.tensor(_SIGNS, dtype=weights.dtype)
        direction = torch.tensor([-1.0, 1.0], dtype=weights.dtype) / 2**0.5
        along = torch.einsum("l,k,lkj->j", signs / HEADS**0.5, direction, weights)
        return along[: len(labels)] * (1 - 2 * labels)

    def stacked(self) -> Tensor:
        """A copy of all heads' weights (4, 2, cells), float64, on the CPU."""
        return torch.stack([weight.detach() for weight in self.net.parameters()]).cpu().double()


_SIGNS = (1.0, -1.0, 1.0, -1.0)


@dataclass(frozen=True)
class Canaries:
    """A training set of canaries and what the auditor alone knows of it.

    Attributes:
        data: as a run is given it; images past the canaries are black.
        n: training images; patients, where they are what is protected.
        included: (m,) the coins: white or black.
        labels: (m,).
        cells: where they are.
    """

    data: PreparedData
    n: int
    included: NDArray[np.bool_]
    labels: NDArray[np.int64]
    cells: Cells


def make_canaries(
    n: int, most: int, moving: bool, patients: bool, coins: np.random.Generator
) -> Canaries:
    """Toss a fair coin for each canary.

    Args:
        n: training images in all, or patients: as many as the audited run has.
        most: canaries, where n allows.
        moving: the run augments.
        patients: a canary is a patient with one to three images, all of them in the same cell.
        coins: the auditor's own, independent of the program's.
    """
    cells = Cells(min(n, most), moving)
    included = coins.random(cells.count) < 0.5
    labels = coins.integers(0, 2, n)
    whose = owners(n, patients)
    # Pages that nobody writes to take no memory: most images are black.
    pixels = np.zeros((len(whose), cells.channels, SIDE, SIDE), np.uint8)
    for row in np.isin(whose, included.nonzero()[0]).nonzero()[0]:
        cells.paint(pixels[row], int(whose[row]))
    data = auditors_data(pixels, labels[whose], whose if patients else None)
    return Canaries(data, n, included, labels[: cells.count], cells)


def owners(n: int, patients: bool) -> NDArray[np.int64]:
    """Whose each image is: of n patients with one to three images; or its own, of n images."""
    own = np.arange(n)
    return np.repeat(own, own % 3 + 1) if patients else own


def auditors_data(
    pixels: NDArray[np.uint8], labels: NDArray[np.int64], patients: NDArray[np.int64] | None = None
) -> PreparedData:
    """A data set of an auditor's, (n, C, S, S), unlike any other; the first two are its tests."""
    n, channels, side, _ = pixels.shape
    test = Split(pixels[:2], np.array([0, 1]), ("", ""))
    whose = ("",) * n if patients is None else tuple(map(str, patients))
    splits = {"train": Split(pixels, labels, whose), "test": test}
    fingerprint = DataFingerprint(
        sha256=secrets.token_hex(32),
        image_side=side,
        channels=channels,
        counts={"train": n, "test": 2},
        class_counts={},
        duplicates_removed=0,
        duplicates_within_split=0,
        patients_in_two_splits=0,
        corrupt_skipped=0,
        largest_images_per_patient=None,
        median_images_per_patient=None,
        most_copies_of_an_image=1,
    )
    return PreparedData("canaries", CLASSES, False, channels, side, splits, fingerprint)
