"""What a guarantee allows an attack, beside the best attacks that there are."""

import dp_accounting
import numpy as np
import pytest
from scipy.special import ndtr, ndtri
from scipy.stats import norm

from dpmi.attacking.promise import highest_true_positive
from dpmi.privacy.spending import LedgerEntry

RATES = np.geomspace(1e-4, 0.9, 30)


def test_of_all_images_it_is_the_best_test_between_two_gaussians():
    entries = [LedgerEntry(8.0, 1.0, 1), LedgerEntry(20.0, 1.0, 50)]
    allowed, _ = highest_true_positive(entries, "prv", RATES)
    mu = (1 / 64 + 50 / 400) ** 0.5
    assert allowed == pytest.approx(ndtr(ndtri(RATES) + mu))
    for delta in (1e-2, 1e-5):  # and (ε, δ) touches it from above
        epsilon = dp_accounting.get_epsilon_gaussian(1 / mu, delta)
        line = np.exp(epsilon) * RATES + delta
        assert (allowed <= line + 1e-9).all()


@pytest.mark.parametrize("noise", [0.7, 2.0])
def test_of_batches_no_test_of_a_step_does_better_and_some_come_close(noise):
    rate = 0.2
    allowed, _ = highest_true_positive([LedgerEntry(noise, rate, 1)], "pld", RATES)
    cut = norm.isf(RATES) * noise  # the best test: a threshold along the image's gradient
    best = (1 - rate) * RATES + rate * norm.sf((cut - 1) / noise)
    assert (best <= allowed + 1e-6).all()
    assert (allowed < best + 0.1).all()
