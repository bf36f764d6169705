"""The law that is executed, computed from the tables, beside the law that is claimed."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import ndtr

from dpmi.privacy.lattice import (
    BEYOND_REACH,
    COARSEST,
    FINEST,
    REACH,
    LatticeGaussian,
    lattice_gaussian,
)
from dpmi.privacy.randomness import SecretStream

FALSE_ALARM = 1e-6  # of each statistical test below, were its key not fixed


def draw(law, size, key=b"k" * 32):
    drawn = np.empty(size, law.dtype)
    law.draw(SecretStream(key), drawn)
    return drawn


class Words(SecretStream):
    """All words are one."""

    def __init__(self, word):
        self.word = word

    def fill(self, array):
        array.reshape(-1).view(np.uint8)[:] = np.frombuffer(
            np.full(-(-array.nbytes // 8), self.word, "<u8").tobytes(), np.uint8
        )[: array.nbytes]


def executed(law):
    """P(n) for n within reach, from what the code draws with: the table, and the rest's rejection.

    The table gives each of the W integers of a cell (its entries) 2^-16 / W. A trial of the rest
    gives an integer of a cell (its bound / all bounds) / W times what it is kept with.
    """
    width, cells = law._width, law._cells.astype(np.int64)
    entries = law._starts[: law._rest_from] // width
    counts = np.bincount(entries - cells.min(), minlength=len(cells))
    order = np.argsort(cells)
    n = (cells[order][:, None] * width + np.arange(width)).reshape(-1)
    by_table = np.repeat(counts / (2**16 * width), width)
    bounds, under = (np.repeat(a[order], width) for a in (law._bounds, law._under))
    kept = (law._mass(n) - under) / bounds
    assert kept.min() >= 0
    assert kept.max() <= 1
    by_trial = bounds / law._cumulated[-1] / width * kept
    share = 1 - law._rest_from / 2**16
    assert by_trial.sum() == pytest.approx(
        law._kept, rel=1e-9
    )  # which says how many trials to make
    return n, by_table + share * by_trial / by_trial.sum()


@pytest.mark.parametrize("std", [COARSEST, 5000.0, 8191.9])
def test_the_law_that_is_executed_is_the_rounded_gaussian_out_to_its_end(std):
    n, probability = executed(lattice_gaussian(std))
    assert n[0] <= -REACH * std
    assert n[-1] >= REACH * std - 1
    places, weights = np.polynomial.legendre.leggauss(5)  # exact to double precision here
    claimed = stats.norm.pdf((n[:, None] + places / 2) / std) @ weights / (2 * std)
    error = np.abs(probability / claimed - 1)
    assert error.max() < 2.0**-44
    assert abs(probability.sum() - 1) < 1e-12


def test_the_mass_of_an_integer_is_its_integral_to_double_precision():
    mpmath = pytest.importorskip("mpmath")
    mpmath.mp.dps = 60
    for std in (COARSEST, 3e6, FINEST):
        law = LatticeGaussian(std)
        for x in (0.0, 0.5, 3.0, 7.0, 10.9):
            n = round(x * std)
            s = mpmath.mpf(std)
            exact = (
                mpmath.erfc((n - 0.5) / s / mpmath.sqrt(2))
                - mpmath.erfc((n + 0.5) / s / mpmath.sqrt(2))
            ) / 2
            bound = 2.0**-44 if x <= 7 else 2.0**-40
            assert abs(law._mass(np.array([n]))[0] / exact - 1) < bound


@pytest.mark.parametrize("std", [4096.0, 1.7 * 2**23, 2.0**30, 2.0**40])
def test_what_is_drawn_has_the_law_in_its_middle_and_in_its_tails(std):
    """Chi-square over bins of equal probability and over tails beyond 3, 4 and 4.5."""
    drawn = draw(lattice_gaussian(std), 3_000_000) / std
    inner = stats.norm.ppf(np.linspace(0, 1, 201)[1:-1])
    edges = np.sort([*inner, -4.5, -4, -3, 3, 4, 4.5])
    edges = (np.floor(edges * std) + 0.5) / std  # between two integers
    counts = np.histogram(drawn, [-np.inf, *edges, np.inf])[0]
    law = np.diff([0, *stats.norm.cdf(edges[edges <= 0]), 0.5])
    # Of the last bins ten values are expected and more.
    expected = np.diff([0.0, *stats.norm.cdf(edges), 1.0]) * len(drawn)
    assert law[0] * len(drawn) > 10
    assert stats.chisquare(counts, expected).pvalue > FALSE_ALARM


def test_noise_that_ended_at_three_standard_deviations_would_be_noticed():
    drawn = draw(lattice_gaussian(2.0**20), 3_000_000) / 2.0**20
    beyond = int((np.abs(drawn) > 3).sum())
    assert stats.binomtest(beyond, len(drawn), 2 * ndtr(-3.0)).pvalue > FALSE_ALARM
    assert stats.binomtest(0, len(drawn), 2 * ndtr(-3.0)).pvalue < FALSE_ALARM
    assert np.abs(drawn).max() > 4.5


def test_low_bits_of_the_noise_are_as_likely_as_each_other():
    drawn = draw(lattice_gaussian(1.3 * 2**23), 2_000_000)
    for shift in (0, 8, 14):
        counts = np.bincount((drawn >> shift) & 255, minlength=256)
        assert stats.chisquare(counts).pvalue > FALSE_ALARM


def test_the_rarest_words_give_noise_beyond_nine_standard_deviations():
    """The float32 normal that this replaces ended at 5.77."""
    law = lattice_gaussian(2.0**20)
    # All words but the buckets' zero: the rest's rarest cell, and kept.
    assert abs(law._draw_rest(Words(0), 3)).min() > 9 * 2**20
    assert REACH > 9
    assert pytest.approx(3.8e-28, rel=0.01) == BEYOND_REACH
    # The cells of the rest next in line reach all tails: none between seven and the end lacks.
    far = law._cells[np.abs(law._cells * law._width) > 7 * 2**20]
    assert len(far) == len(np.unique(far))
    assert len(far) == 2 * (law._cells.max() + 1) - len(
        law._cells[np.abs(law._cells * law._width) <= 7 * 2**20]
    )


def test_a_uniform_number_of_the_rest_resolves_the_rarest_cell():
    """With 64 bits the cells beyond nine standard deviations would be one or none."""
    law = lattice_gaussian(2.0**20)
    smallest = law._cumulated[0] / law._cumulated[-1]
    assert smallest * 2.0**-38 > 2.0**-128
    at_ten = law._bounds[np.abs(law._cells * law._width) < 10 * law.std].min()
    assert at_ten / law._cumulated[-1] * 2.0**-44 > 2.0**-128
    assert np.diff(law._cumulated).min() > 0  # none is lost in the sum


def test_parts_that_were_requested_in_other_sizes_are_drawn_whole():
    law = lattice_gaussian(5000.0)
    for size in (0, 1, 7, 2**15 + 3):
        drawn = draw(law, size)
        assert drawn.shape == (size,)
        assert (np.abs(drawn) <= (REACH + 1) * 5000).all()


@pytest.mark.parametrize("std", [4095.0, 0.0, math.nan, math.inf, 2.0**45])
def test_a_standard_deviation_that_no_lattice_has_is_refused(std):
    with pytest.raises(ValueError, match="allowed is 4096 to"):
        LatticeGaussian(std)


def test_integers_are_wide_enough_for_the_noise():
    assert LatticeGaussian(2.0**27).dtype == np.int32
    assert LatticeGaussian(2.0**28).dtype == np.int64
    for std in (2.0**27, 2.0**28, 2.0**44):
        drawn = draw(LatticeGaussian(std), 100_000)
        assert stats.kstest(drawn / std, stats.norm.cdf).pvalue > FALSE_ALARM
