"""From the confidences of shadow models to a ROC curve with intervals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from dpmi.attacking.lira import Coins, Values
from dpmi.attacking.result import LEVEL, Measured, Roc

RATES = (1e-3, 1e-2)  # false positive rates at which true positive rates are given
GROUPS = 20
OVER_MODELS = (
    "95 % over the shadow models (jackknife: groups of them are left out in turn, as targets and "
    "from what is fitted); the images are these"
)
_SHOWN = 121  # points of a curve that are kept

Score = Callable[[Values, Coins], Values]


def measured_roc(
    name: str, score: Score, confidences: Values, coins: Coins, level: float = LEVEL
) -> Roc:
    """One threshold for all images and models, as Carlini et al. (2022) have it.

    The scores of a model depend on each other through its weights, and those of all models through
    what is fitted to them. So whole models are left out, a group at a time, and everything is
    computed again: a delete-a-group jackknife (Efron and Stein 1981; Kott 2001), with Student's t
    on one degree of freedom less than there are groups.

    Args:
        name: of the score.
        score: confidences and coins to (S, n) scores, higher for members; 0 is the score's own
            threshold.
        confidences: (S, n), or (S, n, K) of findings.
        coins: (S, n) who is a member.
        level: of the intervals.
    """
    models = len(coins)
    least = 1 / int((~coins).sum())
    at = np.unique(np.concatenate([np.geomspace(least, 1, _SHOWN), RATES]))
    whole = _figures(score(confidences, coins), coins, at)
    groups = min(GROUPS, models)
    parts = []
    for group in range(groups):
        kept = np.arange(models) % groups != group
        parts.append(_figures(score(confidences[kept], coins[kept]), coins[kept], at))
    error = np.sqrt((groups - 1) * np.var(parts, axis=0))
    half = float(stats.t.ppf((1 + level) / 2, groups - 1)) * error
    bounds = np.concatenate([[0.0, -1.0], np.zeros(len(at))])
    low, high = np.maximum(whole - half, bounds), np.minimum(whole + half, 1.0)
    figures = [
        Measured(value=value, low=a, high=b)
        for value, a, b in zip(whole.tolist(), low.tolist(), high.tolist(), strict=True)
    ]
    rates = dict(zip(at.tolist(), figures[2:], strict=True))
    return Roc(
        score=name,
        auc=figures[0],
        advantage=figures[1],
        true_positive={f"{rate:g}": rates[rate] for rate in RATES},
        curve=[(rate, found.value, found.low, found.high) for rate, found in rates.items()],
    )


def _figures(scores: Values, coins: Coins, at: Values) -> NDArray[np.float64]:
    """Area under the curve, advantage at the threshold 0, true positive rates at (m,) false ones.

    Returns:
        (2 + m,).
    """
    inside, outside = np.sort(scores[coins]), np.sort(scores[~coins])
    ranks = np.searchsorted(outside, inside, side="left") + np.searchsorted(
        outside, inside, "right"
    )
    area = float(ranks.mean() / 2 / len(outside))
    advantage = float((inside > 0).mean() - (outside > 0).mean())
    # The threshold above which so many of the others are, and no more.
    allowed = np.minimum((at * len(outside)).astype(int), len(outside) - 1)
    cuts = outside[::-1][allowed]
    true = 1 - np.searchsorted(inside, cuts, side="right") / len(inside)
    return np.concatenate([[area, advantage], np.where(at >= 1, 1.0, true)])
