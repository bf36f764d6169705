"""Local DP as the poster's authors ran it: noise that gives no ε, and what it does instead.

"Benchmarking Differentially Private Residual Networks for Medical Imagery", arXiv 2005.13099, and
the code its authors published. Kept here so that it can be rerun and measured beside what holds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dpmi.privacy.randomness import SecretStream

WHITE = 255


def scalar_laplace(
    pixels: NDArray[np.uint8], beta: float, stream: SecretStream
) -> NDArray[np.uint8]:
    """Add one Laplace(255 β) number to all values of an image, round, and saturate to 0..255.

    Contract: none. Two pixels that were not saturated keep their difference to the last digit, so
    an attacker who knows one pixel reads the image off. ε = 1/β would hold for a number of
    sensitivity 255; the image has thousands.

    Args:
        pixels: (n, C, H, W) 8-bit images.
        beta: scale of the noise in units of the whole range of a pixel; positive.
        stream: source of the n numbers, which are drawn in double precision.

    Returns:
        Images of the same shape and type.

    Raises:
        TypeError: ``pixels`` is not 8-bit.
    """
    if pixels.dtype != np.uint8:
        raise TypeError(f"pixels must be uint8, got {pixels.dtype}")
    noised = np.empty(pixels.shape, np.uint8)
    words = stream.words(2, len(pixels))
    sizes = -np.log((words[0] + 0.5) / 2.0**64)  # exponential
    draws = WHITE * beta * np.where(words[1] >> np.uint64(63), sizes, -sizes)
    for row, draw in enumerate(draws):  # an image at a time: n images of doubles fill a memory
        noised[row] = np.clip(np.rint(pixels[row] + draw), 0, WHITE)
    return noised


def blank(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which of (n, C, H, W) images are wholly black or wholly white; (n,)."""
    lowest, highest = _extremes(pixels)
    return (highest == 0) | (lowest == WHITE)


def expected_blank_share(pixels: NDArray[np.uint8], beta: float) -> float:
    """Share of images that :func:`scalar_laplace` is expected to make blank, in closed form.

    An image with values from lo to hi is wholly black iff hi + draw rounds to 0 or less, and wholly
    white iff lo + draw rounds to 255 or more. With b = 255 β and F the distribution function of
    Laplace(b) that is F(1/2 - hi) + 1 - F(255 - 1/2 - lo), and the share its mean over the images.
    An image that uses the whole range, 0 to 255, is the hardest to blank: the share is at least
    exp(-(255 - 1/2)/b), which is just above exp(-1/β).

    Args:
        pixels: (n, C, H, W) clean images.
        beta: scale of the noise in units of the whole range of a pixel.
    """
    lowest, highest = (values.astype(np.float64) for values in _extremes(pixels))
    scale = WHITE * beta
    black = _laplace_cdf(0.5 - highest, scale)
    white = _laplace_cdf(lowest - (WHITE - 0.5), scale)  # the upper tail, by symmetry
    return float(np.mean(black + white))


def predicted_train_accuracy(
    blank_share: float, majority_share: float, original_accuracy: float
) -> float:
    """Train accuracy on noised images: guess the majority for the blank ones, know the others.

    blank majority + (1 - blank) original. With exp(-ε) for the blank share it predicts the poster's
    LDP train cells.

    Args:
        blank_share: of the training images.
        majority_share: of the largest class among them.
        original_accuracy: train accuracy without noise.
    """
    return blank_share * majority_share + (1 - blank_share) * original_accuracy


def _extremes(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Smallest and largest value of each image; (n,) each."""
    axes = tuple(range(1, pixels.ndim))
    return pixels.min(axis=axes), pixels.max(axis=axes)


def _laplace_cdf(x: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    tail = np.exp(-np.abs(x) / scale) / 2
    return np.where(x < 0, tail, 1 - tail)
