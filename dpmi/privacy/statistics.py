"""Sums over private images, to each of which one image contributes a vector of bounded length.

Contract: where one image, or one patient with all their images, is replaced by one that contributes
nothing (zero-out), a sum moves by a vector of L2 norm at most its sensitivity. Rows are bounded
here, whatever they were: one longer than it should be is shortened, one that is not finite
contributes nothing.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dpmi.base.targets import are_findings
from dpmi.privacy.finding_statistics import finding_counts, finding_logit_sums
from dpmi.privacy.rows import bounded, weighted

SENSITIVITY = 1.0  # of a sum of unit vectors, and of a count of classes: an image has one class
COUNT_SCALE = 0.3  # weight of a count beside a sum of unit vectors, a priori
LOGIT_BOUND = 4.0  # L2 norm of an image's centred logits in a sum of them, a priori


@dataclass(frozen=True)
class TrainingSet:
    """What statistics are made of: private, row i of each speaks of the same image.

    Where a patient is what is protected, an image counts for one over the number of its patient's
    images: a patient adds the mean of what their images would add, of norm at most its bound.

    Attributes:
        labels: (N,) class indices; or (N, K) findings (``dpmi.base.targets``).
        num_classes: K, or findings.
        vectors: (N, D) of norm at most 1; None where no statistic is made of any.
        length: public; what a network's own features have where these have length 1.
        patients: (N,) numbers of the images' patients, each from 0 up; None where an image is
            what is protected.
    """

    labels: Tensor
    num_classes: int
    vectors: Tensor | None = None
    length: float = 1.0
    patients: Tensor | None = None

    @property
    def n(self) -> int:
        """Training images; patients, where they are given."""
        return len(self.labels) if self.patients is None else len(torch.bincount(self.patients))

    @property
    def weights(self) -> Tensor | None:
        """(N,) float64: what an image counts for; None: each counts in full."""
        if self.patients is None:
            return None
        return torch.bincount(self.patients).double().reciprocal()[self.patients]

    def of_patients(self) -> TrainingSet:
        """One row for each patient: the mean of their vectors, and the label most of them have.

        Of labels that equally many have, the lowest.

        Raises:
            ValueError: there are no vectors, or no patients.
        """
        if self.vectors is None or self.patients is None:
            raise ValueError("means of patients are of vectors whose patients are known")
        votes = torch.zeros(self.n, self.num_classes, dtype=torch.long)
        votes.index_put_(
            (self.patients, self.labels), torch.ones_like(self.labels), accumulate=True
        )
        rows = weighted(bounded(self.vectors), self.weights)
        means = rows.new_zeros(self.n, rows.shape[1]).index_add_(0, self.patients, rows)
        # The first of equal votes, whatever argmax does with them.
        labels = (votes == votes.max(1, keepdim=True).values).int().argmax(1)
        return TrainingSet(labels, self.num_classes, means.to(self.vectors.dtype), self.length)

    def vector_sum(self) -> Tensor:
        """(D,) float64: Σ_i x_i, of sensitivity 1.

        Raises:
            ValueError: there are no vectors.
        """
        if self.vectors is None:
            raise ValueError("only vectors have a mean that can be released: these are images")
        return weighted(bounded(self.vectors), self.weights).sum(0)

    def class_sums(self) -> Tensor:
        """(K (D + 1),) float64: ``class_statistics`` in units of their sensitivity, of 1.

        Raises:
            ValueError: there are no vectors.
        """
        if self.vectors is None:
            raise ValueError("class sums are of vectors, and none were given")
        sums = class_statistics(
            *(self.vectors, self.labels, self.num_classes, COUNT_SCALE), weights=self.weights
        )
        return sums / class_sensitivity(COUNT_SCALE)

    @property
    def digest(self) -> str:
        """SHA-256 of vectors and length, on whose last bits releases depend; of none, "none"."""
        if self.vectors is None:
            return "none"
        sha256 = hashlib.sha256(f"{self.length.hex()};".encode())
        sha256.update(self.vectors.contiguous().numpy().data)
        return sha256.hexdigest()

    def class_counts(self) -> Tensor:
        """(K,) float64: images of each class; or (2 K,), ``finding_counts``. Of sensitivity 1."""
        if are_findings(self.labels):
            return finding_counts(self.labels, self.weights)
        return _class_counts(self.labels, self.num_classes, self.weights)

    def logit_sums(self, logits: Tensor) -> Tensor:
        """(K K,) float64, ``class_logit_sums``; or (2 K,), ``finding_logit_sums``: sensitivity 1.

        Args:
            logits: (N, K).
        """
        if are_findings(self.labels):
            return finding_logit_sums(logits, self.labels, self.weights)
        return class_logit_sums(logits, self.labels, self.num_classes, self.weights)

    @property
    def num_logit_sums(self) -> int:
        """How many values ``logit_sums`` has."""
        return self.num_classes * (2 if are_findings(self.labels) else self.num_classes)


def class_logit_sums(
    logits: Tensor, labels: Tensor, num_classes: int, weights: Tensor | None = None
) -> Tensor:
    """Sums of the centred logits of each class, in units of LOGIT_BOUND.

    An image adds a vector of norm at most 1 in its own class's sum alone: sensitivity 1.

    Args:
        logits: (n, K).
        labels: (n,) class indices.
        num_classes: K.
        weights: (n,) of the images, as ``TrainingSet`` has them.

    Returns:
        (K K,) float64, class by class.
    """
    rows = weighted(bounded((logits - logits.mean(1, keepdim=True)) / LOGIT_BOUND), weights)
    sums = rows.new_zeros(num_classes, num_classes)
    return sums.index_add_(0, labels, rows).flatten()


def _class_counts(labels: Tensor, num_classes: int, weights: Tensor | None) -> Tensor:
    return torch.bincount(labels, weights, num_classes).double()


def class_statistics(
    vectors: Tensor,
    labels: Tensor,
    num_classes: int,
    count_scale: float,
    moment_scale: float | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Sums and numbers of the vectors of each class, and their second moment, as one vector.

    An image adds x in one class's sum, ``count_scale`` in its count, and ``moment_scale`` times
    x xᵀ, packed, of norm |x|². They are orthogonal: its contribution has norm
    sqrt(|x|² + count_scale² + moment_scale² |x|⁴), at most :func:`class_sensitivity`.

    Args:
        vectors: (n, D) of norm at most 1.
        labels: (n,) class indices.
        num_classes: K.
        count_scale: weight of a count.
        moment_scale: weight of the second moment of all classes together; None: it is left out.
        weights: (n,) of the images, as ``TrainingSet`` has them.

    Returns:
        (K (D + 1),) or (K (D + 1) + D (D + 1) / 2,) float64: the sums class by class, the counts
        times ``count_scale``, and Σ x xᵀ, packed (:func:`packed`), times ``moment_scale``.
    """
    rows = bounded(vectors)
    counted = weighted(rows, weights)
    sums = rows.new_zeros(num_classes, rows.shape[1]).index_add_(0, labels, counted)
    parts = [sums.flatten(), count_scale * _class_counts(labels, num_classes, weights)]
    if moment_scale is not None:
        parts.append(moment_scale * packed(rows.T @ counted))
    return torch.cat(parts)


def class_sensitivity(count_scale: float, moment_scale: float | None = None) -> float:
    """L2 norm of the most that one image contributes to :func:`class_statistics`."""
    return math.sqrt(1.0 + count_scale**2 + (moment_scale or 0.0) ** 2)


def packed(matrix: Tensor) -> Tensor:
    """(D, D), symmetric, to (D (D + 1) / 2,) of the same length: what stands twice counts √2.

    So x xᵀ, whose Frobenius norm is |x|², has that norm, and noise of one size in each value is a
    symmetric noise whose law no rotation changes. (Dwork et al. 2014, "Analyze Gauss", where what
    stands twice counts once: for the same bound, more noise beside the diagonal.)
    """
    row, column, weights = _upper_triangle(len(matrix), matrix)
    return matrix[row, column] * weights


def unpacked(values: Tensor) -> Tensor:
    """(D (D + 1) / 2,) of :func:`packed` to the symmetric (D, D)."""
    size = (math.isqrt(8 * len(values) + 1) - 1) // 2
    row, column, weights = _upper_triangle(size, values)
    matrix = values.new_zeros(size, size)
    matrix[row, column] = values / weights
    return matrix + matrix.triu(1).T


def _upper_triangle(size: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, columns and weights of its values, row by row, the diagonal among them."""
    row, column = torch.triu_indices(size, size, device=like.device)
    weights = like.new_full(row.shape, math.sqrt(2.0))
    weights[row == column] = 1.0
    return row, column, weights
