"""What only a GPU can show: its kernels' arithmetic, and that a step does not wait for it."""

import pytest
import torch
from torch import nn

from dpmi.models.network import build_network
from dpmi.privacy.engines import tensor_cores
from dpmi.privacy.engines.bookkeeping import BookKeeping
from dpmi.privacy.engines.convolution import GramContribution
from dpmi.privacy.gradients import PrivateGradient
from dpmi.privacy.lattice import lattice_gaussian
from dpmi.privacy.ledger import Ledger
from dpmi.privacy.noise import GaussianNoise
from dpmi.privacy.plan import ROUNDING, PrivacyPlan
from dpmi.privacy.randomness import NoiseSource

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no GPU here: what its kernels compute is not tested"
)

CLIP = 0.5


def net():
    torch.manual_seed(0)
    start = build_network("resnet18", 3, "batch", None).net.state_dict()
    return build_network("resnet18", 3, "group", start).cuda()


def batch(size, side=64):
    generator = torch.Generator().manual_seed(size)
    images = torch.rand(size, 1, side, side, generator=generator)
    return images.cuda(), (torch.arange(size) % 3).cuda()


def clipped_sum(network, images, labels):
    engine = BookKeeping(network, CLIP, {})
    sums = {p: torch.zeros_like(p) for p in network.parameters()}
    with torch.autocast("cuda", torch.bfloat16):
        engine.add_clipped_sum(images, labels, sums, 1.0)
    engine.close()
    return torch.cat([s.flatten() for s in sums.values()]).double()


def test_where_positions_cancel_an_example_moves_the_sum_by_no_more_than_c():
    """By the kernels themselves, whose products are exact: against float64."""
    layer = nn.Conv2d(64, 64, 1, bias=False).cuda()
    x = torch.ones(4, 64, 8, 8, device="cuda").bfloat16()
    half = torch.randn(4, 64, 4, 8, device="cuda")
    grad_output = torch.cat([half, -half * (1 + 2.0**-6 * torch.rand_like(half))], 2).bfloat16()
    contribution = GramContribution(layer, x, grad_output, None, 1)
    assert contribution.rounding is not None
    factors = (CLIP / (contribution.squared_norms.sqrt() + contribution.rounding)).clamp(max=1)
    for row in range(4):
        alone = torch.zeros_like(factors)
        alone[row] = factors[row]
        sums = {layer.weight: torch.zeros_like(layer.weight)}
        contribution.add_weighted_sum(alone, None, sums)
        w = tensor_cores.rounded(grad_output.float() * alone.view(-1, 1, 1, 1)).double()
        exact = nn.grad.conv2d_weight(x.double(), layer.weight.shape, w)
        assert sums[layer.weight].double().norm() <= CLIP * (1 + ROUNDING / 2)
        assert (sums[layer.weight] - exact).norm() <= ROUNDING / 2 * CLIP


@pytest.mark.parametrize("size", [2, 64, 256])
def test_leaving_an_image_out_moves_the_sum_by_no_more_than_the_plan_allows(size):
    """Additions on tensor cores included, which cut off: all gradients in nearly one direction."""
    network, (images, labels) = net(), batch(size)
    images = images[:1] + 1e-3 * (images - images[:1])
    labels = torch.zeros_like(labels)
    whole = clipped_sum(network, images, labels)
    without = clipped_sum(network, images[1:], labels[1:])
    assert (whole - without).norm() <= CLIP * (1 + ROUNDING / 2)


def test_a_step_does_not_wait_for_the_device():
    network = net()
    plan = PrivacyPlan(
        n=1000, expected_batch_size=16, max_grad_norm=CLIP, noise_multiplier=1.0, steps=20,
        delta=1e-5, accountant="prv",
    )  # fmt: skip
    gradient = PrivateGradient(
        network, BookKeeping(network, CLIP, {}), plan=plan, noise=GaussianNoise(NoiseSource(0)),
        ledger=Ledger(), physical_batch_size=16, pads=True,
    )  # fmt: skip
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    batches = [batch(size) for size in (16, 9, 21, 13)]
    for number, (images, labels) in enumerate(batches * 2):
        torch.cuda.set_sync_debug_mode("error" if number >= len(batches) else "default")
        try:
            with torch.autocast("cuda", torch.bfloat16):
                gradient(images, labels)
            optimizer.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert all(p.isfinite().all() for p in network.parameters())


def test_a_release_on_a_gpu_is_that_on_the_cpu_to_the_bit():
    sums = torch.randn(300_001) * 10 ** (torch.rand(300_001) * 12 - 4)
    there = sums.cuda()
    law = lattice_gaussian(2.0**14 * 1.3)
    for step in (3, 4, 9):  # as drawn ahead, and not
        here, moved = sums.clone(), there.clone()
        GaussianNoise(NoiseSource(5)).release(here, law, 2.0**-9, step)
        noise = GaussianNoise(NoiseSource(5))
        noise.release(there.clone(), law, 2.0**-9, step - 1)
        noise.release(moved, law, 2.0**-9, step)
        assert torch.equal(moved.cpu(), here)
