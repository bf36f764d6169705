"""One bit per image under local differential privacy of the whole image and its label.

Each image answers one question by yes or no, and lies with a known probability: randomized response
(Warner 1965). Questions are public, and may depend on the answers of other images before.

Proof. Let one image, with its label, be replaced by any other. Its question depends on public
randomness and on the answers before it alone, of which none is its own. Whatever the true answers
of the two images are, each of "yes" and "no" is said with probability p or 1 - p, so that either
differs by a factor of at most p / (1 - p) = e^ε between them. The questions that follow, and the
answers of the images that are asked them, depend on it only through what was said, which is
post-processing (for a protocol of several rounds: Duchi, Jordan and Wainwright 2018,
arXiv 1302.3203, equation 2). So all that is said satisfies ε for an image, at δ = 0, whoever reads
the answers: the party that computes with them needs not be trusted. No property of vectors,
directions or centres enters, neither their lengths nor how they are rounded. ∎

What is asked is on which side of a hyperplane with a random public normal a vector lies: their
mechanism for the unit ball in L2 with the public coin taken out of the answer, so that one bit
is left (Bassily and Smith 2015, arXiv 1504.04686, theorem 4.1). Its error is within a constant
factor of the least that any such ε allows, where ε is at most 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Context, Decimal

import numpy as np
from numpy.typing import NDArray

from dpmi.privacy.randomness import SecretStream

_WORDS = 2**64
_DIGITS = Context(prec=60)
Values = NDArray[np.float64]


class RandomizedResponse:
    """Says a bit, or its opposite with probability 1/(1 + e^(1/β)).

    Args:
        beta: 1/ε.

    Attributes:
        lies: 2^64 times that probability, a whole number, rounded up, so that the ε which is
            executed is at most 1/β.

    Raises:
        ValueError: ``beta`` is not positive and finite, or so large that answers are useless.
    """

    def __init__(self, beta: float) -> None:
        if not (math.isfinite(beta) and beta > 0):
            raise ValueError(f"beta={beta} must be positive and finite")
        odds = _DIGITS.exp(_DIGITS.divide(Decimal(1), Decimal(beta)))
        self.lies = math.ceil(_DIGITS.divide(Decimal(_WORDS), _DIGITS.add(odds, Decimal(1))))
        if self.lies >= _WORDS // 2:
            raise ValueError(
                f"beta={beta:g}: answers in probabilities of 64 bits would be useless; allowed "
                "is up to about 1e18"
            )

    def epsilon(self) -> Decimal:
        """The ε that is executed: the logarithm of the odds of the truth."""
        truths = Decimal(_WORDS - self.lies)
        return _DIGITS.ln(_DIGITS.divide(truths, Decimal(self.lies)))

    @property
    def bias(self) -> float:
        """Probability of the truth less that of a lie, tanh(ε/2)."""
        return 1.0 - 2.0 * self.lies / _WORDS

    def say(self, truths: NDArray[np.bool_], stream: SecretStream) -> NDArray[np.bool_]:
        """Answer for each of (m,) images, which lie independently."""
        words = stream.words(len(truths))
        return truths ^ (words < np.uint64(self.lies))


@dataclass(frozen=True)
class Question:
    """What some images are asked.

    Of a vector x, from ``centre``, z is the unit vector towards x. Without ``codes`` an image is
    asked whether z·a >= 0; with them whether c_y·A·(z, constant) >= 0, where c_y is the code of its
    class.

    Attributes:
        rows: (m,) which images.
        centre: (k,).
        directions: a, (m, k); or A, (m, K-1, k+1).
        codes: c, (K, K-1); None where the label has no part in it.
        constant: stands for a coordinate that all vectors share.
    """

    rows: NDArray[np.int64]
    centre: Values
    directions: Values
    codes: Values | None = None
    constant: float = 0.0


class Respondents:
    """The images' side: each of them answers one question, once.

    Args:
        vectors: (n, k), private.
        labels: (n,) class indices, private.
        response: how they answer.
        stream: decides who lies; its key must be unknown to whoever receives the answers.
    """

    def __init__(
        self,
        vectors: Values,
        labels: NDArray[np.int64],
        response: RandomizedResponse,
        stream: SecretStream,
    ) -> None:
        self._vectors, self._labels = vectors, labels
        self._response, self._stream = response, stream
        self._answered = np.zeros(len(vectors), np.bool_)

    def __call__(self, question: Question) -> NDArray[np.bool_]:
        """(m,) answers.

        Raises:
            ValueError: an image was asked before, or twice: that would be another release.
        """
        rows = question.rows
        if self._answered[rows].any() or len(np.unique(rows)) < len(rows):
            raise ValueError("an image answers one question, and one of these was asked before")
        self._answered[rows] = True
        z = towards(self._vectors[rows], question.centre)
        if question.codes is None:
            truths = np.einsum("mk,mk->m", question.directions, z) >= 0
        else:
            longer = np.concatenate([z, np.full((len(z), 1), question.constant)], axis=1)
            codes = question.codes[self._labels[rows]]
            truths = np.einsum("mc,mck,mk->m", codes, question.directions, longer) >= 0
        return self._response.say(truths, self._stream)


def towards(vectors: Values, centre: Values) -> Values:
    """(n, k) unit vectors from a centre, (k,), to each of ``vectors``, (n, k); 0 at the centre."""
    x = vectors - centre
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12))


def mean_side(dimensions: int) -> float:
    """E|a·u| for a unit vector u and a uniform direction a: Γ(d/2) / (√π Γ((d+1)/2)).

    An answer ±1 times its direction, over this and the bias, is an unbiased estimate of u, for
    E[sign(a·u) a] = E|a·u| u.
    """
    return math.exp(math.lgamma(dimensions / 2) - math.lgamma((dimensions + 1) / 2)) / math.sqrt(
        math.pi
    )
