"""Linear discriminant analysis from released class sums and counts: post-processing."""

from __future__ import annotations

import torch
from torch import Tensor

# In how many directions the variance within a class is taken to lie. It scales all logits alike:
# no rank changes, and no decision under a uniform prior. The participation ratio of pretrained
# features is of this size, far below the number of their channels.
DIRECTIONS = 16
_LEAST_VARIANCE = 1e-3  # of vectors of length one, in all
_DEVIATIONS = 4.0  # standard deviations by which noise may be larger than expected


def discriminant(
    sums: Tensor, counts: Tensor, noise_std: float, count_std: float
) -> tuple[Tensor, Tensor]:
    """Weights and biases of the classes, for vectors of length one with equal spherical covariance.

    logit_k = (x·m_k - |m_k|²/2) / s² + log π_k, with m_k = sums_k / counts_k (Fisher 1936; Hastie,
    Tibshirani and Friedman, equation 4.10). What is noisy enters only where its expectation is
    known: a released mean m_k + e has |m_k + e|² = |m_k|² + D (noise_std / counts_k)² in the mean,
    and that is taken off, or else the smaller a class, the farther away it would seem. The variance
    follows from the means alone, as vectors have length one: s² d = 1 - Σ π_k |m_k|².

    Args:
        sums: (K, D), noisy.
        counts: (K,), noisy.
        noise_std: of each value of ``sums``.
        count_std: of each count; a smaller count than this, or than 1, is taken for this.

    Returns:
        (K, D) and (K,), float32.
    """
    known = counts.double().clamp(min=max(1.0, count_std))
    means = sums.double() / known[:, None]
    squares = means.square().sum(1) - sums.shape[1] * (noise_std / known).square()
    squares = squares.clamp(min=0.0)
    shares = known / known.sum()
    variance = (1.0 - shares @ squares).clamp(min=_LEAST_VARIANCE) / DIRECTIONS
    bias = shares.log() - squares / (2 * variance)
    return (means / variance).float(), bias.float()


def first_head(
    sums: Tensor, counts: Tensor, noise_std: float, count_std: float
) -> tuple[Tensor, Tensor]:
    """The discriminant as a head that training goes on from: no surer than the noise allows.

    Only differences between logits matter, so what all classes have in common is taken off. What is
    left is shrunk by the share of it that noise does not explain (after James and Stein 1961), to
    nothing where it explains all; and a variance within the classes is taken to be no smaller than
    what it may be off by. Neither moves a decision.

    Args:
        sums: (K, D), noisy.
        counts: (K,), noisy.
        noise_std: of each value of ``sums``.
        count_std: of each count.

    Returns:
        (K, D) and (K,), float32.
    """
    known = counts.double().clamp(min=max(1.0, count_std))
    means, noise = (
        sums.double() / known[:, None],
        noise_std / known,
    )  # noise: of each value of a mean
    shares, (classes, dimensions) = known / known.sum(), sums.shape
    squares = (means.square().sum(1) - dimensions * noise.square()).clamp(min=0.0)
    unsure = shares @ (2 * squares.sqrt() * noise + (2 * dimensions) ** 0.5 * noise.square())
    variance = torch.maximum(1.0 - shares @ squares, unsure).clamp(min=_LEAST_VARIANCE) / DIRECTIONS
    away = means - means.mean(0)
    apart = away.square().sum().clamp(min=_LEAST_VARIANCE**2)
    degrees = dimensions * (classes - 1)
    expected = dimensions * (1 - 1 / classes) * noise.square().sum()
    most = expected * (1 + _DEVIATIONS * (2 / degrees) ** 0.5)
    kept = (1 - most / apart).clamp(min=0.0)
    bias = shares.log() - kept * squares / (2 * variance)
    return (kept * away / variance).float(), bias.float()
