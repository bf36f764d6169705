"""Membership scores: against what each of them says in words."""

import numpy as np
import pytest
from scipy import stats

from dpmi.attacking.lira import (
    finding_confidence,
    likelihood_ratios,
    logit_confidence,
    one_sided,
)

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


@pytest.fixture
def of_findings():
    """Confidences in three findings of each image, the second of which is not known of two."""
    rng = np.random.default_rng(1)
    coins = rng.random((S, N)) < 0.5
    found = rng.normal(size=(S, N, 3)) + coins[..., None] * (0.5, 1.0, 1.5)
    found[:, :2, 1] = np.nan
    return found, coins


@pytest.mark.parametrize("per_image", [True, False])
def test_of_findings_the_ratios_are_added_and_the_unknown_adds_nothing(of_findings, per_image):
    found, coins = of_findings
    scores = likelihood_ratios(found, coins, per_image)
    alone = [likelihood_ratios(found[..., k], coins, per_image) for k in (0, 2)]
    known = np.zeros((S, N))
    known[:, 2:] = likelihood_ratios(found[:, 2:, 1], coins[:, 2:], per_image)
    assert scores == pytest.approx(sum(alone) + known)


def test_of_findings_the_one_sided_score_keeps_its_unit(of_findings):
    found, coins = of_findings
    scores = one_sided(found, coins)
    each = [one_sided(found[..., k], coins) for k in range(3)]
    assert scores[:, 2:] == pytest.approx(sum(each)[:, 2:] / 3**0.5)
    assert scores[:, :2] == pytest.approx((each[0] + each[2])[:, :2] / 2**0.5)


@pytest.mark.parametrize("score", [likelihood_ratios, one_sided])
def test_an_image_of_which_nothing_is_known_gives_no_evidence(of_findings, score):
    found, coins = of_findings
    found[:, 3] = np.nan
    assert (score(found, coins)[:, 3] == 0).all()


def test_one_finding_is_two_classes():
    rng = np.random.default_rng(2)
    logits, findings = rng.normal(size=(S, N, 1)), rng.integers(0, 2, (N, 1)).astype(float)
    coins = rng.random((S, N)) < 0.5
    one = np.stack([finding_confidence(each, findings) for each in logits])
    pairs = [np.concatenate([np.zeros((N, 1)), each], 1) for each in logits]
    two = np.stack([logit_confidence(pair, findings[:, 0].astype(int)) for pair in pairs])
    assert one[..., 0] == pytest.approx(two)
    for score in (likelihood_ratios, one_sided):
        assert score(one, coins) == pytest.approx(score(two, coins))


def test_the_confidence_in_an_unknown_finding_is_not_known():
    assert np.isnan(finding_confidence(np.ones((1, 2)), np.array([[np.nan, 1.0]]))[0, 0])
