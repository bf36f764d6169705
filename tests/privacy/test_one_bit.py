"""One bit of an image: its ε, exactly, and what can be computed from many of them."""

from decimal import Decimal

import numpy as np
import pytest

from dpmi.mechanisms.interview import random_directions
from dpmi.privacy.one_bit import Question, RandomizedResponse, Respondents, mean_side
from dpmi.privacy.randomness import NoiseSource

BETAS = (0.1, 0.5, 1.0, 2.0, 4.0, 100.0)


class Words:
    """A stream of given words."""

    def __init__(self, words):
        self._words = words

    def words(self, size):
        return np.array(self._words[:size], np.uint64)


@pytest.mark.parametrize("beta", BETAS)
def test_no_answer_tells_two_images_apart_by_more_than_exp_epsilon(beta):
    """Exactly, of the whole numbers of 2^-64 that are drawn with: either answer, either truth."""
    response = RandomizedResponse(beta)
    assert 0 < response.lies < 2**63
    yes = {truth: 2**64 - response.lies if truth else response.lies for truth in (True, False)}
    for likely, other in ((yes[True], yes[False]), (2**64 - yes[False], 2**64 - yes[True])):
        ratio = Decimal(likely) / Decimal(other)
        assert ratio.ln() <= Decimal(1) / Decimal(beta)
    assert float(response.epsilon()) == pytest.approx(1 / beta, rel=1e-12)


def test_an_image_lies_for_just_the_words_below_the_number_of_lies():
    response = RandomizedResponse(1.0)
    words = [0, response.lies - 1, response.lies, 2**64 - 1]
    for truth in (True, False):
        answers = response.say(np.full(4, truth), Words(words))
        assert (answers != truth).tolist() == [True, True, False, False]


def test_images_lie_independently_as_often_as_they_should():
    """False alarm 1e-6 for each of the two: six standard deviations, and more."""
    response, n = RandomizedResponse(2.0), 200_000
    lies = response.say(np.zeros(n, np.bool_), NoiseSource(7).stream("answer"))
    p = response.lies / 2**64
    assert abs(lies.mean() - p) < 5 * (p * (1 - p) / n) ** 0.5
    assert abs(np.mean(lies[1:] & lies[:-1]) - p * p) < 8 * (p * p / n) ** 0.5


@pytest.mark.parametrize("beta", [0.0, -1.0, float("nan"), float("inf"), 1e30])
def test_a_beta_that_cannot_be_answered_with_is_refused(beta):
    with pytest.raises(ValueError, match=r"^beta=.*(must be positive and finite|allowed is up to)"):
        RandomizedResponse(beta)


def respondents(vectors, labels=None, beta=0.02):
    labels = np.zeros(len(vectors), np.int64) if labels is None else labels
    return Respondents(vectors, labels, RandomizedResponse(beta), NoiseSource(1).stream("answer"))


def test_an_image_answers_once():
    rng = np.random.default_rng(0)
    ask = respondents(rng.standard_normal((6, 3)))

    def question(*rows):
        return Question(np.array(rows), np.zeros(3), random_directions(rng, len(rows), 3))

    ask(question(0, 1, 2))
    for rows in ((3, 1), (4, 4)):
        with pytest.raises(ValueError, match="one question, and one of these was asked before"):
            ask(question(*rows))
    ask(question(3, 4, 5))


@pytest.mark.parametrize("dimensions", [1, 2, 4, 18])
def test_answers_times_their_directions_are_an_unbiased_estimate_of_the_vector(dimensions):
    """False alarm under 1e-5: five standard deviations of the mean, in each coordinate."""
    rng, n, beta = np.random.default_rng(dimensions), 100_000, 1.0
    u = random_directions(rng, 1, dimensions)[0]
    directions = random_directions(rng, n, dimensions)
    ask = respondents(np.tile(3 * u, (n, 1)), beta=beta)
    answers = np.where(ask(Question(np.arange(n), np.zeros(dimensions), directions)), 1.0, -1.0)
    scale = RandomizedResponse(beta).bias * mean_side(dimensions)
    estimate = answers @ directions / (n * scale)
    assert np.abs(estimate - u).max() < 5 / (scale * (n * dimensions) ** 0.5)


def test_with_codes_an_image_answers_for_its_vector_times_the_code_of_its_class():
    rng, n = np.random.default_rng(3), 400
    vectors, labels = rng.standard_normal((n, 2)), rng.integers(0, 3, n)
    codes, centre = rng.standard_normal((3, 2)), np.array([0.2, -0.1])
    directions = random_directions(rng, n, 2, 3)
    answers = respondents(vectors, labels)(Question(np.arange(n), centre, directions, codes, 0.5))
    for i in range(n):
        z = (vectors[i] - centre) / np.linalg.norm(vectors[i] - centre)
        question = np.outer(codes[labels[i]], [*z, 0.5])
        assert answers[i] == ((question * directions[i]).sum() >= 0)  # at ε = 50 nobody lies
