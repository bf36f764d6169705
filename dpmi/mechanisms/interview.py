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
from dpmi.privacy.one_bit import Question, Values, mean_side

VERSION = 1  # of the questions: another number makes other releases
ROUNDS = 40
_CENTRE_ALONE = 8  # rounds before labels are asked for
_RADIUS = 0.6  # length of vectors from their mean, about, for vectors of length one
_CONSTANT = 0.5  # weight of a class's share beside its mean
_LEAST_SHARE = 0.2  # of a class, in units of an equal one: what noise may not go below
_PUBLIC = 20130  # of who is asked what; public, the same in every run

Ask = Callable[[Question], NDArray[np.bool_]]


@dataclass(frozen=True)
class ClassEstimate:
    """What is estimated from the answers.

    Attributes:
        centre: (k,), where vectors are seen from.
        sums: (K, k): share of each class times the mean of its unit vectors from the centre.
        sum_std: standard deviation of the noise of each value of ``sums``.
        shares: (K,) of the classes; they add up to 1.
    """

    centre: Values
    sums: Values
    sum_std: float
    shares: Values


def interview(n: int, dimensions: int, classes: int, bias: float, ask: Ask) -> ClassEstimate:
    """Ask each of n images one question, and compute from the answers where the classes lie.

    In the first rounds the images of a round are asked for the side of the centre they lie on, and
    the centre moves by the mean of what they say: to the spatial median, from where unit vectors
    have mean zero (a stochastic approximation, averaged as by Polyak and Juditsky 1992). In the
    later rounds half of them are, and the others are asked for the same with the label: of
    c_y ⊗ (z, h), where z is the unit vector from the centre and c_y the code of the class, a corner
    of a regular simplex. Its mean, M, gives the shares, as Σ π_y c_y does, and, as the unit vectors
    have mean zero, the class sums: π_y m_y = (1 - 1/K) c_y M.

    Args:
        n: images.
        dimensions: k, of their vectors.
        classes: K.
        bias: of an answer, see ``RandomizedResponse``.
        ask: gives (m,) answers to a question.
    """
    rng = np.random.default_rng(_PUBLIC)
    codes = polynomials(classes, classes - 1).double().numpy() * np.sqrt(classes / (classes - 1))
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
            said = _signs(ask(Question(rows[:cut], seen_from, directions)))
            step = _RADIUS * (1.5 / (1 + number / 2) if number else 1.0)
            centre = centre + step * (said @ directions) / (cut * scale)
        if rows[cut:].size:
            wide = random_directions(rng, len(rows) - cut, *total.shape)
            said = _signs(ask(Question(rows[cut:], seen_from, wide, codes, _CONSTANT)))
            total += np.einsum("m,mck->ck", said, wide) / class_scale
            answered += len(said)
        if number >= _CENTRE_ALONE:
            centres.append(centre)
    means, part = total / max(answered, 1), 1 - 1 / classes
    shares = 1 / classes + part * codes @ (means[:, -1] / _CONSTANT)
    shares = np.maximum(shares, _LEAST_SHARE / classes)
    std = 1 / (class_scale * np.sqrt(total.size * max(answered, 1)))
    return ClassEstimate(
        centre=np.mean(centres, axis=0),
        sums=part * codes @ means[:, :-1],
        sum_std=float(part * std),
        shares=shares / shares.sum(),
    )


def random_directions(rng: np.random.Generator, *shape: int) -> Values:
    """Unit vectors, uniform on the sphere: the first axis of ``shape`` counts them."""
    directions = rng.standard_normal(shape)
    norms = np.linalg.norm(directions.reshape(shape[0], -1), axis=1)
    return np.asarray(directions / norms.reshape(-1, *[1] * (len(shape) - 1)))


def _signs(answers: NDArray[np.bool_]) -> Values:
    return np.where(answers, 1.0, -1.0)
