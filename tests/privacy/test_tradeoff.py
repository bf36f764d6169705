"""The trade-off curve against closed forms, hulls of densities and an attacker who is optimal."""

import math

import numpy as np
import pytest
from scipy import stats

from dpmi.privacy import tradeoff
from dpmi.privacy.accounting import epsilon
from dpmi.privacy.spending import LedgerEntry
from dpmi.privacy.tradeoff import of_gaussian, of_ledger, of_pure

RATES = [1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.999]
RUN = LedgerEntry(1.1, 64 / 5216, 163)  # two epochs of the chest X-rays
RUNS = {
    "epochs": [RUN],
    "epochs and a statistic": [RUN, LedgerEntry(9.0, 1.0, 1)],
    "long": [LedgerEntry(4.2, 128 / 5216, 2050)],
}


def gaussian_power(mu, alpha):
    """Of the best test of N(0, 1) against N(mu, 1) (Neyman and Pearson)."""
    return stats.norm.cdf(stats.norm.ppf(alpha) + mu)


def mixture_power(rate, mu, there):
    """False and true positive rates of the best tests of one step, by their threshold, in a line.

    A step without the image is N(0, 1), with it N(0, 1) or, with probability ``rate``, N(mu, 1).
    """
    at = np.linspace(-9, 9 + mu, 20001)
    if there:  # says that the image was there, beyond the threshold
        blank = stats.norm.sf(at)
        return blank, (1 - rate) * blank + rate * stats.norm.sf(at - mu)
    blank = stats.norm.cdf(at)  # says that a blank was there, below it
    return (1 - rate) * blank + rate * stats.norm.cdf(at - mu), blank


def concave_hull(x, y, at):
    """The least concave curve above points, from (0, 0) to (1, 1), at some places."""
    order = np.lexsort((y, x))
    points = [(0.0, 0.0), *zip(x[order], y[order], strict=True), (1.0, 1.0)]
    hull = []
    for px, py in points:
        while len(hull) > 1:
            (ax, ay), (bx, by) = hull[-2:]
            if (bx - ax) * (py - ay) < (by - ay) * (px - ax):
                break
            hull.pop()
        hull.append((px, py))
    return np.interp(at, *zip(*hull, strict=True))


@pytest.mark.parametrize(("adjacency", "reach"), [("zero-out", 1), ("replace-one", 2)])
@pytest.mark.parametrize("noise", [0.5, 4.0, 40.0])
def test_without_sampling_it_is_the_gaussian_mechanisms_closed_form(adjacency, reach, noise):
    """Dong, Roth and Su 2022, equation 6; five releases, of other noise each, are one."""
    entries = [LedgerEntry(noise, 1.0, 2), LedgerEntry(2 * noise, 1.0, 3)]
    mu = reach * math.sqrt(2 / noise**2 + 3 / (2 * noise) ** 2)
    curve = of_ledger(entries, adjacency)
    for alpha in RATES:
        exact = gaussian_power(mu, alpha)
        assert exact <= curve.true_positive_rate(alpha) <= exact * 1.0001 + 1e-9
    assert curve.advantage == pytest.approx(2 * stats.norm.cdf(mu / 2) - 1, abs=1e-9)


@pytest.mark.parametrize(("noise", "rate"), [(1.0, 0.1), (0.4, 0.02), (3.0, 0.6)])
def test_of_one_sampled_step_it_is_the_concave_hull_of_both_orders(noise, rate):
    curve = of_ledger([LedgerEntry(noise, rate, 1)], "zero-out")
    (x, y), (u, v) = (mixture_power(rate, 1 / noise, there) for there in (True, False))
    exact = concave_hull(np.concatenate([x, u]), np.concatenate([y, v]), RATES)
    for alpha, power in zip(RATES, exact, strict=True):
        assert power - 1e-7 <= curve.true_positive_rate(alpha) <= power * 1.002 + 1e-6
    assert curve.advantage == pytest.approx(max(y - x), rel=2e-3)


def test_a_sampled_step_is_easier_to_distinguish_in_one_order_than_in_the_other():
    """What one order alone allows, an attacker of the other surpasses."""
    curve = of_ledger([LedgerEntry(0.4, 0.02, 1)], "zero-out")
    reached = [
        np.interp(0.001, *sorted_(mixture_power(0.02, 2.5, there))) for there in (True, False)
    ]
    assert reached[0] > 5 * reached[1]
    assert curve.true_positive_rate(0.001) >= reached[0]


def sorted_(points):
    order = np.argsort(points[0])
    return points[0][order], points[1][order]


def test_the_best_attacker_on_simulated_training_reaches_it_and_does_not_pass_it():
    """400,000 runs of twenty steps, half with the image, by the ratio of likelihoods.

    Intervals of 99.99 % (Clopper and Pearson), eight of them: a false alarm in less than 1000.
    """
    noise, rate, steps, runs = 0.7, 0.1, 20, 200_000
    rng = np.random.default_rng(1)
    found = []
    for there in (True, False):
        ratio = np.zeros(runs)
        for _ in range(steps):
            drawn = there * (rng.random(runs) < rate)
            seen = drawn / noise + rng.standard_normal(runs)
            ratio += np.log1p(rate * np.expm1(seen / noise - 1 / (2 * noise**2)))
        found.append(ratio)
    curve = of_ledger([LedgerEntry(noise, rate, steps)], "zero-out")
    for alpha in (0.002, 0.01, 0.05, 0.2):
        threshold = np.quantile(found[1], 1 - alpha)
        hits, alarms = (int((of > threshold).sum()) for of in found)
        interval = stats.binomtest(hits, runs).proportion_ci(0.9999)
        level = stats.binomtest(alarms, runs).proportion_ci(0.9999)
        assert curve.true_positive_rate(level.high) >= interval.low
        assert curve.true_positive_rate(level.low) <= interval.high * 1.02


@pytest.mark.parametrize(
    ("name", "adjacency"), [("epochs and a statistic", "zero-out"), ("epochs", "replace-one")]
)
def test_its_privacy_profile_is_that_of_the_accountant(name, adjacency):
    curve = of_ledger(RUNS[name], adjacency)
    at = int(np.searchsorted(-curve.deltas, -1e-4))
    stated = epsilon(RUNS[name], float(curve.deltas[at]), "pld", adjacency)
    assert stated == pytest.approx(float(curve.epsilons[at]), rel=2e-3)


@pytest.mark.parametrize("name", ["epochs", "long"])
def test_a_coarser_grid_of_losses_costs_a_thousandth_and_never_falls_short(name, monkeypatch):
    coarse = of_ledger(RUNS[name], "zero-out")
    tradeoff._of_history.cache_clear()
    monkeypatch.setattr(tradeoff, "_fine_enough", lambda _: 0.0)
    fine = of_ledger(RUNS[name], "zero-out")
    tradeoff._of_history.cache_clear()
    for alpha in (1e-3, 0.01, 0.3):
        best = fine.true_positive_rate(alpha)
        assert best * (1 - 1e-5) <= coarse.true_positive_rate(alpha) <= best * 1.001
    assert fine.advantage <= coarse.advantage <= fine.advantage * 1.0015


def test_it_grows_with_the_false_positive_rate_the_steps_and_less_noise_and_is_its_own_inverse():
    for curve in (of_ledger([RUN], "zero-out"), of_gaussian(1.5), of_pure(0.25), of_pure(4080.0)):
        powers = [curve.true_positive_rate(alpha) for alpha in [0.0, *RATES, 1.0]]
        assert powers == sorted(powers)
        assert all(power >= alpha for alpha, power in zip([0.0, *RATES, 1.0], powers, strict=True))
        assert powers[-1] == 1.0
        for alpha in (0.01, 0.2, 0.6) if curve.advantage < 1 else ():
            missed = 1 - curve.true_positive_rate(alpha)
            assert curve.true_positive_rate(missed) == pytest.approx(1 - alpha, abs=2e-3)
        most = max(curve.true_positive_rate(a) - a for a in np.linspace(0, 1, 501))
        assert curve.advantage == pytest.approx(most, abs=3e-3)
    more = [
        of_ledger([LedgerEntry(1.1, 0.01, steps)], "zero-out").advantage for steps in (1, 9, 81)
    ]
    assert more == sorted(more)
    less = [of_ledger([LedgerEntry(noise, 0.01, 9)], "zero-out").advantage for noise in (3, 1, 0.5)]
    assert less == sorted(less)


def test_an_image_replaced_by_any_other_is_no_harder_to_distinguish_than_one_that_is_left_out():
    for entries in (RUNS["epochs"], RUNS["long"]):
        zero_out, replaced = (of_ledger(entries, of) for of in ("zero-out", "replace-one"))
        assert replaced.advantage > 1.2 * zero_out.advantage
        assert replaced.true_positive_rate(0.01) > zero_out.true_positive_rate(0.01)


def test_of_pure_differential_privacy_randomized_response_reaches_it():
    for at in (0.25, 1.0, 3.0):
        truth = 1 / (1 + math.exp(-at))
        curve = of_pure(at)
        assert curve.true_positive_rate(1 - truth) == pytest.approx(truth, abs=1e-12)
        assert curve.advantage == pytest.approx(2 * truth - 1, abs=1e-12)


def test_losses_too_large_to_tell_allow_everything_and_an_empty_ledger_has_no_curve():
    curve = of_ledger([LedgerEntry(1e-4, 0.5, 3)], "zero-out")
    assert curve.advantage == curve.true_positive_rate(1e-4) == 1.0
    with pytest.raises(ValueError, match="nothing was released"):
        of_ledger([], "zero-out")


def test_it_is_what_is_published_of_dp_sgd():
    """Two figures of others, by other means.

    Bu et al. 2020 (arXiv 1911.11607), the example of their code: batches of 256 of 60000 images,
    noise 1.3, 15 epochs are about 0.227-GDP, by a central limit theorem. Gomez et al. (SatML 2026),
    the example of gdpnum: noise 9.4, rate 0.328, 2000 steps are 1.5685621993-GDP, and the curve is
    nowhere further below that than 0.0010208.
    """
    mnist = of_ledger([LedgerEntry(1.3, 256 / 60000, 15 * 60000 // 256)], "zero-out")
    assert mnist.advantage == pytest.approx(of_gaussian(0.227).advantage, rel=0.03)
    curve, mu, regret = (
        of_ledger([LedgerEntry(9.4, 0.328, 2000)], "zero-out"),
        1.5685621993,
        0.0010208,
    )
    for alpha in RATES:
        assert curve.true_positive_rate(alpha) <= gaussian_power(mu, alpha) + 1e-4
        reached = curve.true_positive_rate(min(1.0, alpha + regret)) + regret
        assert reached >= gaussian_power(mu, alpha) - 1e-4
