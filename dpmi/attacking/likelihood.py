"""The exact likelihood of a release under each candidate image.

Whoever knows the law and has candidates can do no better than to rank them by this (Neyman and
Pearson 1933).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dpmi.mechanisms.interview import interview
from dpmi.privacy.laplace import WHITE, PixelNoise
from dpmi.privacy.one_bit import Question, RandomizedResponse, Respondents, towards
from dpmi.privacy.randomness import SecretStream

Values = NDArray[np.float64]
Pixels = NDArray[np.uint8]
Shifts = NDArray[np.int32]

_AT_ONCE = 1 << 19  # bytes of candidates: stays in a core's cache
_SOME = 64  # values that rule out most candidates


class NoisedPixels:
    """Log likelihoods of images with independent noise of a :class:`PixelNoise` on each value.

    P(N = k) falls by the same factor e^-a from each |k| >= 1 to the next, and what is beyond 0 and
    255 is their sum. So log P(y | v) = -a |y - v| + c(y) + [v = y] e(y): distances and counts of
    equal values are all that has to be computed; c(y) is the same for all candidates, and left out.
    Exact but for what whole numbers of 2^-64 do to probabilities.

    Args:
        law: of the noise.
        released: (m, P).
    """

    def __init__(self, law: PixelNoise, released: Pixels) -> None:
        self._released = released
        zero, one, two = (float(law.weights[WHITE + k]) for k in range(3))
        self._slope = math.log(one / two)
        at_end, beside = (float(law.chances(0)[v]) for v in range(2))
        self._inside = math.log(zero / one) - self._slope
        self._at_end = math.log(at_end / beside) - self._slope
        self._ends = [(released == end).astype(np.float32) for end in (0, WHITE)]

    def __call__(self, candidates: Pixels) -> Values:
        """(n, P) to (m, n), up to a number of each release that all candidates share."""
        n, size = candidates.shape
        found = np.empty((len(self._released), n))
        rows = max(1, _AT_ONCE // size)
        for start in range(0, n, rows):
            some = np.ascontiguousarray(candidates[start : start + rows])
            for one, released in zip(found, self._released, strict=True):
                apart = np.maximum(some, released)
                apart -= np.minimum(some, released)
                same = size - np.count_nonzero(apart, axis=1)
                one[start : start + len(some)] = self._inside * same - self._slope * apart.sum(
                    1, dtype=np.uint32
                )
        for end, of_releases in zip((0, WHITE), self._ends, strict=True):
            both = of_releases @ (candidates == end).astype(np.float32).T
            found += (self._at_end - self._inside) * both
        return found


def shifted(released: Pixels, candidates: Pixels, beta: float) -> Values:
    """Log likelihoods of images to which one Laplace(255 β) number was added (``published``).

    With whole values, rint(v + d) = v + rint(d): a candidate explains a release by those whole
    shifts k with clip(v + k, 0, 255) = y in every value, and by no other. A value that is not
    saturated leaves one k; else there is a range of them.

    Args:
        released: (m, P).
        candidates: (n, P).
        beta: scale of the number in units of 255.

    Returns:
        (m, n), of probabilities, -inf where nothing explains it.
    """
    found = np.full((len(released), len(candidates)), -np.inf)
    extremes = candidates.min(1).astype(np.int32), candidates.max(1).astype(np.int32)
    for row, y in zip(found, released, strict=True):
        inside = np.flatnonzero((y > 0) & (y < WHITE))
        if inside.size:
            low = high = int(y[inside[0]]) - candidates[:, inside[0]].astype(np.int32)
            some = np.linspace(0, len(y) - 1, _SOME).astype(int)
            left = np.flatnonzero((_moved(candidates[:, some], low) == y[some]).all(1))
            kept = [c for c in left if (_moved(candidates[[c]], low[[c]])[0] == y).all()]
        else:
            low, high = _shifts(y, candidates, *extremes)
            kept = list(np.flatnonzero(low <= high))
        for c in kept:
            row[c] = _log_share(float(low[c]) - 0.5, float(high[c]) + 0.5, WHITE * beta)
    return found


def _shifts(
    y: Pixels, candidates: Pixels, lowest: Shifts, highest: Shifts
) -> tuple[Shifts, Shifts]:
    """First and last k with clip(v + k, 0, 255) = y, of a release of black and white alone.

    Where it is black v + k <= 0, where it is white v + k >= 255.
    """
    open_end = np.full(len(candidates), np.iinfo(np.int32).max)
    black, white = y == 0, y == WHITE
    if black.all():
        return -open_end, -highest
    if white.all():
        return WHITE - lowest, open_end
    return (
        WHITE - candidates[:, white].min(1).astype(np.int32),
        -candidates[:, black].max(1).astype(np.int32),
    )


def _moved(pixels: Pixels, by: Shifts) -> Pixels:
    """(n, P) images, each moved by its own whole number and saturated."""
    return np.asarray(np.clip(pixels + by[:, None], 0, WHITE).astype(np.uint8))


def _log_share(low: float, high: float, scale: float) -> float:
    """Logarithm of P(low < d < high) of Laplace noise."""
    if low < 0 < high:
        return math.log1p(-(math.exp(low / scale) + math.exp(-high / scale)) / 2)
    near, far = sorted((abs(low), abs(high)))
    return -near / scale - math.log(2) + math.log(-math.expm1(-(far - near) / scale))


def answered(
    vectors: Values,
    labels: NDArray[np.int64],
    classes: int,
    response: RandomizedResponse,
    lies: SecretStream,
) -> Values:
    """Log likelihoods of the one bit that each image said (``privacy.one_bit``).

    The interview is held as the mechanism holds it; who was asked what is public. An answer is the
    truth of a candidate with the probability of the truth, else a lie.

    Args:
        vectors: (n, k) of the images, who are asked, and are the candidates.
        labels: (n,).
        classes: K.
        response: how they answer.
        lies: decides who lies.

    Returns:
        (n, n): of each image's answer under each candidate.
    """
    respondents = Respondents(vectors, labels, response, lies)
    found: Values = np.empty((len(labels), len(labels)))
    lie = float(response.lies) / 2.0**64

    def ask(question: Question) -> NDArray[np.bool_]:
        answers = respondents(question)
        truthful = truths(question, vectors, labels) == answers[:, None]
        found[question.rows] = np.where(truthful, math.log1p(-lie), math.log(lie))
        return answers

    interview(len(labels), vectors.shape[1], classes, response.bias, ask)
    return found


def truths(question: Question, vectors: Values, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(m, n): what each candidate would truly have said to each of the m questions."""
    z = towards(vectors, question.centre)
    if question.codes is None:
        return np.asarray(question.directions @ z.T >= 0)
    longer = np.concatenate([z, np.full((len(z), 1), question.constant)], axis=1)
    of_class = np.einsum("kc,mcd->mkd", question.codes, question.directions)
    sides = np.empty((len(question.rows), len(z)), np.bool_)
    for label in range(len(question.codes)):
        its = labels == label
        sides[:, its] = of_class[:, label] @ longer[its].T >= 0
    return sides
