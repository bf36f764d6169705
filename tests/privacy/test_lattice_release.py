"""What DP-SGD releases lies on a lattice, and moves by no more than the plan's sensitivity."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from dpmi.models.network import build_network
from dpmi.privacy.engines.bookkeeping import BookKeeping
from dpmi.privacy.gradients import PrivateGradient, lattice_step
from dpmi.privacy.lattice import BEYOND_REACH, COARSEST
from dpmi.privacy.ledger import Ledger
from dpmi.privacy.noise import GaussianNoise
from dpmi.privacy.plan import ROUNDING, PrivacyPlan
from dpmi.privacy.randomness import NoiseSource

BATCH = 8  # a power of two: dividing by it leaves a lattice
PLAN = PrivacyPlan(
    n=100, expected_batch_size=BATCH, max_grad_norm=0.5, noise_multiplier=1.5, steps=10, delta=1e-4,
    accountant="prv",
)  # fmt: skip
KEY = b"k" * 32

pytestmark = pytest.mark.usefixtures("one_thread")


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))


def batch(size, side=2):
    generator = torch.Generator().manual_seed(size)
    return torch.rand(size, 3, side, side, generator=generator), torch.arange(size) % 3


def made(net, plan=PLAN, first_step=0, attempt=0, **settings):
    return PrivateGradient(
        net,
        BookKeeping(net, plan.max_grad_norm, {}),
        plan=plan,
        noise=GaussianNoise(NoiseSource(None, KEY, attempt)),
        ledger=Ledger(),
        physical_batch_size=16,
        first_step=first_step,
        **settings,
    )


def released(net):
    return torch.cat([p.grad.flatten() for p in net.parameters()]).clone()


@pytest.mark.parametrize("size", [1, 100, 11_170_000, 10**9])
@pytest.mark.parametrize("noise_multiplier", [1e-6, 0.5, 30.0])
@pytest.mark.parametrize("bound", [1e-3, 0.7, 5.0])
def test_rounding_to_the_lattice_adds_at_most_half_of_the_allowance(size, noise_multiplier, bound):
    plan = dataclasses.replace(PLAN, max_grad_norm=bound, noise_multiplier=noise_multiplier)
    step = lattice_step(plan, size)
    assert step * math.sqrt(size) <= bound * ROUNDING / 2
    assert plan.noise_std / step >= COARSEST
    assert math.frexp(step)[0] == 0.5  # a power of two
    assert plan.sensitivity == bound * (1 + ROUNDING)
    assert plan.noise_std == noise_multiplier * plan.sensitivity


@pytest.mark.parametrize("size", [0, 1, 9])
def test_all_that_is_released_is_on_the_lattice(size):
    net = small()
    made(net)(*batch(size))
    step = lattice_step(PLAN, released(net).numel())
    steps = released(net).double() * BATCH / step
    assert torch.equal(steps, steps.round())


@pytest.mark.parametrize("index", [0, 3, 8])
def test_dropping_an_image_moves_a_release_by_at_most_the_plans_sensitivity(index):
    """The same noise is in both: what is left is the move of the rounded sum, one image's part."""
    net = build_network("resnet18", 3, "group", None)
    images, labels = batch(9, side=32)
    keep = [i for i in range(9) if i != index]
    whole = made(net)
    whole(images, labels)
    with_it = released(net).double()
    whole.close()
    made(net)(images[keep], labels[keep])
    moved = (with_it - released(net).double()).norm().item() * BATCH
    assert 0.9 * PLAN.max_grad_norm < moved <= PLAN.sensitivity


def test_a_step_is_released_to_the_bit_by_whoever_has_the_key():
    net = small()
    gradient, expected = made(net), []
    for size in (3, 0, 5):
        gradient(*batch(size))
        expected.append(released(net))
    assert not torch.equal(expected[0], expected[1])
    for step, size in ((2, 5), (0, 3), (1, 0)):  # in other processes, in any order
        other = small()
        made(other, first_step=step)(*batch(size))
        assert torch.equal(released(other), expected[step])
    other = small()
    made(other, attempt=1)(*batch(3))
    assert not torch.equal(released(other), expected[0])


def test_a_delta_below_what_the_noise_reaches_is_refused_in_one_line():
    size = sum(p.numel() for p in small().parameters())
    least = PLAN.steps * size * BEYOND_REACH
    made(small(), dataclasses.replace(PLAN, delta=least * 1.01))
    with pytest.raises(
        ValueError, match=rf"delta=.* 10 releases of {size} noise values"
    ) as refusal:
        made(small(), dataclasses.replace(PLAN, delta=least * 0.99))
    assert "\n" not in str(refusal.value)


def test_a_batch_too_large_for_single_precision_is_refused_in_one_line():
    plan = dataclasses.replace(PLAN, n=10**6, delta=1e-7)
    made(small(), dataclasses.replace(plan, expected_batch_size=8192))
    with pytest.raises(ValueError, match="a batch of 8193 images") as refusal:
        made(small(), dataclasses.replace(plan, expected_batch_size=8193))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("noise_multiplier", [1e-12, 1e12])
def test_noise_that_fits_no_lattice_is_refused_in_one_line(noise_multiplier):
    plan = dataclasses.replace(PLAN, noise_multiplier=noise_multiplier)
    with pytest.raises(ValueError, match=r"noise_multiplier=.* allowed is about") as refusal:
        made(small(), plan)
    assert "\n" not in str(refusal.value)


def test_sampling_and_noise_of_a_step_are_drawn_from_different_streams():
    source = NoiseSource(None, KEY)
    requested = []

    class Overheard(NoiseSource):
        def stream(self, purpose, step=0):
            requested.append((purpose, step))
            return super().stream(purpose, step)

    from dpmi.privacy.sampling import PoissonBatches

    overheard = Overheard(None, KEY)
    PoissonBatches(PLAN, 5, overheard).draw(3)
    GaussianNoise(overheard).fill(torch.empty(8), 1.0, 3)
    assert requested == [("sampling", 3), ("gradient", 3)]
    one, other = (source.stream(purpose, 3).words(64) for purpose, _ in requested)
    assert not set(one.tolist()) & set(other.tolist())
