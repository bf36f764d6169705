"""Membership scores by shadow models: LiRA (Carlini et al. 2022, arXiv 2112.03570), online.

Each model is attacked by means of all others, none of which it had a part in. Coins say which
images a model was trained on; they are fair and independent, so that no rule can do better than
half right where a model reveals nothing.

Of an image with several findings each has a confidence, and Gaussians of their own are fitted to
it. Their log likelihood ratios are added, as if a model's errors on them were independent: where
they are not, that is a weaker attack than could be made, no wrong one, since what it finds is
counted. A finding that is not known of an image adds nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Coins = NDArray[np.bool_]

PER_IMAGE_FROM = 64  # models: below, a variance of each image is too rough (their section VI-A)
_LEAST_VARIANCE = 1e-12


def logit_confidence(logits: Values, labels: NDArray[np.int64]) -> Values:
    """log(p / (1 - p)) of the probability p of an image's own class, computed without p.

    Args:
        logits: (n, K).
        labels: (n,).

    Returns:
        (n,), as in their section IV-C: close to a Gaussian, unlike p and its loss.
    """
    own = np.take_along_axis(logits, labels[:, None], 1)
    others = np.where(np.arange(logits.shape[1]) == labels[:, None], -np.inf, logits)
    return np.asarray(own[:, 0] - np.logaddexp.reduce(others, axis=1))


def finding_confidence(logits: Values, findings: Values) -> Values:
    """The same of findings, each by itself: log(p / (1 - p)) of the probability p of what is true.

    Args:
        logits: (n, K).
        findings: (n, K): 1, 0, NaN where not known.

    Returns:
        (n, K), NaN where not known. Of one finding it is the confidence of two classes, of which
        the logit is the difference.
    """
    return np.asarray((2 * findings - 1) * logits)


def likelihood_ratios(confidences: Values, coins: Coins, per_image: bool = True) -> Values:
    """Log likelihood of "a member" less that of "none", under Gaussians fitted to other models.

    Args:
        confidences: (S, n) of S models on n images; (S, n, K) of K findings, NaN where not known.
        coins: (S, n), whether the model was trained on the image.
        per_image: fit a variance to each image and world; else one to all images of a world.

    Returns:
        (S, n), summed over the findings that are known of an image.
    """
    log_odds = np.zeros_like(confidences)
    for world, sign in ((coins, 1.0), (~coins, -1.0)):
        mean, variance = _fitted(confidences, world, per_image)
        log_odds += sign * (-np.square(confidences - mean) / variance - np.log(variance)) / 2
    return log_odds if log_odds.ndim == 2 else np.nansum(log_odds, 2)


def one_sided(confidences: Values, coins: Coins, per_image: bool = True) -> Values:
    """Standard deviations above what others' models say of an image that they have not seen.

    Their offline attack (equation 4), which takes for granted that training on an image makes a
    model surer of it, and needs no estimate of by how much: better where that is far less than
    the models differ. Of several findings the sum, over the square root of how many are known: one
    standard deviation again, where they are independent.

    Args, returns: as :func:`likelihood_ratios`.
    """
    mean, variance = _fitted(confidences, ~coins, per_image)
    above = np.asarray((confidences - mean) / np.sqrt(variance))
    if above.ndim == 2:
        return above
    known = np.maximum((~np.isnan(above)).sum(2), 1)
    return np.asarray(np.nansum(above, 2) / np.sqrt(known))


def _fitted(confidences: Values, world: Coins, per_image: bool) -> tuple[Values, Values]:
    """Mean and variance of each image over the models of a world, the model itself left out."""
    if confidences.ndim == 3:
        world = world[..., None]
    middle = confidences.mean(0)  # so that squares lose no digits
    values = np.where(world, confidences - middle, 0.0)
    count = np.maximum(world.sum(0) - world, 1)
    mean = (values.sum(0) - values) / count
    squares = np.square(values)
    variance = (squares.sum(0) - squares) / count - np.square(mean)
    variance *= count / np.maximum(count - 1, 1)
    if not per_image:
        known = ~np.isnan(middle)
        total = np.where(known, variance, 0.0).sum(1, keepdims=True)
        pooled = total / np.maximum(known.sum(0, keepdims=True), 1)
        variance = np.broadcast_to(pooled, variance.shape)
    return mean + middle, np.maximum(variance, _LEAST_VARIANCE)
