"""Linear discriminant analysis from released class sums and counts: post-processing."""

from __future__ import annotations

from torch import Tensor

# In how many directions the variance within a class is taken to lie. It scales all logits alike:
# no rank changes, and no decision under a uniform prior. The participation ratio of pretrained
# features is of this size, far below the number of their channels.
DIRECTIONS = 16
_LEAST_VARIANCE = 1e-3  # of vectors of length one, in all


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
