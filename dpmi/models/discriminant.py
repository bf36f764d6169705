"""Linear discriminant analysis from released sums, counts and moments: post-processing."""

from __future__ import annotations

import math

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
    known = _at_least_the_noise(counts, count_std)
    means, shares = sums.double() / known[:, None], known / known.sum()
    squares = _squares(means, torch.eye(sums.shape[1]).double(), noise_std / known)
    variance = _variance(shares, squares) / DIRECTIONS
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
    known = _at_least_the_noise(counts, count_std)
    means, noise = sums.double() / known[:, None], noise_std / known
    shares, (classes, dimensions) = known / known.sum(), sums.shape
    squares = _squares(means, torch.eye(dimensions).double(), noise)
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


def pooled_discriminant(
    sums: Tensor,
    counts: Tensor,
    moment: Tensor,
    noise_std: float,
    count_std: float,
    moment_std: float,
) -> tuple[Tensor, Tensor]:
    """Weights and biases of the classes, for vectors of length one with equal covariance Σ.

    logit_k = x·Σ⁻¹m_k - m_k·Σ⁻¹m_k/2 + log π_k (Hastie, Tibshirani and Friedman, equation 4.10).
    Σ is the second moment less that of the means, each known but for noise, whose expectation is
    taken off: a released sum has E[S_k S_kᵀ] = its own + noise_std² I. From what is left its
    variances are found by :func:`_variances_under_noise`. Without noise that is Σ itself.

    Args:
        sums: (K, D), noisy.
        counts: (K,), noisy.
        moment: (D, D), symmetric and noisy: Σ x xᵀ over all classes.
        noise_std: of each value of ``sums``.
        count_std: of each count; a smaller count than this, or than 1, is taken for this.
        moment_std: of each value on the diagonal of ``moment``; beside it √2 less. 0 only where
            Σ can be inverted.

    Returns:
        (K, D) and (K,), float32.
    """
    known = _at_least_the_noise(counts, count_std)
    means, shares = sums.double() / known[:, None], known / known.sum()
    one = torch.eye(len(moment)).double()
    between = means.T @ (shares[:, None] * means) - one * (shares @ (noise_std / known).square())
    values, axes = torch.linalg.eigh(moment / known.sum() - between)
    total = _variance(shares, _squares(means, one, noise_std / known))
    variances = _variances_under_noise(values, float(total), float(moment_std / known.sum()))
    inverse = (axes / variances) @ axes.T
    bias = shares.log() - _squares(means, inverse, noise_std / known) / 2
    return (means @ inverse).float(), bias.float()


def _variances_under_noise(values: Tensor, total: float, std: float) -> Tensor:
    """Variances along the axes of a noisy covariance, shrunk towards a sphere.

    Symmetric noise of ``std`` alone has eigenvalues to ± e, e = std √(2D) (Wigner's semicircle).
    What exceeds the mean of all smaller eigenvalues by y > e is seen: its excess over the sphere is
    √(y² - e²), which has the least squared error (Gavish and Donoho 2017, arXiv 1405.7511, for
    square matrices; symmetric ones have the same formula). Noise hides the others: what is left of
    the total is the sphere, the same along all axes, and taken for no less than e; or, where e
    exceeds the mean variance, for no less than that.

    Args:
        values: (D,) eigenvalues, from the smallest up.
        total: of the variances.
        std: of a value on the diagonal of the covariance.

    Returns:
        (D,) in the order of ``values``.
    """
    size = len(values)
    edge, largest = std * math.sqrt(2 * size), values.flip(0)
    smaller = (largest.sum() - largest.cumsum(0))[:-1] / torch.arange(size - 1, 0, -1)
    seen = int((largest[:-1] - smaller > edge).long().cumprod(0).sum())
    excess = torch.zeros_like(largest)
    above = largest[:seen] - largest[seen:].mean()
    excess[:seen] = (above.square() - edge**2).clamp(min=0.0).sqrt()
    sphere = max((total - float(excess.sum())) / size, min(edge, total / size))
    return (sphere + excess).flip(0)


def _at_least_the_noise(counts: Tensor, count_std: float) -> Tensor:
    """(K,) float64: a count below its noise, or below 1, taken for that."""
    return counts.double().clamp(min=max(1.0, count_std))


def _squares(means: Tensor, inverse: Tensor, std: Tensor) -> Tensor:
    """(K,): m·A m of each mean, less what noise of ``std`` in its values adds, tr A std²."""
    squares = ((means @ inverse) * means).sum(1) - inverse.trace() * std.square()
    return squares.clamp(min=0.0)


def _variance(shares: Tensor, squares: Tensor) -> Tensor:
    """Within the classes, of vectors of length one, in all directions together."""
    return (1.0 - shares @ squares).clamp(min=_LEAST_VARIANCE)
