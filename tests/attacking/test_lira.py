"""Membership scores: against what each of them says in words."""

import numpy as np
import pytest
from scipy import stats

from dpmi.attacking.lira import likelihood_ratios, logit_confidence, one_sided

S, N = 40, 7


@pytest.fixture
def seen():
    rng = np.random.default_rng(0)
    coins = rng.random((S, N)) < 0.5
    return 3 * rng.normal(size=N) + rng.normal(size=(S, N)) + coins, coins


def others(seen, model, image, world):
    confidences, coins = seen
    return [
        confidences[other, image]
        for other in range(S)
        if other != model and coins[other, image] == world
    ]


@pytest.mark.parametrize("per_image", [True, False])
def test_a_score_is_the_log_likelihood_ratio_of_gaussians_fitted_to_the_other_models(
    seen, per_image
):
    scores = likelihood_ratios(*seen, per_image=per_image)
    for model in (0, 5):
        for image in range(N):
            logs = []
            for world in (True, False):
                variances = [np.var(others(seen, model, i, world), ddof=1) for i in range(N)]
                variance = variances[image] if per_image else np.mean(variances)
                mean = np.mean(others(seen, model, image, world))
                logs.append(stats.norm(mean, variance**0.5).logpdf(seen[0][model, image]))
            assert scores[model, image] == pytest.approx(logs[0] - logs[1])


def test_the_one_sided_score_knows_only_models_that_have_not_seen_the_image(seen):
    scores = one_sided(*seen)
    those = others(seen, 3, 2, False)
    expected = (seen[0][3, 2] - np.mean(those)) / np.std(those, ddof=1)
    assert scores[3, 2] == pytest.approx(expected)


def test_no_model_has_a_part_in_what_it_is_attacked_by(seen):
    confidences, coins = seen
    before = likelihood_ratios(confidences, coins)
    coins[4] = ~coins[4]
    assert likelihood_ratios(confidences, coins)[4] == pytest.approx(before[4])


def test_confidence_is_the_log_odds_of_the_own_class_however_sure_a_model_is():
    logits = np.array([[1.0, 2.0, -1.0], [0.0, 0.5, 3.0]])
    labels = np.array([1, 0])
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    p = shares[[0, 1], labels]
    assert logit_confidence(logits, labels) == pytest.approx(np.log(p / (1 - p)))
    sure = logit_confidence(np.array([[2000.0, 0.0]]), np.array([0]))
    assert sure == pytest.approx(2000.0)
