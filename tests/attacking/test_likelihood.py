"""Likelihoods of releases, beside what a loop over the law of the noise gives."""

import numpy as np
import pytest

from dpmi.attacking.likelihood import NoisedPixels, answered, shifted, truths
from dpmi.mechanisms.interview import interview
from dpmi.privacy.laplace import laplace_mechanism, pixel_noise
from dpmi.privacy.one_bit import Question, RandomizedResponse, Respondents
from dpmi.privacy.published import scalar_laplace
from dpmi.privacy.randomness import NoiseSource


def images(n, seed=0, least=0, most=256):
    rng = np.random.default_rng(seed)
    return rng.integers(least, most, (n, 30), np.uint8)


@pytest.mark.parametrize(("beta", "moves"), [(0.1, 255), (1, 255), (4, 255), (1, 16), (2, 64)])
def test_pixels_are_matched_by_the_law_that_is_executed(beta, moves):
    law = pixel_noise(beta, moves)
    candidates = images(12)
    candidates[0, :8], candidates[1, :8] = 0, 255  # the ends have laws of their own
    noise = NoiseSource(None).stream("laplace_train")
    released = laplace_mechanism(candidates, beta, noise, moves)
    released[2] = candidates[2]  # and so have equal values
    found = NoisedPixels(law, released)(candidates)
    table = np.log(np.array([law.chances(y) for y in range(256)], float))
    for row, y in zip(found, released, strict=True):
        brute = np.array([table[y, candidate].sum() for candidate in candidates])
        assert row - row[0] == pytest.approx(brute - brute[0], abs=1e-6)


def test_one_number_for_all_pixels_is_matched_by_all_numbers_that_explain_it():
    candidates = np.concatenate([images(6, 1, 60, 200), images(3, 2), images(3, 3, 100, 101)])
    candidates[6, :15], candidates[6, 15:] = 0, 255  # black and white alone
    released = np.concatenate([
        scalar_laplace(candidates[:, None, None], 1, NoiseSource(seed).stream("laplace_train"))
        for seed in range(4)
    ]).reshape(-1, 30)  # fmt: skip
    released = np.concatenate([released, candidates[6:7], np.full((1, 30), 7, np.uint8)])
    assert (released.max(1) == 0).any()
    assert (released.min(1) == 255).any()
    found = np.exp(shifted(released, candidates, 1.0))
    moves = np.arange(-256, 257)
    ends = np.concatenate([[-np.inf], moves[1:] - 0.5, [np.inf]])  # the last ones saturate all
    shares = np.diff(np.where(ends < 0, np.exp(ends / 255) / 2, 1 - np.exp(-ends / 255) / 2))
    for row, y in zip(found, released, strict=True):
        for chance, candidate in zip(row, candidates.astype(int), strict=True):
            explains = (np.clip(candidate + moves[:, None], 0, 255) == y).all(1)
            assert chance == pytest.approx(shares[explains].sum(), abs=1e-12)
    assert found.sum(1)[:-1].all()
    assert found[-1, :9].sum() == 0  # seven everywhere: of an image of one value alone


def people(n=80, classes=2):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 3)), rng.integers(0, classes, n)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_candidates_truth_is_what_it_would_say_to_that_question(classes):
    vectors, labels = people(80, classes)
    response = RandomizedResponse(1e-3)  # who never lies

    def ask(question):
        found = truths(question, vectors, labels)
        for candidate in range(0, 80, 20):
            many = len(question.rows)
            alike = np.repeat(vectors[[candidate]], many, 0), np.repeat(labels[candidate], many)
            respondents = Respondents(*alike, response, NoiseSource(None).stream("answer"))
            parts = question.centre, question.directions, question.codes, question.constant
            assert (respondents(Question(np.arange(many), *parts)) == found[:, candidate]).all()
        return found[np.arange(len(question.rows)), question.rows]

    interview(80, 3, classes, response.bias, ask)


def test_an_answer_is_a_candidates_truth_or_its_lie_by_the_odds_of_the_response():
    vectors, labels = people()
    found = answered(
        vectors, labels, 2, RandomizedResponse(1.0), NoiseSource(None).stream("answer")
    )
    truth = 1 / (1 + np.exp(-1))
    assert np.unique(np.exp(found)) == pytest.approx([1 - truth, truth])
    # Fewer than one run in 1000 has so few truths among 80, or so many.
    assert 42 <= (np.exp(found.diagonal()) > 0.5).sum() <= 75
