"""The Laplace mechanism on pixels (Dwork et al. 2006; for images under local DP, Fan 2018)."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

PIXEL_SENSITIVITY = 1.0  # a pixel is in [0, 1]: changing it wholly moves it by at most 1
_VALUES_AT_ONCE = 1 << 17  # 1 MB of float64 noise: a piece stays in a core's cache


def pixel_epsilon(beta: float) -> float:
    """ε of one pixel value under Laplace noise of scale ``beta``: sensitivity / β."""
    return PIXEL_SENSITIVITY / beta


def laplace_mechanism(
    pixels: NDArray[np.uint8], beta: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Release images under ε = 1/β local differential privacy of each pixel value.

    Each value v in {0, ..., 255}, read as v/255 in [0, 1], becomes v/255 + Laplace(β),
    independently. Clipping to [0, 1] and rounding back to 8 bits touch only what was already
    released, and cost no privacy (post-processing).

    Contract: for any two images that differ in one value, the probability of any output differs
    by a factor of at most exp(1/β). For images that differ in k values the factor is exp(k/β).
    A second call on the same images is a second release: the ε add up.

    Args:
        pixels: images as 8-bit values, any shape; the first axis is taken in pieces, each with a
            generator of its own, so that threads draw side by side. How many threads there are
            changes nothing.
        beta: scale of the noise in units of the whole range of a pixel; positive.
        rng: parent of the pieces' generators (``Generator.spawn``); its seed must be unknown to
            whoever receives the images.

    Returns:
        Noised images, same shape and type.

    Raises:
        TypeError: ``pixels`` is not 8-bit: the sensitivity would be another.
        ValueError: ``beta`` is not positive and finite.
    """
    if pixels.dtype != np.uint8:
        raise TypeError(f"pixels must be uint8, got {pixels.dtype}")
    if not (np.isfinite(beta) and beta > 0):
        raise ValueError(f"beta={beta} must be positive and finite")
    released = np.empty(pixels.shape, np.uint8)
    values_per_image = max(1, int(np.prod(pixels.shape[1:])))
    images_at_once = max(1, _VALUES_AT_ONCE // values_per_image)
    starts = range(0, len(pixels), images_at_once)

    def release(start: int, own: np.random.Generator) -> None:
        clean = pixels[start : start + images_at_once]
        noisy = laplace_noise(clean.shape, beta, own)
        noisy += clean / 255.0
        np.clip(noisy, 0.0, 1.0, out=noisy)
        noisy *= 255.0
        released[start : start + images_at_once] = np.rint(noisy, out=noisy)

    with ThreadPoolExecutor(os.cpu_count()) as threads:  # NumPy lets go of the interpreter
        for done in threads.map(release, starts, rng.spawn(len(starts))):
            assert done is None  # or it has raised
    return released


def laplace_noise(
    shape: tuple[int, ...], beta: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Independent Laplace(β) values of mean 0 and variance 2β²."""
    return rng.laplace(0.0, beta, shape)
