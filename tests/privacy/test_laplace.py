from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from dpmi.privacy.laplace import PixelNoise, laplace_mechanism, mean_moves, pixel_epsilon, pooled
from dpmi.privacy.randomness import NoiseSource, SecretStream

FALSE_ALARM = 1e-6  # of each statistical test below, were its key not fixed
BETAS = (0.5, 1.0, 2.0, 4.0)


def stream(seed):
    return NoiseSource(seed).stream("laplace_train")


def claimed(beta, value):
    """P(released) of a value: Laplace(β) on v/255, clipped, rounded at halves to 8 bits."""
    law, edges = stats.laplace(scale=beta), (np.arange(255) + 0.5 - value) / 255
    low = law.cdf(edges)
    return np.diff(np.concatenate([[0.0], low, [1.0]]))


@pytest.mark.parametrize("beta", [0.05, *BETAS, 100.0])
@pytest.mark.parametrize("value", [0, 1, 100, 255])
def test_the_law_that_is_executed_is_that_of_rounded_and_clipped_laplace_noise(beta, value):
    law = PixelNoise(beta)
    executed = [Fraction(law.chances(released)[value], 2**64) for released in range(256)]
    assert sum(executed) == 1
    # Off by a unit of 2^-64 at most; what double precision says of it is off by more.
    assert np.abs(np.array([float(p) for p in executed]) - claimed(beta, value)).max() < 1e-15


@pytest.mark.parametrize("beta", [0.025, 0.05, *BETAS, 100.0, 1e6])
def test_no_output_tells_two_values_apart_by_more_than_exp_epsilon(beta):
    """Exactly: of the whole numbers that are drawn with, over all values and outputs."""
    law = PixelNoise(beta)
    ratio = max(Fraction(max(odds), min(odds)) for odds in map(law.chances, range(256)))
    executed = (Decimal(ratio.numerator) / Decimal(ratio.denominator)).ln()
    assert executed <= 1 / Decimal(beta)
    assert float(executed) == pytest.approx(pixel_epsilon(beta), rel=2e-3)  # and nothing is wasted
    assert float(law.epsilon()) == pytest.approx(float(executed), rel=1e-15)


@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_one_pixel_moves_one_mean_by_no_more_than_the_noise_is_made_for(side):
    rng = np.random.default_rng(side)
    pixels = rng.integers(0, 256, (40, 1, 48, 48), dtype=np.uint8)
    before, changed = pooled(pixels, side).astype(int), pixels.copy()
    rows, columns = rng.integers(0, 48, (2, 40))
    changed[np.arange(40), 0, rows, columns] = np.where(rng.random(40) < 0.5, 0, 255)
    moved = np.abs(pooled(changed, side) - before)
    assert ((moved > 0).sum((1, 2, 3)) <= 1).all()
    assert moved.max() <= mean_moves(side)
    ends = np.zeros((2, 1, side, side), np.uint8)  # the most: from black to white
    ends[:, 0, :, 0] = 255  # some half of the sum is rounded up
    ends[:, 0, 0, side - 1] = (0, 255)
    assert 0 <= np.ptp(pooled(ends, side).astype(int)) <= mean_moves(side)
    np.testing.assert_allclose(
        before[:, 0, 1, 0], pixels[:, 0, side : 2 * side, :side].mean((1, 2)), atol=0.5
    )


@pytest.mark.parametrize("beta", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("moves", [16, 64])
def test_no_output_tells_two_means_apart_by_more_than_exp_epsilon(beta, moves):
    """Means that one pixel makes differ; and those that all of a block does."""
    law = PixelNoise(beta, moves)
    for apart, epsilon in ((moves, 1 / beta), (255, 255 / moves / beta)):
        worst = max(
            Fraction(odds[v], odds[w])
            for odds in map(law.chances, range(0, 256, 5))
            for v in range(0, 256 - apart)
            for w in {v + 1, v + apart}
            for v, w in ((v, w), (w, v))
        )
        executed = (Decimal(worst.numerator) / Decimal(worst.denominator)).ln()
        assert executed <= Decimal(255 if apart == 255 else moves) / (moves * Decimal(beta))
        assert float(executed) == pytest.approx(epsilon, rel=5e-3)


def test_means_have_the_noise_of_their_own_scale():
    means = np.full((200, 1, 16, 16), 100, np.uint8)
    released = laplace_mechanism(means, 1.0, stream(9), mean_moves(4)).ravel()
    counts = np.bincount(released, minlength=256)
    law = claimed(16 / 255, 100) * released.size
    used = law > 5
    assert (
        stats.chisquare([*counts[used], counts[~used].sum()], [*law[used], law[~used].sum()]).pvalue
        > FALSE_ALARM
    )


@pytest.mark.parametrize("beta", [0.001, 0.02, 1e9])
def test_a_scale_whose_epsilon_64_bits_do_not_execute_is_refused_in_one_line(beta):
    with pytest.raises(ValueError, match=r"beta=.* allowed is about 0\.025") as refusal:
        laplace_mechanism(np.zeros((1, 1, 2, 2), np.uint8), beta, stream(0))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("beta", [0.05, *BETAS])
def test_what_is_drawn_has_the_law(beta):
    law = PixelNoise(beta)
    drawn = law.draw(stream(7), 1_000_000)
    counts = np.bincount(drawn + 255, minlength=511)
    expected = np.array([float(w / 2**64) for w in law.weights]) * drawn.size
    rare = expected < 20  # put together, on either side
    bins = np.where(rare & (np.arange(511) < 255), 0, np.arange(511))
    bins = np.where(rare & (np.arange(511) > 255), 510, bins)
    counts, expected = (np.bincount(bins, of, minlength=511) for of in (counts, expected))
    used = expected > 0
    assert used.sum() > 30
    assert stats.chisquare(counts[used], expected[used]).pvalue > FALSE_ALARM


class Words(SecretStream):
    """The words that are given: their first 16 bits, and then the others."""

    def __init__(self, words):
        self.given = np.array(words, np.uint64)

    def fill(self, array):
        array[:] = self.given >> np.uint64(48)

    def words(self, count):
        undecided = self.given[self.undecided]
        return undecided << np.uint64(16)


@pytest.mark.parametrize("beta", [0.03, 1.0, 4.0])
def test_a_word_gives_the_value_whose_interval_it_lies_in_to_its_last_bit(beta):
    """At both ends of all intervals: the table of 16 bits and the search agree with a sum."""
    law = PixelNoise(beta)
    ends = np.cumsum(np.array(law.weights, object))
    words = sorted({int(w) for end in ends for w in (end - 1, end) if 0 <= w < 2**64} | {0})
    expected = [int(np.searchsorted(ends, w, side="right")) - 255 for w in words]
    given = Words(words)
    buckets = (given.given >> np.uint64(48)).astype(np.int64)
    given.undecided = law._guide[buckets] == -1000
    np.testing.assert_array_equal(law.draw(given, len(words)), expected)
    assert 0 < given.undecided.sum() <= len(words)


def test_noise_is_independent_between_the_pixels_and_the_images():
    released = laplace_mechanism(np.full((400, 1, 16, 16), 128, np.uint8), 0.2, stream(8))
    noise = released[:, 0].astype(float)
    # One scalar an image, the mistake to guard against, would give a correlation of 1.
    next_pixel = stats.pearsonr(noise[:, :, :-1].ravel(), noise[:, :, 1:].ravel())
    next_image = stats.pearsonr(noise[:-1].ravel(), noise[1:].ravel())
    assert next_pixel.pvalue > FALSE_ALARM
    assert next_image.pvalue > FALSE_ALARM


@pytest.mark.parametrize("beta", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("value", [0, 100])
def test_released_pixels_keep_the_distribution_up_to_clipping_and_rounding(beta, value):
    pixels = np.full((200, 1, 32, 32), value, np.uint8)
    released = laplace_mechanism(pixels, beta, stream(9)).ravel()
    counts = np.bincount(released, minlength=256)
    assert stats.chisquare(counts, claimed(beta, value) * released.size).pvalue > FALSE_ALARM


def test_large_noise_leaves_the_range_of_a_pixel_alone():
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    released = laplace_mechanism(pixels, 1e6, stream(1))
    assert released.dtype == np.uint8
    assert set(np.unique(released)) == {0, 255}


def test_the_pieces_of_a_large_array_get_different_noise(monkeypatch):
    monkeypatch.setattr("dpmi.privacy.laplace._VALUES_AT_ONCE", 64)
    released = laplace_mechanism(np.full((6, 1, 8, 8), 128, np.uint8), 0.2, stream(None))
    assert len({image.tobytes() for image in released}) == 6


@pytest.mark.parametrize("beta", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_no_scale_is_refused(beta):
    with pytest.raises(ValueError, match="beta"):
        laplace_mechanism(np.zeros((1, 1, 2, 2), np.uint8), beta, stream(0))


def test_pixels_that_are_not_8_bit_are_refused():
    with pytest.raises(TypeError, match="uint8"):
        laplace_mechanism(np.zeros((1, 1, 2, 2), np.float32), 1.0, stream(0))


def test_how_many_threads_draw_changes_nothing(monkeypatch):
    monkeypatch.setattr("dpmi.privacy.laplace._VALUES_AT_ONCE", 256)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 1, 16, 16), np.uint8)
    released = []
    for threads in (1, 7):
        monkeypatch.setattr("os.cpu_count", lambda threads=threads: threads)
        released.append(laplace_mechanism(pixels, 0.3, stream(4)))
    assert np.array_equal(*released)


def test_a_second_release_from_the_same_stream_has_noise_of_its_own():
    pixels, own = np.full((4, 1, 16, 16), 128, np.uint8), stream(4)
    first, second = (laplace_mechanism(pixels, 0.2, own) for _ in range(2))
    assert (first != second).mean() > 0.5


def test_no_image_gets_no_noise():
    assert laplace_mechanism(np.empty((0, 1, 4, 4), np.uint8), 1.0, stream(4)).shape == (0, 1, 4, 4)
