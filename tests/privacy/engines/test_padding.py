"""What fills a piece of a batch up adds exactly nothing."""

import pytest
import torch
from torch import nn

from dpmi.mechanisms.layers import RULES, SAMPLERS
from dpmi.privacy.engines import padding
from dpmi.privacy.engines.bookkeeping import BookKeeping
from dpmi.privacy.engines.opacus_hooks import OpacusHooks
from dpmi.privacy.gradients import PrivateGradient
from dpmi.privacy.ledger import Ledger
from dpmi.privacy.noise import GaussianNoise
from dpmi.privacy.plan import PrivacyPlan
from dpmi.privacy.randomness import NoiseSource

pytestmark = pytest.mark.usefixtures("one_thread")

CLIP = 0.5
ENGINES = {"fast": (BookKeeping, RULES), "opacus": (OpacusHooks, SAMPLERS)}


@pytest.fixture(params=ENGINES)
def engine(request):
    return request.param


def small_net():
    """Convolutions summed in both ways, norms, and a linear layer."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2), nn.GroupNorm(4, 8), nn.ReLU(),
        nn.Conv2d(8, 64, 3, stride=4), nn.GroupNorm(4, 64), nn.ReLU(),
        nn.Flatten(), nn.Linear(64 * 4 * 4, 3),
    )  # fmt: skip


def batch(size, *views):
    generator = torch.Generator().manual_seed(size)
    return torch.rand(size, *views, 1, 32, 32, generator=generator), torch.arange(size) % 3


@pytest.mark.parametrize("most", [1, 2, 5, 16, 100, 128, 8192])
def test_pieces_of_any_number_of_images_have_a_few_sizes(most):
    sizes = [padding.size(images, most) for images in range(1, most + 1)]
    assert all(images <= size <= most for images, size in enumerate(sizes, start=1))
    assert len(set(sizes)) <= padding.MOST_SIZES
    assert all(size - images < -(-most // 16) for images, size in enumerate(sizes, start=1))


@pytest.mark.parametrize("views", [(), (2,)], ids=str)
@pytest.mark.parametrize("fill", [0.0, 7.0, 1e30, float("nan")])
def test_whatever_fills_a_piece_adds_exactly_nothing(engine, fill, views):
    """To the bit: beside zeros, beside numbers that have no gradient, and alone."""

    def added(value, images):
        net = small_net()
        kind, layers = ENGINES[engine]
        clipping = kind(net, CLIP, layers)
        sums = {p: torch.zeros(p.shape) for p in net.parameters()}
        filled, labels = batch(8, *views)
        filled[images:] = value
        clipping.add_clipped_sum(filled, labels, sums, 1.0, images)
        clipping.close()
        assert int(clipping.dropped) == 0
        return torch.cat([s.flatten() for s in sums.values()])

    assert torch.equal(added(fill, 5), added(0.0, 5))
    assert torch.count_nonzero(added(fill, 0)) == 0
    assert torch.count_nonzero(added(fill, 5)) > 0


@pytest.mark.parametrize("size", [0, 1, 9, 21])
@pytest.mark.parametrize("views", [(), (2,)], ids=str)
@pytest.mark.parametrize("poison", [False, True])
def test_a_release_of_pieces_filled_up_is_that_of_the_batch_that_was_drawn(
    engine, size, views, poison
):
    """Sums to single precision; logits, what is dropped, and the ledger exactly."""
    images, labels = batch(size, *views)
    if poison and size:
        images[0] = torch.nan
    made = {}
    for pads in (False, True):
        net = small_net()
        kind, layers = ENGINES[engine]
        plan = PrivacyPlan(
            n=100, expected_batch_size=8, max_grad_norm=CLIP, noise_multiplier=1e-9, steps=10,
            delta=1e-4, accountant="prv",
        )  # fmt: skip
        ledger = Ledger()
        gradient = PrivateGradient(
            net, kind(net, CLIP, layers), plan=plan, noise=GaussianNoise(NoiseSource(0)),
            ledger=ledger, physical_batch_size=20, pads=pads,
        )  # fmt: skip
        logits = gradient(images, labels)
        flat = torch.cat([p.grad.flatten() for p in net.parameters()])
        made[pads] = flat, logits, gradient.dropped, ledger.to_dict()
    (plain, logits, *facts), (filled, its_logits, *its_facts) = made[False], made[True]
    assert (filled - plain).norm() <= 1e-6 * max(plain.norm().item(), CLIP / 8)
    assert its_logits.shape == logits.shape
    torch.testing.assert_close(its_logits, logits, equal_nan=True)
    assert its_facts == facts
    assert facts[0] == int(poison and size > 0)
