import numpy as np
import pytest
import torch
from scipy import stats

from dpmi.privacy.noise import GaussianNoise
from dpmi.privacy.randomness import CPU_GENERATORS, NoiseSource


def draw(noise_seed, size=200_003, std=2.0, step=0):
    buffer = torch.empty(size)
    GaussianNoise(NoiseSource(noise_seed)).fill(buffer, std, step)
    return buffer.numpy()


def test_noise_is_gaussian_of_the_scale_asked_for_in_every_part():
    # False alarm 1e-6 for each of five tests, were the seed not fixed.
    values = draw(1)
    for part in (values, *np.array_split(values, CPU_GENERATORS)):
        assert stats.kstest(part, stats.norm(scale=2.0).cdf).pvalue > 1e-6


def test_parts_drawn_side_by_side_are_independent():
    parts = [p[:50_000] for p in np.array_split(draw(1), CPU_GENERATORS)]
    correlations = np.corrcoef(parts)[np.triu_indices(CPU_GENERATORS, 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(50_000)


def test_a_noise_seed_repeats_the_noise_whatever_the_number_of_threads():
    threads = torch.get_num_threads()
    one = draw(7)
    try:
        torch.set_num_threads(1)
        two = draw(7)
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(one, two)


@pytest.mark.parametrize("purpose", ["gradient", "sampling"])
def test_noise_does_not_repeat_without_a_seed_nor_between_its_uses(purpose):
    first, second = (NoiseSource(None).torch(purpose, 0)[0] for _ in range(2))
    other = NoiseSource(3).torch("gradient", 0)[0], NoiseSource(3).torch("sampling", 0)[0]
    for a, b in ((first, second), other):
        assert not torch.equal(torch.randn(8, generator=a), torch.randn(8, generator=b))


def test_a_generators_whole_state_is_secret_not_only_32_bits_of_it():
    """torch seeds its CPU generator with 32 bits, which an attacker could try one by one."""
    weak = [torch.Generator().manual_seed(5 + high * 2**32) for high in (0, 1)]
    assert torch.equal(torch.rand(4, generator=weak[0]), torch.rand(4, generator=weak[1]))
    # Ours: state words that no 32-bit seed gives, all different, from 128 bits of entropy.
    state = NoiseSource(5).torch("gradient", 0)[0].get_state().numpy()
    words = state[24 : 24 + 8 * 624].view(np.uint64)
    assert words.max() < 2**32
    assert len(np.unique(words)) > 620
    reseeded = torch.Generator().manual_seed(int(words[0])).get_state().numpy()
    assert not np.array_equal(reseeded[24 : 24 + 8 * 624].view(np.uint64), words)
    # What follows from the words: the generator's own recurrence, as NumPy computes it.
    twister = np.random.MT19937()
    twister.state = {
        "bit_generator": "MT19937",
        "state": {"key": words.astype(np.uint32), "pos": 624},
    }
    raw = twister.random_raw(8).astype(np.uint64)
    drawn = torch.rand(8, generator=NoiseSource(5).torch("gradient", 0)[0]).numpy()
    assert np.allclose(drawn, (raw & np.uint64(2**24 - 1)) / 2**24)


def test_noise_of_a_step_is_that_of_its_key_alone_and_differs_between_steps_and_attempts():
    key = NoiseSource(None).key
    assert key.bit_length() > 100
    again = NoiseSource(None, key)
    for step in (5, 0):  # in any order, by another process
        first = torch.rand(4, generator=NoiseSource(None, key).torch("gradient", step)[0])
        assert torch.equal(first, torch.rand(4, generator=again.torch("gradient", step)[0]))
    draws = [
        torch.rand(4, generator=NoiseSource(None, key, attempt).torch("gradient", step)[0])
        for attempt in range(3)
        for step in range(40)
    ]
    assert len({tuple(draw.tolist()) for draw in draws}) == len(draws)


def test_noise_of_different_steps_is_independent():
    draws = np.stack([draw(1, size=20_000, step=step) for step in range(6)])
    correlations = np.corrcoef(draws)[np.triu_indices(6, 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(20_000)


def test_local_dps_noise_is_the_same_in_every_attempt():
    """Its images are released once: a second draw would be a second release."""
    first, second = (NoiseSource(7, attempt=a).numpy("laplace_train").random(4) for a in (0, 3))
    assert np.array_equal(first, second)
