import math

import numpy as np
import pytest

from dpmi.privacy.published import (
    blank,
    expected_blank_share,
    predicted_train_accuracy,
    scalar_laplace,
)
from dpmi.privacy.randomness import NoiseSource

BETAS = (0.5, 1.0, 2.0, 4.0)


def images(n, seed=0):
    """Of all brightness and contrast: from lo to hi, each drawn, with both ends in the image."""
    rng = np.random.default_rng(seed)
    ends = np.sort(rng.integers(0, 256, (n, 2)), axis=1)
    pixels = rng.integers(ends[:, :1], ends[:, 1:] + 1, (n, 9))
    pixels[:, :2] = ends
    return pixels.reshape(n, 1, 3, 3).astype(np.uint8)


def full_range(n):
    """The hardest to blank: from black to white."""
    return np.tile(np.linspace(0, 255, 9).round().astype(np.uint8), (n, 1)).reshape(n, 1, 3, 3)


def test_the_difference_of_two_pixels_that_were_not_saturated_stays_in_clear():
    clean = images(2000)
    noised = scalar_laplace(clean, 0.5, NoiseSource(1).stream("laplace_train"))
    shift = noised.astype(int) - clean
    kept = (noised > 0) & (noised < 255)
    lowest = np.where(kept, shift, 999).min(axis=(1, 2, 3))
    highest = np.where(kept, shift, -999).max(axis=(1, 2, 3))
    several = kept.sum(axis=(1, 2, 3)) > 1
    assert several.sum() > 300
    np.testing.assert_array_equal(lowest[several], highest[several])  # one number for all pixels


def test_what_is_added_to_an_image_has_the_laplace_distribution():
    """Kolmogorov-Smirnov at a false alarm in 10^6, on a small scale that saturates nothing."""
    n, beta = 20_000, 0.02
    clean = np.full((n, 1, 2, 2), 128, np.uint8)
    noised = scalar_laplace(clean, beta, NoiseSource(2).stream("laplace_train"))
    shift = np.sort(noised[:, 0, 0, 0].astype(float) - 128)
    scale = 255 * beta

    def below(x):  # the distribution function
        return np.where(x < 0, np.exp(-np.abs(x) / scale) / 2, 1 - np.exp(-np.abs(x) / scale) / 2)

    values = np.arange(-60, 61)
    observed = np.searchsorted(shift, values, side="right") / n
    expected = below(values + 0.5)  # rounding: at most v means below v + 1/2
    assert np.abs(observed - expected).max() < math.sqrt(math.log(2 / 1e-6) / (2 * n))


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("make", [images, full_range])
def test_the_expected_share_of_blank_images_is_the_observed(make, beta):
    """Hoeffding: a share of n independent images is off by more with probability 10^-6."""
    n = 40_000
    clean = make(n)
    noised = scalar_laplace(clean, beta, NoiseSource(3).stream("laplace_train"))
    tolerance = math.sqrt(math.log(2 / 1e-6) / (2 * n))
    assert abs(blank(noised).mean() - expected_blank_share(clean, beta)) < tolerance


@pytest.mark.parametrize("beta", BETAS)
def test_the_share_of_blank_images_is_at_least_exp_of_minus_epsilon(beta):
    least = math.exp(-1 / beta)
    hardest = expected_blank_share(full_range(10), beta)
    assert least < hardest < least * 1.01  # but for half a step of rounding
    assert expected_blank_share(images(1000), beta) > hardest


def test_an_image_of_one_value_is_expected_to_be_blank_as_often_as_it_saturates():
    """By hand: 100 goes black below -99.5, white above 154.5."""
    clean = np.full((1, 1, 4, 4), 100, np.uint8)
    by_hand = (math.exp(-99.5 / 510) + math.exp(-154.5 / 510)) / 2
    assert expected_blank_share(clean, 2.0) == pytest.approx(by_hand, rel=1e-12)
    black = np.zeros((1, 1, 4, 4), np.uint8)  # stays black unless the number is above 1/2
    by_hand = 1 - math.exp(-0.5 / 510) / 2 + math.exp(-254.5 / 510) / 2
    assert expected_blank_share(black, 2.0) == pytest.approx(by_hand, rel=1e-12)


def test_blank_is_wholly_black_or_wholly_white():
    pixels = np.zeros((4, 1, 2, 2), np.uint8)
    pixels[1], pixels[2], pixels[3, 0, 0, 0] = 255, 100, 1
    assert blank(pixels).tolist() == [True, True, False, False]


def test_noise_on_other_than_8_bit_values_is_refused():
    with pytest.raises(TypeError, match="uint8"):
        scalar_laplace(
            np.zeros((1, 1, 2, 2), np.float32), 1.0, NoiseSource(0).stream("laplace_train")
        )


@pytest.mark.parametrize(("beta", "train"), [(1, 0.8924), (2, 0.8366), (4, 0.7860)])
def test_the_posters_ldp_train_accuracy_of_pneumonia_is_predicted_within_two_points(beta, train):
    """The prediction of what the poster measured, from its original and the majority class."""
    predicted = predicted_train_accuracy(math.exp(-1 / beta), 3875 / 5216, 0.9976)
    assert abs(predicted - train) < 0.02
