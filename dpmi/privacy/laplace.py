"""The Laplace mechanism on pixels (Dwork et al. 2006; for images under local DP, Fan 2018).

Exact on the 8-bit grid: no floating-point number is drawn or added (Mironov 2012).
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from decimal import Context, Decimal
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dpmi.privacy.randomness import SecretStream

PIXEL_SENSITIVITY = 1.0  # a pixel is in [0, 1]: changing it wholly moves it by at most 1
WHITE = 255
_WORDS = 2**64
_VALUES_AT_ONCE = 1 << 16  # half a MB with all that is made of them: stays in a core's cache
_BUCKETS = 1 << 16
_UNDECIDED = np.int16(-1000)
_SMALLEST_SCALE = 6.4  # of the noise, in 8-bit values: below, tails are less than 2^-64
_MOST_WIDENED = Decimal("0.01")
_DIGITS = Context(prec=60)


def pixel_epsilon(beta: float) -> float:
    """ε of one pixel value under Laplace noise of scale ``beta``: sensitivity / β."""
    return PIXEL_SENSITIVITY / beta


class PixelNoise:
    """The law of round(Laplace(Δ β)) on the integers from -255 to 255, in units of 2^-64.

    A value v of 0..255 is an integer, so round(v + Laplace(Δ β)) = v + N with N =
    round(Laplace(Δ β)), P(N >= k) = exp(-(k - 1/2) / (Δ β)) / 2 for k >= 1, symmetric. What is
    beyond ±255 saturates any v as ±255 does, and is added to it. Each P(N >= k) is a whole number
    of 2^-64, rounded up.

    Args:
        beta: scale of the noise in units of Δ.
        moves: Δ, the most that a released value moves when one pixel changes: 255 where it is the
            pixel itself.

    Attributes:
        weights: 2^64 P(N = k) for k from -255 to 255, Python integers; they add up to 2^64.

    Raises:
        ValueError: ``beta`` is not positive and finite; or so extreme that probabilities in units
            of 2^-64 would not keep ε = 1/β (the tails of a small one are below it).

    The scale is greater than Δ β by up to a hundredth where such probabilities demand it.
    """

    def __init__(self, beta: float, moves: int = WHITE) -> None:
        if not (math.isfinite(beta) and beta > 0):
            raise ValueError(f"beta={beta} must be positive and finite")
        scale = _DIGITS.multiply(Decimal(moves), Decimal(beta))
        self.weights = _weights(scale)
        if not self._keeps(scale, moves) and (rarest := min(self.weights)):
            # Each weight is off by less than 1: by so much wider noise makes up for it.
            room = _DIGITS.divide(_DIGITS.multiply(3, Decimal(beta)), Decimal(rarest))
            if room < _MOST_WIDENED:
                self.weights = _weights(_DIGITS.multiply(scale, 1 + room))
        if not self._keeps(scale, moves):
            raise ValueError(
                f"beta={beta:g}: probabilities in units of 2^-64 do not keep ε = 1/β where a "
                f"pixel moves what is released by {moves} of 255; allowed is about "
                f"{_SMALLEST_SCALE / moves:.2g} to 1e7"
            )
        ends = np.array(np.cumsum(np.array(self.weights, object))[:-1], np.uint64)
        # A word's first 16 bits decide, but where a bucket of words with the same ones has an end.
        first = np.arange(_BUCKETS, dtype=np.uint64) << np.uint64(48)
        last = first | np.uint64(2**48 - 1)
        low, high = (np.searchsorted(ends, words, side="right") for words in (first, last))
        self._ends = ends
        self._guide = np.where(low == high, low - WHITE, _UNDECIDED).astype(np.int16)

    def _keeps(self, scale: Decimal, moves: int) -> bool:
        """Whether one pixel, and all those that a value is made of, have the ε of the scale."""
        return all(
            self.epsilon(moved) <= _DIGITS.divide(Decimal(moved), scale) for moved in {moves, WHITE}
        )

    def epsilon(self, moved: int = WHITE) -> Decimal:
        """Largest log ratio of P(released | v) for two values v, over all that may be released.

        Infinite where something can be released from one of two values alone.

        Args:
            moved: how far the two values are apart at most.
        """
        largest = Decimal(1)
        for released in range(WHITE + 1):
            odds = self.chances(released)
            for start in range(WHITE + 1 - moved):
                near = odds[start : start + moved + 1]
                most, least = max(near), min(near)
                if least == 0:
                    return Decimal("Infinity")
                if most > largest * least:
                    largest = _DIGITS.divide(Decimal(most), Decimal(least))
        return _DIGITS.ln(largest)

    def chances(self, released: int) -> list[int]:
        """2^64 P(``released`` | v) for v from 0 to 255: of clip(v + N, 0, 255)."""
        weights = self.weights  # of N = k at k + 255
        if released == 0:
            return [sum(weights[: WHITE - v + 1]) for v in range(WHITE + 1)]
        if released == WHITE:
            return [sum(weights[2 * WHITE - v :]) for v in range(WHITE + 1)]
        return [weights[released - v + WHITE] for v in range(WHITE + 1)]

    def draw(self, stream: SecretStream, size: int) -> NDArray[np.int16]:
        """Draw ``size`` independent N."""
        buckets = np.empty(size, np.uint16)
        stream.fill(buckets)
        drawn = np.take(self._guide, buckets)
        open_ = np.flatnonzero(drawn == _UNDECIDED)
        words = stream.words(len(open_)) >> np.uint64(16)
        words |= buckets[open_].astype(np.uint64) << np.uint64(48)
        drawn[open_] = np.searchsorted(self._ends, words, side="right") - WHITE
        return drawn


def _weights(scale: Decimal) -> list[int]:
    """2^64 P(N = k) for k from -255 to 255 of the rounded noise of a scale, in 8-bit values."""
    above = [_upper_tail(k, scale) for k in range(1, WHITE + 1)]
    right = [here - further for here, further in zip(above, [*above[1:], 0], strict=True)]
    return [*reversed(right), _WORDS - 2 * above[0], *right]


def _upper_tail(k: int, scale: Decimal) -> int:
    """2^64 P(N >= k), rounded up, for k of 1 or more."""
    exponent = _DIGITS.divide(Decimal(1) / 2 - k, scale)
    exact = _DIGITS.multiply(Decimal(_WORDS // 2), _DIGITS.exp(exponent))
    return math.ceil(exact)


@lru_cache(maxsize=16)
def pixel_noise(beta: float, moves: int = WHITE) -> PixelNoise:
    """Return the law at ``beta``, made once; see :class:`PixelNoise`."""
    return PixelNoise(beta, moves)


def pooled(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Means of blocks of ``side`` x ``side`` pixels, rounded.

    A pixel that changes wholly moves one of them, by at most :func:`mean_moves`.

    Args:
        pixels: (n, C, R, R), R a multiple of ``side``.
        side: of a block.

    Returns:
        (n, C, R/side, R/side).
    """
    n, channels, rows, _ = pixels.shape
    blocks = pixels.reshape(n, channels, rows // side, side, rows // side, side)
    sums = blocks.sum((3, 5), dtype=np.uint32)
    return ((sums + side**2 // 2) // side**2).astype(np.uint8)


def mean_moves(side: int) -> int:
    """Most that the rounded mean of side x side values moves when one of them changes."""
    return -(-WHITE // side**2)


def laplace_mechanism(
    pixels: NDArray[np.uint8], beta: float, stream: SecretStream, moves: int = WHITE
) -> NDArray[np.uint8]:
    """Release images under ε = 1/β local differential privacy of each pixel value.

    Each value v in {0, ..., 255}, read as v/255 in [0, 1], becomes v/255 + Laplace(β),
    independently, clipped to [0, 1] and rounded back to 8 bits, which is clip(v + N, 0, 255) with
    the integer N of :class:`PixelNoise`.

    What is clipped off reveals nothing of v: beyond [0, 1] the ratio of the densities for two
    values, exp(±(v - v')/(255 β)), is the same everywhere on a side.

    Contract: for any two images that differ in one value, the probability of any output differs
    by a factor of at most exp(1/β), the probabilities being those that are executed, which are
    whole numbers of 2^-64. For images that differ in k values the factor is exp(k/β).
    A second call on the same images is a second release: the ε add up.

    Args:
        pixels: images as 8-bit values, any shape; the first axis is taken in pieces, each with a
            stream of its own, so that threads draw side by side. How many threads there are
            changes nothing.
        beta: scale of the noise in units of the whole range of a pixel; positive.
        stream: parent of the pieces' streams; its key must be unknown to whoever receives the
            images. The same stream gives other noise at a second call.
        moves: most that a value moves when one pixel changes, where the values are means of
            several (:func:`pooled`); the scale is β times that.

    Returns:
        Noised images, same shape and type.

    Raises:
        TypeError: ``pixels`` is not 8-bit: the sensitivity would be another.
        ValueError: no noise of this ``beta`` can be executed.
    """
    if pixels.dtype != np.uint8:
        raise TypeError(f"pixels must be uint8, got {pixels.dtype}")
    law = pixel_noise(beta, moves)
    released = np.empty(pixels.shape, np.uint8)
    values_per_image = max(1, int(np.prod(pixels.shape[1:])))
    images_at_once = max(1, _VALUES_AT_ONCE // values_per_image)
    starts = range(0, len(pixels), images_at_once)

    def release(start: int, own: SecretStream) -> None:
        clean = pixels[start : start + images_at_once]
        noisy = law.draw(own, clean.size).reshape(clean.shape)
        noisy += clean
        np.clip(noisy, 0, WHITE, out=noisy)
        released[start : start + images_at_once] = noisy

    with ThreadPoolExecutor(os.cpu_count()) as threads:  # NumPy lets go of the interpreter
        for done in threads.map(release, starts, stream.spawn(len(starts))):
            assert done is None  # or it has raised
    return released
