"""Lower bounds on ε, against mechanisms whose ε is known."""

import math

import numpy as np
import pytest
from scipy import stats

from dpmi.auditing.bounds import Family, Rates, at_least, measured, one_run
from dpmi.auditing.result import rounded_down

ONE_STEP = Family(1.0, 1)


def gaussian_delta(epsilon, noise_multiplier):
    """Balle and Wang 2018 (arXiv 1805.06530), theorem 5."""
    a, b = 1 / (2 * noise_multiplier), epsilon * noise_multiplier
    return stats.norm.cdf(a - b) - math.exp(epsilon) * stats.norm.cdf(-a - b)


def test_a_member_that_is_the_truth_is_refuted_no_more_often_than_stated():
    # 400 audits at 95 %: more than 39 false alarms have a probability of 1e-4.
    rng, trials, alarms = np.random.default_rng(1), 400, 0
    for _ in range(trials):
        inside, outside = rng.normal(1, 1, 1000), rng.normal(0, 1, 1000)
        rates = [measured(inside, outside, at, 0.05 / 3) for at in (0.5, 1.5, 2.5)]
        alarms += ONE_STEP.refutes(rates, 1.0)
    assert alarms <= stats.binom.ppf(1 - 1e-4, trials, 0.05)


def test_a_member_with_a_tenth_more_noise_is_refuted_with_enough_trials():
    rng = np.random.default_rng(2)
    inside, outside = rng.normal(1, 1, 50_000), rng.normal(0, 1, 50_000)
    assert ONE_STEP.refutes([measured(inside, outside, 0.5, 1e-3)], 1.1)


@pytest.mark.parametrize("noise_multiplier", [0.5, 1.0, 3.0])
def test_with_exact_rates_the_family_gives_the_gaussian_mechanisms_epsilon(noise_multiplier):
    true_positive = stats.norm.cdf(0.5 / noise_multiplier)
    rates = Rates(true_positive, 1 - true_positive, 2 * true_positive - 1)
    bound = ONE_STEP.bound([rates], 1e-4, 2 * noise_multiplier)
    assert gaussian_delta(bound, noise_multiplier) == pytest.approx(1e-4, rel=0.06)
    assert gaussian_delta(bound, noise_multiplier) >= 1e-4  # it is not above the truth


@pytest.mark.parametrize(("rate", "steps", "noise"), [(0.25, 4, 0.7), (0.032, 31, 1.05)])
def test_a_members_epsilon_is_an_accountants_and_never_above_it(rate, steps, noise):
    from dpmi.privacy.accounting import epsilon
    from dpmi.privacy.ledger import LedgerEntry

    stated = epsilon([LedgerEntry(noise, rate, steps)], 1e-4, "pld")
    assert 0.97 * stated < Family(rate, steps).epsilon(noise, 1e-4) <= stated


def test_randomised_response_gives_its_epsilon_without_any_model():
    rates = Rates(0.75, 0.25, 0.5)
    assert rates.epsilon(0.0) == pytest.approx(math.log(3))
    assert rates.epsilon(0.05) == pytest.approx(math.log(0.7 / 0.25))
    assert Rates(0.2, 0.9, 0.0).epsilon(0.0) == 0.0


def test_rates_are_missed_no_more_often_than_stated():
    rng, missed = np.random.default_rng(3), 0
    for _ in range(1000):
        inside, outside = rng.normal(1, 1, 300), rng.normal(0, 1, 300)
        found = measured(inside, outside, 1.0, 0.05)
        true = stats.norm.sf(0), stats.norm.sf(1)
        missed += (
            found.true_positive > true[0]
            or found.false_positive < true[1]
            or found.advantage > true[0] - true[1]
        )
    assert missed <= stats.binom.ppf(1 - 1e-4, 1000, 0.05)


def test_one_run_without_delta_is_the_interval_of_a_proportion():
    share = at_least(930, 1000, 0.05)
    assert one_run(5000, 1000, 930, 0.0, 0.05) == pytest.approx(
        math.log(share / (1 - share)), abs=1e-3
    )
    assert one_run(5000, 1000, 500, 0.0, 0.05) == 0.0
    assert one_run(5000, 1000, 0, 0.0, 0.05) == 0.0


def test_one_run_is_wrong_no_more_often_than_stated_and_less_with_delta():
    # Randomised response of many bits at once; its ε is ln 3.
    rng = np.random.default_rng(4)
    found = [one_run(2000, 2000, int(k), 0.0, 0.05) for k in rng.binomial(2000, 0.75, 200)]
    assert sum(bound > math.log(3) for bound in found) <= stats.binom.ppf(1 - 1e-4, 200, 0.05)
    assert one_run(2000, 2000, 1500, 1e-5, 0.05) < one_run(2000, 2000, 1500, 0.0, 0.05)


def test_a_bound_is_rounded_downward():
    assert [rounded_down(x) for x in (0.0, 0.4599, 0.99999, 3.0, 12.349, 123.9)] == [
        "0", "0.459", "0.999", "3", "12.3", "123",
    ]  # fmt: skip
