import numpy as np
import pytest
from scipy import stats

from dpmi.privacy.laplace import laplace_mechanism, laplace_noise, pixel_epsilon

FALSE_ALARM = 1e-6  # of each statistical test below, were its seed not fixed


@pytest.mark.parametrize("beta", [0.5, 1.0, 4.0])
def test_noise_has_the_laplace_distribution(beta):
    noise = laplace_noise((200_000,), beta, np.random.default_rng(7))
    assert stats.kstest(noise, stats.laplace(scale=beta).cdf).pvalue > FALSE_ALARM


def test_noise_is_independent_between_the_pixels_and_the_images():
    noise = laplace_noise((400, 16, 16), 1.0, np.random.default_rng(8))
    # One scalar an image, the mistake to guard against, would give a correlation of 1.
    next_pixel = stats.pearsonr(noise[:, :, :-1].ravel(), noise[:, :, 1:].ravel())
    next_image = stats.pearsonr(noise[:-1].ravel(), noise[1:].ravel())
    assert next_pixel.pvalue > FALSE_ALARM
    assert next_image.pvalue > FALSE_ALARM


@pytest.mark.parametrize("beta", [0.5, 1.0, 4.0])
def test_released_pixels_keep_the_distribution_up_to_clipping_and_rounding(beta):
    value = 100
    pixels = np.full((200, 1, 32, 32), value, np.uint8)
    released = laplace_mechanism(pixels, beta, np.random.default_rng(9)).ravel()
    # P(output <= k) = F(((k + 1/2) - value) / 255) for every k below 255: rounding at halves.
    law = stats.laplace(scale=beta)
    edges = (np.arange(255) + 0.5 - value) / 255
    expected = np.diff(np.concatenate([[0.0], law.cdf(edges), [1.0]])) * released.size
    counts = np.bincount(released, minlength=256)
    assert stats.chisquare(counts, expected).pvalue > FALSE_ALARM


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_no_output_tells_two_pixels_apart_by_more_than_exp_epsilon(beta):
    # The extreme neighbours 0 and 255, and the exact law of the released 8-bit value.
    law, edges = stats.laplace(scale=beta), np.arange(255) + 0.5
    probabilities = [
        np.diff(np.concatenate([[0.0], law.cdf((edges - value) / 255), [1.0]]))
        for value in (0, 255)
    ]
    ratio = np.abs(np.log(probabilities[0] / probabilities[1])).max()
    assert ratio <= pixel_epsilon(beta) * (1 + 1e-9)


def test_large_noise_leaves_the_range_of_a_pixel_alone():
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    released = laplace_mechanism(pixels, 1e6, np.random.default_rng(1))
    assert released.dtype == np.uint8
    assert set(np.unique(released)) == {0, 255}


def test_the_pieces_of_a_large_array_get_different_noise(monkeypatch):
    monkeypatch.setattr("dpmi.privacy.laplace._VALUES_AT_ONCE", 64)
    released = laplace_mechanism(np.full((6, 1, 8, 8), 128, np.uint8), 0.2, np.random.default_rng())
    assert len({image.tobytes() for image in released}) == 6


@pytest.mark.parametrize("beta", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_no_scale_is_refused(beta):
    with pytest.raises(ValueError, match="beta"):
        laplace_mechanism(np.zeros((1, 1, 2, 2), np.uint8), beta, np.random.default_rng())


def test_pixels_that_are_not_8_bit_are_refused():
    with pytest.raises(TypeError, match="uint8"):
        laplace_mechanism(np.zeros((1, 1, 2, 2), np.float32), 1.0, np.random.default_rng())


def test_how_many_threads_draw_changes_nothing(monkeypatch):
    monkeypatch.setattr("dpmi.privacy.laplace._VALUES_AT_ONCE", 256)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 1, 16, 16), np.uint8)
    released = []
    for threads in (1, 7):
        monkeypatch.setattr("os.cpu_count", lambda threads=threads: threads)
        released.append(laplace_mechanism(pixels, 0.3, np.random.default_rng(4)))
    assert np.array_equal(*released)


def test_a_second_release_from_the_same_generator_has_noise_of_its_own():
    pixels, rng = np.full((4, 1, 16, 16), 128, np.uint8), np.random.default_rng(4)
    first, second = (laplace_mechanism(pixels, 0.2, rng) for _ in range(2))
    assert (first != second).mean() > 0.5
