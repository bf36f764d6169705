import numpy as np
import pytest
from scipy import stats

from dpmi.privacy.plan import PrivacyPlan
from dpmi.privacy.randomness import NoiseSource
from dpmi.privacy.sampling import PoissonBatches

FALSE_ALARM = 1e-6  # of each statistical test below, were its seed not fixed


def plan(n, expected_batch_size, steps=1):
    return PrivacyPlan(
        n=n, expected_batch_size=expected_batch_size, max_grad_norm=1.0, noise_multiplier=1.0,
        steps=steps, delta=1e-6, accountant="prv",
    )  # fmt: skip


def test_each_image_is_included_at_the_plans_rate_independently():
    the_plan, passes = plan(200, 30), 5000
    batches = PoissonBatches(the_plan, passes, NoiseSource(3))
    member = np.zeros((passes, the_plan.n), bool)
    for step, row in enumerate(member):
        row[batches.draw(step)] = True
    by_image = member.sum(0)
    expected = passes * the_plan.sample_rate
    variance = expected * (1 - the_plan.sample_rate)
    # Rate of each image (sum of 200 squared z-scores), and batch sizes of a binomial law.
    z = (by_image - expected) / np.sqrt(variance)
    assert stats.chi2.sf((z**2).sum(), the_plan.n) > FALSE_ALARM
    law = stats.binom(the_plan.n, the_plan.sample_rate)
    sizes = member.sum(1)
    edges = law.ppf([0.1, 0.25, 0.5, 0.75, 0.9])
    counts = np.histogram(sizes, [-1, *(edges + 0.5), the_plan.n + 1])[0]
    probabilities = np.diff([0.0, *law.cdf(edges), 1.0])
    assert stats.chisquare(counts, probabilities * passes).pvalue > FALSE_ALARM
    together = (member[:, 0] & member[:, 1]).sum()
    assert stats.binomtest(int(together), passes, the_plan.sample_rate**2).pvalue > FALSE_ALARM


def test_empty_batches_are_batches():
    batches = PoissonBatches(plan(10, 1), 200, NoiseSource(0))
    assert [] in [batches.draw(step) for step in range(200)]


def test_a_batch_is_that_of_its_step_and_key_whatever_was_drawn_before():
    batches, others = (PoissonBatches(plan(100, 10), 5, NoiseSource(seed)) for seed in (0, 1))
    first = [batches.draw(step) for step in range(12)]
    assert [batches.draw(step) for step in reversed(range(12))] == first[::-1]
    assert len({tuple(batch) for batch in first}) == 12
    assert first != [others.draw(step) for step in range(12)]


class Words:
    """A stream whose words are given."""

    def __init__(self, *words):
        self.given = np.array(words, np.uint64)

    def stream(self, purpose, step):
        assert purpose == "sampling"
        return self

    def words(self, count):
        return self.given


@pytest.mark.parametrize(("n", "size"), [(5, 2), (5, 5), (7, 1), (3, 3)])
def test_an_image_is_drawn_with_its_probability_to_the_last_of_64_bits(n, size):
    """By integers: the word before floor(q 2^64) is in, that one and all after it are out."""
    bound = size * 2**64 // n
    edges = [0, bound - 1, min(bound, 2**64 - 1), 2**64 - 1]
    words = [*edges, *[2**64 - 1] * (n - 4)][:n]
    drawn = PoissonBatches(plan(n, size), 1, Words(*words)).draw(0)
    assert drawn == [i for i, word in enumerate(words) if word < bound]


def test_a_guarantee_states_where_its_randomness_came_from():
    assert "256 bits from the operating system" in NoiseSource(None).assumption
