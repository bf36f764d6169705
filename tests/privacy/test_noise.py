import numpy as np
import pytest
import torch
from scipy import stats

from dpmi.base import devices
from dpmi.privacy import noise
from dpmi.privacy.lattice import lattice_gaussian
from dpmi.privacy.noise import GaussianNoise
from dpmi.privacy.randomness import NoiseSource

STD = 2.0**14 * 1.3  # in steps of the lattice
PARTS, PIECE = 4, 50_000


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Several pieces in what a test draws."""
    monkeypatch.setattr(noise, "PIECE", PIECE)


def draw(noise_seed, size=200_003, std=2.0, step=0):
    buffer = torch.empty(size)
    GaussianNoise(NoiseSource(noise_seed)).fill(buffer, std, step)
    return buffer.numpy()


def test_noise_is_gaussian_of_the_requested_scale_in_every_part():
    # False alarm 1e-6 for each of five tests, were the seed not fixed.
    values = draw(1)
    for part in (values, *np.array_split(values, PARTS)):
        assert stats.kstest(part, stats.norm(scale=2.0).cdf).pvalue > 1e-6


def test_parts_drawn_side_by_side_are_independent():
    parts = draw(1)[: PARTS * PIECE].reshape(PARTS, PIECE)  # each from a stream of its own
    correlations = np.corrcoef(parts)[np.triu_indices(PARTS, 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(PIECE)


def test_noise_is_the_same_whatever_the_number_of_threads():
    threads = torch.get_num_threads()
    drawn = []
    try:
        for number in (1, 2, 7):
            torch.set_num_threads(number)
            drawn.append(draw(7))
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(drawn[0], drawn[1])
    assert np.array_equal(drawn[0], drawn[2])


def test_noise_of_different_steps_is_independent():
    draws = np.stack([draw(1, size=20_000, step=step) for step in range(6)])
    correlations = np.corrcoef(draws)[np.triu_indices(6, 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(20_000)


def test_noise_comes_from_the_operating_system_unless_a_seed_is_given():
    assert not np.array_equal(draw(None), draw(None))
    assert np.array_equal(draw(3), draw(3))


def sums(size=120_001):
    """On all scales: from far below a step of the lattice to far above the noise."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(size, generator=generator) * 10 ** (
        torch.rand(size, generator=generator) * 12 - 4
    )


def released(of, unit=1.0):
    buffer = of.clone()
    GaussianNoise(NoiseSource(5)).release(buffer, lattice_gaussian(STD), unit, 3)
    return buffer


def test_a_release_is_the_rounded_sum_and_whole_noise_and_nothing_else():
    """In double precision, which holds both and their sum; so it is rounding after adding, too."""
    of = sums().double()
    noise = released(torch.zeros_like(of))
    assert torch.equal(noise, noise.round())
    assert torch.equal(released(of), of.round() + noise)
    between = noise + (torch.rand(of.shape, dtype=torch.float64) - 0.5) * 0.999  # rounds to noise
    assert torch.equal(released(of), (of.round() + between).round())


def test_all_that_is_released_is_on_the_lattice():
    """Also in single precision, whose rounding leaves multiples of a power of two such."""
    step = 2.0**-9
    for of in (sums(), sums() + 0.123):
        steps = released(of, unit=step).double() / step
        assert torch.equal(steps, steps.round())
    assert (sums() / step != (sums() / step).round()).any()


def test_what_is_below_half_a_step_leaves_no_trace():
    """Mironov 2012: low bits of a sum of floats tell what was added."""
    of = torch.arange(-5.0, 6.0).repeat(1000)
    offset = (torch.rand(of.shape) - 0.5) * 0.99
    assert torch.equal(released(of + offset), released(of))


def test_sums_on_another_device_are_released_as_on_the_cpu(monkeypatch):
    """By way of a tensor on the host, which no test needs a GPU to see."""
    of, expected = sums(), released(sums())

    class Elsewhere(torch.Tensor):
        @property
        def device(self):
            return torch.device("meta")

    moved = of.clone().as_subclass(Elsewhere)
    source = GaussianNoise(NoiseSource(5))
    source.release(moved, lattice_gaussian(STD), 1.0, 3)
    assert torch.equal(moved.as_subclass(torch.Tensor), expected)


def test_noise_drawn_ahead_is_that_of_its_step_and_added_to_no_other(monkeypatch):
    """Steps in order and out of it, one made again, another purpose and another size between."""
    monkeypatch.setattr(noise, "_ADDED_AT_ONCE", 7001)
    steps = [(3, "gradient"), (4, "gradient"), (9, "gradient"), (9, "gradient"), (10, "statistic")]
    law, sizes = lattice_gaussian(STD), (120_001, 120_001, 120_001, 120_001, 500)

    def releases():
        source, made = GaussianNoise(NoiseSource(5)), []
        for (step, purpose), size in zip(steps, sizes, strict=True):
            made.append(sums()[:size].clone())
            source.release(made[-1], law, 0.5, step, purpose)
        return made

    there = releases()
    monkeypatch.setattr(devices, "on_host", lambda tensor: False)
    assert all(torch.equal(a, b) for a, b in zip(releases(), there, strict=True))


def test_what_is_not_finite_stays_so():
    of = sums()
    of[7], of[8] = torch.nan, torch.inf
    assert released(of)[7].isnan()
    assert released(of)[8].isinf()
