"""ROC curves: their figures, and whether their intervals hold what they should."""

from functools import partial

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from dpmi.attacking.curve import measured_roc
from dpmi.attacking.lira import likelihood_ratios, one_sided


def confidences(rng, models, images, seen, shared=1.0):
    """Of models whose images go up and down together, and by ``told`` where they were seen."""
    coins = rng.random((models, images)) < 0.5
    together = shared * rng.normal(size=(models, 2)) @ rng.normal(size=(2, images))
    return together + rng.normal(size=coins.shape) + seen * coins, coins


def test_area_advantage_and_rates_are_those_of_the_scores():
    seen, coins = confidences(np.random.default_rng(0), 30, 200, 0.7)
    scores = one_sided(seen, coins)
    roc = measured_roc("one-sided", one_sided, seen, coins)
    inside, outside = scores[coins], scores[~coins]
    assert roc.auc.value == pytest.approx(roc_auc_score(coins.ravel(), scores.ravel()))
    assert roc.advantage.value == pytest.approx((inside > 0).mean() - (outside > 0).mean())
    cut = np.sort(outside)[::-1][int(0.01 * len(outside))]
    assert roc.true_positive["0.01"].value == pytest.approx((inside > cut).mean())
    assert (outside > cut).mean() <= 0.01
    false, true, low, high = np.array(roc.curve).T
    assert false[-1] == true[-1] == 1
    assert (np.diff(true) >= 0).all()
    assert ((low <= true) & (true <= high)).all()


@pytest.mark.parametrize("score", [likelihood_ratios, one_sided])
@pytest.mark.parametrize("models", [16, 64])
def test_where_models_tell_nothing_the_interval_holds_a_half(score, models):
    """False alarms: at most one in 1000 for each of ten experiments, two allowed: under 1e-6."""
    missed = 0
    for seed in range(10):
        seen, coins = confidences(np.random.default_rng(seed), models, 40, 0.0)
        auc = measured_roc("", partial(score, per_image=models > 32), seen, coins, 0.999).auc
        missed += not auc.low <= 0.5 <= auc.high
    assert missed <= 2


def test_what_models_tell_is_found():
    seen, coins = confidences(np.random.default_rng(1), 64, 200, 3.0)
    roc = measured_roc("", likelihood_ratios, seen, coins, 0.999)
    assert roc.auc.low > 0.85, roc.auc
    assert roc.true_positive["0.01"].low > 0.2, roc.true_positive
