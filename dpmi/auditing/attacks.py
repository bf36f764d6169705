"""Scores by which an attacker infers from a release which canaries were included."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def likelihood_ratio(releases: Values, noise_multiplier: float, sample_rate: float) -> Values:
    """The best score against DP-SGD as claimed (Neyman and Pearson).

    Args:
        releases: (releases, m), in units of the clipping norm.
        noise_multiplier: as claimed.
        sample_rate: as claimed.

    Returns:
        (m,) log likelihoods of "included" less those of "not included".
    """
    over = (releases - 0.5) / noise_multiplier**2
    with np.errstate(divide="ignore"):
        log_ratios = np.logaddexp(np.log1p(-sample_rate), np.log(sample_rate) + over)
    return np.asarray(log_ratios.sum(0))


def nearer(release: Values, difference: Values, noise_multiplier: float) -> float:
    """The best score to distinguish two known sums, one with an image, one without it.

    Args:
        release: (P,) less the sum without the image, in units of the clipping norm.
        difference: (P,) the sum with the image less that without it.
        noise_multiplier: as claimed.

    Returns:
        Log likelihood of "with" less that of "without".
    """
    return float((release - difference / 2) @ difference / noise_multiplier**2)


def spread(releases: Values) -> Values:
    """How much a canary's coordinate differs from step to step: noise that repeats drops out."""
    return np.asarray(np.ptp(releases, axis=0))


def reach(releases: Values) -> Values:
    """The farthest that a canary's coordinate came: noise that is cut off comes only so far."""
    return np.asarray(releases.max(axis=0))


def rehearse(
    noise_multiplier: float, sample_rate: float, steps: int, trials: int, rng: np.random.Generator
) -> tuple[Values, Values]:
    """Scores as DP-SGD would give them, to fix thresholds by, before a run is looked at.

    Returns:
        (trials,) likelihood ratios of canaries that were included, and of some that were not.
    """
    scores = np.zeros((2, trials))
    for _ in range(steps):
        drawn = (rng.random(trials) < sample_rate).astype(float)
        for world, signal in enumerate((drawn, np.zeros(trials))):
            seen = signal + noise_multiplier * rng.standard_normal(trials)
            scores[world] += likelihood_ratio(seen[None], noise_multiplier, sample_rate)
    return scores[0], scores[1]
