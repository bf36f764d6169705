import math

import numpy as np
import pytest

from dpmi.mechanisms import LocalDPAsPublished, build_mechanism
from dpmi.privacy.randomness import NoiseSource


def released_by(data, beta=1.0, noise_seed=5):
    mechanism = LocalDPAsPublished(beta, NoiseSource(noise_seed))
    return mechanism, mechanism.release_data(data)


def test_only_training_images_are_noised_and_the_cache_stays_as_it_is(stripes):
    data = stripes()
    train, test = (data.splits[name].pixels.copy() for name in ("train", "test"))
    _, released = released_by(data)
    assert (released.splits["train"].pixels != train).any(axis=(1, 2, 3)).mean() > 0.9
    np.testing.assert_array_equal(released.splits["test"].pixels, test)
    np.testing.assert_array_equal(data.splits["train"].pixels, train)


def test_there_is_no_guarantee_and_the_claim_stands_beside_it_as_a_claim(stripes):
    mechanism, _ = released_by(stripes(), beta=2.0)
    promise = mechanism.guarantee()
    assert (promise.epsilon, promise.delta, promise.unit) == (None, None, None)
    assert "differences between pixels" in promise.reason
    assert (promise.claim.epsilon, promise.claim.unit) == (0.5, "image")
    line = str(promise)
    assert line.startswith("no privacy guarantee: ")
    assert "the poster's authors claimed ε = 0.5" in line
    assert "does not hold" in line


@pytest.mark.parametrize("beta", [1.0, 2.0, 4.0])
def test_what_it_says_of_blank_images_is_what_it_drew(stripes, beta):
    """Hoeffding: 3000 images are further off with probability 10^-6."""
    data = stripes(train=3000)
    data.splits["train"].labels[:2000] = 1
    mechanism, released = released_by(data, beta, noise_seed=7)
    found, pixels = mechanism.describe(), released.splits["train"].pixels.reshape(3000, -1)
    observed = np.mean([len(np.unique(image)) == 1 for image in pixels])
    assert (
        found["nonprivate/blank_share"] == observed
    )  # stripes have several values: blank is 0/255
    tolerance = math.sqrt(math.log(2 / 1e-6) / 6000)
    assert abs(found["nonprivate/expected_blank_share"] - observed) < tolerance
    assert found["least_blank_share"] == math.exp(-1 / beta)
    assert found["nonprivate/expected_blank_share"] > found["least_blank_share"]
    assert found["nonprivate/majority_share"] == pytest.approx(2500 / 3000)


def test_nothing_is_reported_before_the_release():
    assert LocalDPAsPublished(1.0, NoiseSource(None)).describe() == {}


def test_the_noise_comes_from_the_operating_system_unless_a_noise_seed_is_given(stripes):
    data = stripes()
    drawn, again = (released_by(data, noise_seed=None)[1].splits["train"].pixels for _ in range(2))
    assert not np.array_equal(drawn, again)
    drawn, again = (released_by(data, noise_seed=5)[1].splits["train"].pixels for _ in range(2))
    np.testing.assert_array_equal(drawn, again)


def test_a_config_builds_it(composed, stripes):
    mechanism = build_mechanism(composed("mechanism=ldp_published", "beta=4"), 64)
    assert isinstance(mechanism, LocalDPAsPublished)
    assert mechanism.guarantee().claim.epsilon == 0.25
    assert mechanism.train_batches() is None
