"""Estimates from one randomized bit per image: the server's side of local DP of features.

It sees answers and public randomness, and never an image, a vector or a label. Whom it asks what is
drawn from a number that stands here: nothing of it is secret.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpmi.models.head import polynomials
from dpmi.privacy.one_bit import Question, Values, mean_side, towards

VERSION = 1  # of the questions: another number makes other releases
ROUNDS = 40
_CENTRE_ALONE = 8  # rounds before labels are asked for
_RADIUS = 0.6  # length of vectors from their mean, about, for vectors of length one
_CONSTANT = 0.5  # weight of a class's share beside its mean
_LEAST_SHARE = 0.2  # of a class, in units of an equal one: what noise may not go below
_SPREAD_OF_SHARES = 0.4  # standard deviation of Σ π_y c_y around equal classes, before any answer
_DOUBT = 0.5  # standard deviation of a value of M around what is expected, in lengths of that
_WEISZFELD = 100  # steps to a spatial median (Weiszfeld 1937), of public images
_PUBLIC = 20130  # of who is asked what; public, the same in every run

Ask = Callable[[Question], NDArray[np.bool_]]


@dataclass(frozen=True)
class ClassEstimate:
    """What is estimated from the answers.

    Attributes:
        centre: (k,), where vectors are seen from.
        sums: (K, k): share of each class times the mean of its unit vectors from the centre.
        sum_std: standard deviation of the noise of each value of ``sums``; 0 where they were
            shrunk towards what is expected, so that noise makes them no longer.
        shares: (K,) of the classes; they add up to 1.
    """

    centre: Values
    sums: Values
    sum_std: float
    shares: Values


def class_part(vectors: Values, labels: NDArray[np.int64], classes: int) -> Values:
    """Compute M without its shares, (K-1, k), from public images, each class counting the same.

    Args:
        vectors: (m, k), seen here from their own spatial median.
        labels: (m,), each class at least once.
        classes: K.
    """
    centre = vectors.mean(0)
    for _ in range(_WEISZFELD):
        z = towards(vectors, centre)
        near = np.linalg.norm(vectors - centre, axis=1).clip(1e-12)
        centre = centre + z.sum(0) / (1 / near).sum()
    z = towards(vectors, centre)
    means = np.stack([z[labels == k].mean(0) for k in range(classes)])
    return np.asarray(_codes(classes).T @ means / classes)


def interview(
    n: int,
    dimensions: int,
    classes: int,
    bias: float,
    ask: Ask,
    expected: Values | None = None,
) -> ClassEstimate:
    """Ask each of n images one question, and compute from the answers where the classes lie.

    In the first rounds the images of a round are asked for the side of the centre they lie on, and
    the centre moves by the mean of what they say: to the spatial median, from where unit vectors
    have mean zero (a stochastic approximation, averaged as by Polyak and Juditsky 1992). In the
    later rounds half of them are, and the others are asked for the same with the label: of
    c_y ⊗ (z, h), where z is the unit vector from the centre and c_y the code of the class, a corner
    of a regular simplex. Its mean, M, gives the shares, as Σ π_y c_y does, and, as the unit vectors
    have mean zero, the class sums: π_y m_y = (1 - 1/K) c_y M.

    What is known before any answer is weighed with them by its variance, as the mean of two normal
    laws: that classes are of a size and, where it is given, M as it is among public images.

    Args:
        n: images.
        dimensions: k, of their vectors.
        classes: K.
        bias: of an answer, see ``RandomizedResponse``.
        ask: gives (m,) answers to a question.
        expected: M without its shares, (K-1, k), from :func:`class_part`; None: nothing is known.
    """
    rng = np.random.default_rng(_PUBLIC)
    codes = _codes(classes)
    length = float(np.hypot(1.0, _CONSTANT))
    centre, centres = np.zeros(dimensions), []
    total, answered = np.zeros((classes - 1, dimensions + 1)), 0
    scale = bias * mean_side(dimensions)
    class_scale = bias * mean_side(total.size) / length
    for number, rows in enumerate(np.array_split(rng.permutation(n), ROUNDS)):
        cut = len(rows) if number < _CENTRE_ALONE else len(rows) // 2
        seen_from = centre
        if cut:
            directions = random_directions(rng, cut, dimensions)
            answers = _signs(ask(Question(rows[:cut], seen_from, directions)))
            step = _RADIUS * (1.5 / (1 + number / 2) if number else 1.0)
            centre = centre + step * (answers @ directions) / (cut * scale)
        if rows[cut:].size:
            wide = random_directions(rng, len(rows) - cut, *total.shape)
            answers = _signs(ask(Question(rows[cut:], seen_from, wide, codes, _CONSTANT)))
            total += np.einsum("m,mck->ck", answers, wide) / class_scale
            answered += len(answers)
        if number >= _CENTRE_ALONE:
            centres.append(centre)
    means, part = total / max(answered, 1), 1 - 1 / classes
    std = 1 / (class_scale * np.sqrt(total.size * max(answered, 1)))
    unequal = means[:, -1] / _CONSTANT * _kept(_SPREAD_OF_SHARES, std / _CONSTANT)
    shares = np.maximum(1 / classes + part * codes @ unequal, _LEAST_SHARE / classes)
    of_classes = means[:, :-1]
    if expected is not None:
        kept = _kept(_DOUBT * float(np.linalg.norm(expected)), std)
        of_classes, std = kept * of_classes + (1 - kept) * expected, 0.0
    return ClassEstimate(
        centre=np.mean(centres, axis=0),
        sums=part * codes @ of_classes,
        sum_std=float(part * std),
        shares=shares / shares.sum(),
    )


def _codes(classes: int) -> Values:
    """(K, K-1) corners of a regular simplex, of length one."""
    corners: Values = polynomials(classes, classes - 1).double().numpy()
    return corners * np.sqrt(classes / (classes - 1))


def _kept(spread: float, std: float) -> float:
    """Weight of a value with noise of ``std`` beside what it was expected to be, ± ``spread``."""
    return spread**2 / (spread**2 + std**2) if spread else 0.0


def random_directions(rng: np.random.Generator, *shape: int) -> Values:
    """Unit vectors, uniform on the sphere: the first axis of ``shape`` counts them."""
    directions = rng.standard_normal(shape)
    norms = np.linalg.norm(directions.reshape(shape[0], -1), axis=1)
    return np.asarray(directions / norms.reshape(-1, *[1] * (len(shape) - 1)))


def _signs(answers: NDArray[np.bool_]) -> Values:
    return np.where(answers, 1.0, -1.0)
