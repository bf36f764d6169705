"""Intervals against closed forms, and how often they hold the truth in drawn data."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from dpmi.models.intervals import (
    FEWEST_RESAMPLED,
    of_auroc,
    of_difference,
    of_ece,
    of_mean,
    of_share,
)

DRAWS = 400  # from one seed: 95 % of them are 380, and fewer than 366 once in a thousand


def holds(interval, truth, low, draws=DRAWS):
    rng = np.random.default_rng(0)
    times = 0
    for _ in range(draws):
        ends = interval(rng)
        times += ends[0] <= truth <= ends[1]
    assert times >= low, times


@pytest.mark.parametrize("right", [0, 1, 17, 30])
def test_of_images_of_as_many_patients_a_share_has_wilsons_interval(right):
    ends = of_share(np.arange(30) < right, np.arange(30))
    wilson = binomtest(right, 30).proportion_ci(0.95, method="wilson")
    assert ends == pytest.approx((wilson.low, wilson.high))


def test_copies_of_a_patients_image_narrow_no_interval():
    rng = np.random.default_rng(3)
    labels, right = rng.integers(0, 2, 40), rng.random(40) < 0.8
    ill = rng.random(40) * 0.7 + 0.3 * labels
    probabilities, patients = np.stack([1 - ill, ill], 1), np.arange(40)
    many = np.repeat(patients, 5)
    once = of_share(right, patients)
    five = of_share(right[many], many)
    assert five == pytest.approx(once, abs=0.002)  # the variance between patients has n - 1
    assert five[1] - five[0] >= once[1] - once[0]
    assert of_share(np.ones(200, bool), many) == pytest.approx(
        of_share(np.ones(40, bool), patients)
    )
    assert of_auroc(probabilities[many], labels[many], many) == pytest.approx(
        of_auroc(probabilities, labels, patients)
    )
    assert of_ece(probabilities.max(1)[many], right[many], many) == pytest.approx(
        of_ece(probabilities.max(1), right, patients)
    )


@pytest.mark.parametrize(("patients", "each", "alike"), [(40, 3, 0.5), (150, 4, 0.3), (25, 1, 0)])
def test_an_interval_of_a_share_holds_the_truth_though_a_patients_images_are_alike(
    patients, each, alike
):
    whose = np.repeat(np.arange(patients), each)

    def draw(rng):
        if not alike:
            return of_share(rng.random(patients) < 0.85, whose)
        spread = 1 / alike - 1  # of a beta law whose draws correlate by ``alike``
        own = rng.beta(0.85 * spread, 0.15 * spread, patients)
        return of_share(rng.random(patients * each) < own[whose], whose)

    holds(draw, 0.85, low=360)


def test_of_one_image_a_patient_an_auroc_has_delongs_interval_on_the_logit_scale():
    rng = np.random.default_rng(5)
    labels = np.arange(50) % 2
    ill = np.round(rng.random(50) * 0.6 + 0.3 * labels, 1)  # with ties
    one, other = ill[labels == 1], ill[labels == 0]
    order = (one[:, None] > other[None]) + 0.5 * (one[:, None] == other[None])
    area = order.mean()
    deviation = math.sqrt(order.mean(1).var(ddof=1) / 25 + order.mean(0).var(ddof=1) / 25)
    half = norm.ppf(0.975) * deviation / (area * (1 - area))
    middle = math.log(area / (1 - area))
    expected = [1 / (1 + math.exp(-(middle + sign * half))) for sign in (-1, 1)]
    ends = of_auroc(np.stack([1 - ill, ill], 1), labels, np.arange(50))
    assert ends == pytest.approx(expected)


@pytest.mark.parametrize(("patients", "each"), [(60, 1), (60, 3)])
def test_an_interval_of_an_auroc_holds_the_truth_though_a_patients_images_are_alike(patients, each):
    whose = np.repeat(np.arange(patients), each)
    labels = np.repeat(np.arange(patients) % 2, each)

    def draw(rng):
        score = 1.5 * labels + math.sqrt(0.6) * rng.normal(size=patients)[whose]
        score += math.sqrt(0.4) * rng.normal(size=len(whose))
        ill = 1 / (1 + np.exp(-score))
        return of_auroc(np.stack([1 - ill, ill], 1), labels, whose)

    holds(draw, norm.cdf(1.5 / math.sqrt(2)), low=363)


def test_where_all_images_are_in_order_the_interval_is_as_long_as_few_patients_make_it():
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 1])
    probabilities = np.stack([1 - labels, labels], 1).astype(float)
    low, high = of_auroc(probabilities, labels, np.arange(8))
    assert high == 1
    assert low == pytest.approx(binomtest(3, 3).proportion_ci(0.95, method="wilson").low)


@pytest.mark.parametrize("off", [0.0, 0.2], ids=["calibrated", "too sure"])
def test_an_interval_of_a_calibration_error_holds_the_truth(off):
    def draw(rng):
        confidences = 0.7 + 0.25 * rng.random(100)
        return of_ece(confidences, rng.random(100) < confidences - off, np.arange(100))

    holds(draw, off, low=106, draws=120)  # 88 %: of few images its bias is not wholly taken off


def test_of_few_patients_a_calibration_error_has_no_interval():
    few = FEWEST_RESAMPLED - 1
    assert of_ece(np.full(few, 0.8), np.ones(few, bool), np.arange(few)) is None


def test_an_interval_of_a_mean_and_of_a_difference_holds_the_truth():
    def mean(rng):
        shares = [rng.random(n) < p for n, p in ((30, 0.95), (80, 0.7))]
        ends = [of_share(s, np.arange(len(s))) for s in shares]
        return of_mean([float(s.mean()) for s in shares], ends)

    def difference(rng):
        one, other = rng.random(60) < 0.9, rng.random(60) < 0.75
        ends = [of_share(s, np.arange(60)) for s in (one, other)]
        return of_difference(float(one.mean()), ends[0], float(other.mean()), ends[1])

    holds(mean, 0.825, low=364)
    holds(difference, 0.15, low=364)
