"""From scores of members and others to a ROC curve, and how sure it is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dpmi.attacking.lira import Coins, Values
from dpmi.attacking.result import LEVEL, Measured, Roc

RATES = (1e-3, 1e-2)  # false positive rates at which true positive rates are told
DRAWS = 1000
OVER_MODELS = (
    "95 % over the models that were attacked (bootstrap, all images of a model together); the "
    "images are these, and the fits that the models share are not made anew"
)
_SHOWN = 121  # points of a curve that are kept


def measured_roc(
    score: str, scores: Values, coins: Coins, rng: np.random.Generator, level: float = LEVEL
) -> Roc:
    """One threshold for all images and models, as Carlini et al. (2022) have it.

    Scores of one model depend on each other through its weights: models are drawn anew, with all
    their images, not single scores.

    Args:
        score: its name.
        scores: (S, n), higher for members; 0 is the threshold of its own.
        coins: (S, n) who is a member.
        rng: of the bootstrap.
        level: of the intervals.
    """
    outside = np.sort(scores[~coins])[::-1]
    least = 1 / len(outside)
    grid = np.unique(np.concatenate([np.geomspace(least, 1, 400), np.linspace(least, 1, 200)]))
    cuts = outside[np.minimum((grid * len(outside)).astype(int), len(outside) - 1)]
    cuts = np.unique(np.concatenate([cuts, [0.0]]))[::-1]  # falling: rates rise
    hits, alarms = _above(scores, coins, cuts), _above(scores, ~coins, cuts)
    sizes = np.stack([coins.sum(1), (~coins).sum(1)])
    weights = rng.multinomial(len(scores), np.full(len(scores), 1 / len(scores)), DRAWS)
    weights = np.concatenate([np.ones((1, len(scores)), weights.dtype), weights])
    true = _ended(weights @ hits / (weights @ sizes[0])[:, None])  # (1 + DRAWS, cuts)
    false = _ended(weights @ alarms / (weights @ sizes[1])[:, None])
    areas = np.sum(np.diff(false) * (true[:, 1:] + true[:, :-1]) / 2, axis=1)
    own = 1 + int(np.flatnonzero(cuts == 0.0)[0])
    at = np.unique(np.concatenate([np.geomspace(least, 1, _SHOWN), RATES]))
    rates = np.stack([np.interp(at, f, t) for f, t in zip(false, true, strict=True)])
    low, high = np.quantile(rates[1:], [(1 - level) / 2, (1 + level) / 2], axis=0)
    points = zip(at.tolist(), rates[0].tolist(), low.tolist(), high.tolist(), strict=True)
    return Roc(
        score=score,
        auc=_interval(areas, level),
        advantage=_interval(true[:, own] - false[:, own], level),
        true_positive={
            f"{rate:g}": _interval(rates[:, int(np.searchsorted(at, rate))], level)
            for rate in RATES
        },
        curve=list(points),
    )


def _above(scores: Values, chosen: Coins, cuts: Values) -> NDArray[np.int64]:
    """(S, cuts): of each model, how many chosen scores are above each cut; cuts fall."""
    rows = [np.sort(own[those]) for own, those in zip(scores, chosen, strict=True)]
    return np.stack([len(row) - np.searchsorted(row, cuts, side="right") for row in rows])


def _ended(rates: Values) -> Values:
    """Rates between 0, where nobody is called a member, and 1."""
    ends = np.zeros((len(rates), 1)), np.ones((len(rates), 1))
    return np.concatenate([ends[0], rates, ends[1]], axis=1)


def _interval(values: Values, level: float) -> Measured:
    """Of what was measured, first, and of its bootstrap."""
    low, high = np.quantile(values[1:], [(1 - level) / 2, (1 + level) / 2])
    return Measured(value=float(values[0]), low=float(low), high=float(high))
