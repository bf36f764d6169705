"""Whose image a release is: nearly always where noise is small, by chance where it hides all."""

import dataclasses

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import binom

from dpmi.attacking import linkage
from dpmi.attacking.linkage import as_released, link, ranks, released_images, share
from dpmi.base.errors import UserError
from dpmi.mechanisms.ldp_release import noised, spread
from dpmi.privacy.randomness import NoiseSource
from dpmi.run.parts import prepared_data

pytestmark = pytest.mark.usefixtures("one_thread")

N = 60


@pytest.fixture(scope="module")
def linked(composed, tiny, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")

    def run(*words, queries=N):
        config = composed(*tiny, f"cache_dir={cache}", *words)
        return link(config, queries, 0, Console(quiet=True), lambda done, of: None)

    return run


@pytest.mark.parametrize("words", [
    ("mechanism=ldp", "beta=0.03", "mechanism.pool=1"), ("mechanism=ldp", "beta=0.5"),
    ("mechanism=ldp_published", "beta=0.02"),
])  # fmt: skip
def test_an_image_with_little_noise_is_always_found(linked, words):
    found = linked(*words)
    assert found.image.first.value == 1.0
    assert found.image.median == 1
    assert (found.image.queries, found.image.candidates) == (N, N)


@pytest.mark.parametrize("words", [
    ("mechanism=ldp", "beta=1e5", "mechanism.pool=1"), ("mechanism=ldp", "beta=1e5"),
    ("mechanism=ldp_published", "beta=1e5"),
])  # fmt: skip
def test_where_epsilon_is_nothing_an_image_is_found_by_chance(linked, words):
    """Queries are independent, but for the same images' noise: above in one of 1000 runs."""
    found = linked(*words)
    most = binom.ppf(0.9995, N, 1 / N)
    assert found.image.first.value * N <= most
    assert found.image.chance_first == pytest.approx(1 / N)
    assert found.image.chance_five == pytest.approx(5 / N)
    assert found.image.median > 12


def test_one_bit_finds_nobody_but_halves_the_crowd(head):
    config = head("mechanism=ldp_features", "beta=0.05", "model.features.project=3")
    found = link(config, N, 0, Console(quiet=True), lambda done, of: None)
    # Nobody lies at ε = 20; about half of all say the same as the truth, and lots decide.
    assert found.image.queries == N
    assert found.image.first.value * N <= binom.ppf(0.9995, N, 3 / N)
    assert found.image.median < 27


def test_what_is_matched_is_what_the_mechanism_lets_out(composed, tiny, tmp_path):
    config = composed(*tiny, "mechanism=ldp", f"cache_dir={tmp_path}")
    pixels = prepared_data(config).splits["train"].pixels[:1]
    means = released_images(config, pixels, NoiseSource(3))
    (seen,) = noised(pixels, config.beta, 4, NoiseSource(3), "laplace_train")
    assert means.shape == (1, 1, 8, 8)
    assert (spread(means, 4) == seen).all()


def test_no_release_that_training_uses_is_made_or_read(linked, composed, tiny, tmp_path):
    config = composed(*tiny, "mechanism=ldp", f"cache_dir={tmp_path}")
    link(config, 5, 0, Console(quiet=True), lambda done, of: None)
    assert {path.name for path in tmp_path.iterdir()}.isdisjoint({"releases", "accounts"})


def test_gray_images_are_looked_for_among_gray_ones(composed, tiny, tmp_path, monkeypatch):
    words = (*tiny, "data=phantom_fundus", "data.image_size=32", "data.train_images=40")
    config = composed(*words, "mechanism=ldp", "beta=0.5", f"cache_dir={tmp_path}")
    data = prepared_data(config)
    train = data.splits["train"]
    pixels = np.array(train.pixels)
    pixels[:10] = pixels[:10, :1]  # in three equal channels
    assert as_released(config, pixels[:10]).shape[1] == 1
    assert as_released(config, pixels[10:]).shape[1] == 3
    splits = data.splits | {"train": dataclasses.replace(train, pixels=pixels)}
    monkeypatch.setattr(
        linkage, "prepared_data", lambda _: dataclasses.replace(data, splits=splits)
    )
    found = link(config, len(pixels), 0, Console(quiet=True), lambda done, of: None)
    assert found.image.first.value == 1.0


def test_a_patients_other_images_are_ranked_without_the_image_itself():
    scores = np.array([[9.0, 8.0, 7.0, 6.0], [1.0, 5.0, 4.0, 3.0], [0.0, 1.0, 2.0, 3.0]])
    patients, contents = ("a", "b", "a", ""), ("0", "1", "2", "3")
    itself, (nearest, many) = ranks(
        scores, np.array([0, 2, 3]), patients, contents, np.random.default_rng(0)
    )
    assert itself.tolist() == [1, 2, 1]
    assert nearest.tolist() == [2, 3]  # of a: behind b; behind b and the nameless
    assert many.tolist() == [1, 1]


def test_a_copy_of_an_image_is_that_image_and_no_other_of_its_patient():
    scores, patients = np.array([[1.0, 2.0, 0.0, 1.5]]), ("a", "a", "a", "b")
    itself, (nearest, many) = ranks(
        scores, np.array([0]), patients, ("x", "x", "y", "z"), np.random.default_rng(0)
    )
    assert itself.tolist() == [2]  # behind b's alone
    assert (nearest.tolist(), many.tolist()) == ([2], [1])


def test_ties_are_broken_by_lot():
    rng = np.random.default_rng(0)
    itself, _ = ranks(np.zeros((4000, 4)), np.zeros(4000, int), ("",) * 4, tuple("abcd"), rng)
    counts = np.bincount(itself, minlength=5)[1:]
    assert (abs(counts - 1000) < 110).all()  # four standard deviations


def test_shares_have_the_intervals_of_clopper_and_pearson():
    none, every = share(0, 200), share(200, 200)
    assert (none.low, every.high) == (0, 1)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 200))


def test_a_beta_without_noise_is_refused_in_one_line(composed, tiny):
    with pytest.raises(UserError, match=r"beta=0\.01: .*; allowed is about 0\.4 to 1e7"):
        link(composed(*tiny, "mechanism=ldp", "beta=0.01"), 1, 0, Console(quiet=True), None)


def test_what_releases_no_image_is_sent_to_membership(composed, tiny):
    with pytest.raises(UserError, match=r"mechanism=none: .* attack it by membership"):
        link(composed(*tiny, "mechanism=none"), 1, 0, Console(quiet=True), lambda *_: None)
