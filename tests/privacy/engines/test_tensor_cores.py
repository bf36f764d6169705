"""On tensor cores an example moves the sum by no more than C: here with their arithmetic, on a CPU.

What a kernel is given there it leaves as it is: its products are exact, so float32 kernels compute
the same but for the order of additions. What adds otherwise is simulated.
"""

import numpy as np
import pytest
import torch
from torch import nn

from dpmi.models.network import build_network
from dpmi.privacy.engines import convolution, linear, tensor_cores
from dpmi.privacy.engines.bookkeeping import BookKeeping
from dpmi.privacy.engines.convolution import GramContribution, gram_squared_norms
from dpmi.privacy.engines.linear import LinearContribution

pytestmark = pytest.mark.usefixtures("one_thread")

CLIP = 0.5


@pytest.fixture(autouse=True)
def tensor_cores_here(monkeypatch):
    """Whoever asks whether there are tensor cores is answered as on a GPU."""

    def suit(x, grad_output):
        return x.dtype == grad_output.dtype == torch.bfloat16

    monkeypatch.setattr(tensor_cores, "suit", suit)


def cut_off(w):
    """As some kernels do: what is below 11 bits is dropped."""
    return (w.view(torch.int32) & ~0x1FFF).view(torch.float32)


def numbers(size=100_000):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(size, generator=generator) * 2.0 ** torch.randint(
        -90, 90, (size,), generator=generator
    )


def test_what_is_rounded_is_the_nearest_of_11_bits_and_no_kernel_changes_it():
    w = numbers()
    rounded = tensor_cores.rounded(w)
    mantissa, exponent = np.frexp(w.double().numpy())
    nearest = np.ldexp(np.floor(np.abs(mantissa) * 2**11 + 0.5) * 2.0**-11, exponent)
    assert np.array_equal(rounded.double().numpy(), np.copysign(nearest, mantissa))
    assert torch.equal(cut_off(rounded), rounded)
    assert torch.equal(tensor_cores.rounded(rounded), rounded)
    assert ((rounded - w).double().abs() <= w.double().abs() * 2.0**-11).all()


def test_bfloat16_is_exact_and_so_is_its_power_of_two():
    w = numbers().bfloat16().float()
    for scale in (1.0, 2.0**20):
        assert torch.equal(tensor_cores.rounded(w * scale), w * scale)


def cancelling(positions, channels, seed=0):
    """Vectors of which each is nearly the opposite of another: little is left of their sum."""
    generator = torch.Generator().manual_seed(seed)
    half = torch.randn(positions // 2, channels, generator=generator)
    left = 1 + 2.0**-6 * torch.rand(positions // 2, channels, generator=generator)
    return torch.cat([half, -half * left]).bfloat16()


def of_convolution():
    """(contribution, x, grad_output) of a 1x1 convolution whose patches are all alike."""
    layer = nn.Conv2d(8, 24, 1, bias=False)
    x = torch.full((3, 8, 8, 8), 1.0).bfloat16()
    rows = torch.stack([cancelling(64, 24, seed) for seed in range(3)])  # (B, T, C')
    grad_output = rows.transpose(1, 2).reshape(3, 24, 8, 8)
    return layer, x, grad_output, GramContribution(layer, x, grad_output, None, 1)


def of_linear():
    layer = nn.Linear(8, 24, bias=False)
    x = torch.full((3, 64, 8), 1.0).bfloat16()
    grad_output = torch.stack([cancelling(64, 24, seed) for seed in range(3)])
    return layer, x, grad_output, LinearContribution(layer, x, grad_output)


@pytest.mark.parametrize("layer", [of_convolution, of_linear])
def test_where_positions_cancel_an_example_moves_the_sum_by_no_more_than_c(layer):
    """Against float64; and the bound is needed: without it, these examples move it by more."""
    module, x, grad_output, contribution = layer()
    x64 = x.double().reshape(3, 8, 64).transpose(1, 2) if x.ndim == 4 else x.double()
    flat = grad_output.reshape(3, 24, 64).transpose(1, 2) if x.ndim == 4 else grad_output
    norms = torch.bmm(flat.double().transpose(1, 2), x64).flatten(1).norm(dim=1)

    def moved(factors, kernel):
        """(B,) by how much each example moves the sum that ``kernel`` multiplies for."""
        w = kernel(flat.float() * factors.float()[:, None, None]).double()
        return torch.bmm(w.transpose(1, 2), x64).flatten(1).norm(dim=1)

    upper = contribution.squared_norms.sqrt() + contribution.rounding
    factors = (CLIP / upper).clamp(max=1.0)
    for kernel in (tensor_cores.rounded, lambda w: cut_off(tensor_cores.rounded(w))):
        assert (moved(factors, kernel) <= CLIP).all()
    for kernel in (tensor_cores.rounded, cut_off):
        assert (moved(CLIP / norms, kernel) > CLIP * (1 + tensor_cores.UNIT)).any()

    # What the layer adds is just that.
    for row in range(3):
        sums = {module.weight: torch.zeros(module.weight.shape)}
        alone = torch.zeros(3)
        alone[row] = factors[row]
        contribution.add_weighted_sum(alone, None, sums)
        added = sums[module.weight].double().norm()
        torch.testing.assert_close(added, moved(factors, tensor_cores.rounded)[row], rtol=1e-5,
                                   atol=0)  # fmt: skip
        assert added <= CLIP


def test_the_bound_of_what_is_rounded_holds_for_convolutions_of_any_shape():
    """e, computed in float64, is within UNIT s of every example, in groups and in views."""
    torch.manual_seed(0)
    for settings in ({}, {"stride": 2}, {"dilation": 2}, {"groups": 4}, {"padding": 0}):
        layer = nn.Conv2d(16, 24, 3, **({"padding": 1, "bias": False} | settings))
        x = torch.randn(4, 16, 9, 9).bfloat16()
        grad_output = torch.randn(layer(x.float()).shape).bfloat16()
        for views in (1, 2):
            contribution = GramContribution(layer, x, grad_output, None, views)
            factors = torch.rand(4 // views) + 0.1
            of_views = factors.repeat_interleave(views).view(-1, 1, 1, 1)
            exact = grad_output.double() * of_views.double()
            error = tensor_cores.rounded(grad_output.float() * of_views).double() - exact
            for example in range(4 // views):
                its = slice(example * views, (example + 1) * views)
                e = nn.grad.conv2d_weight(
                    x[its].double(), layer.weight.shape, error[its], layer.stride, layer.padding,
                    layer.dilation, layer.groups,
                )  # fmt: skip
                bound = contribution.rounding[example] * factors[example]
                assert 0 < e.norm() <= bound
                worst = nn.grad.conv2d_weight(  # all of them up, by as much as may be
                    x[its].double().abs(), layer.weight.shape, exact[its].abs() * 2.0**-11,
                    layer.stride, layer.padding, layer.dilation, layer.groups,
                )  # fmt: skip
                assert worst.norm() <= bound


def serial(a, b):
    """Inner products (T, T') of rows, one product after the other, each sum cut to 24 bits."""
    total = np.zeros((len(a), len(b)))
    for u, v in zip(a.T, b.T, strict=True):
        total = total + np.outer(u, v)
        bits = total.astype(np.float32)
        over = np.abs(bits.astype(np.float64)) > np.abs(total)
        total = np.where(over, np.nextafter(bits, np.float32(0)), bits).astype(np.float64)
    return total


def test_a_norm_whose_products_are_added_in_the_worst_way_is_within_the_measuring_error():
    layer = nn.Conv2d(256, 256, 1, bias=False)
    generator = torch.Generator().manual_seed(0)
    x = 1 + torch.rand(1, 256, 4, 4, generator=generator)  # of one sign
    x[:, 0] = 64.0  # from here on each sum loses bits
    x = x.bfloat16()
    grad_output = cancelling(16, 256).t().reshape(1, 256, 4, 4)
    a, b = (m.double().flatten(2)[0].T.numpy() for m in (x, grad_output))
    exact = (a @ a.T * (b @ b.T)).sum()
    inner = serial(a, a)
    lengths = np.linalg.norm(a, axis=1)
    off = np.abs(inner - a @ a.T) / (256 * 2.0**-23 * np.outer(lengths, lengths))
    assert 0.1 < off.max() <= 1  # of the bound of an inner product: nearly the worst
    measured = (inner * serial(b, b)).sum()
    s = convolution._uncancelled(layer, x, grad_output, 1)
    error = tensor_cores.measuring_error(512, s).item()
    assert 0 < abs(measured - exact) <= error
    within = gram_squared_norms(layer, x, grad_output, 1).double().item()
    assert abs(within - exact) <= error


def test_a_network_whose_positions_cancel_is_clipped_to_c():
    """By the engine, with the rounding and the norms of tensor cores."""
    layer = nn.Conv2d(8, 24, 1, bias=False)
    readout = nn.Linear(24 * 64, 2, bias=False)
    pattern = cancelling(64, 24).float().t().flatten()
    with torch.no_grad():
        readout.weight.copy_(torch.stack([pattern, -pattern]))
    readout.weight.requires_grad_(False)
    net = nn.Sequential(layer, nn.Flatten(), readout)
    generator = torch.Generator().manual_seed(0)
    engine, norms = BookKeeping(net, CLIP, {}), []
    for _ in range(16):
        with torch.no_grad():
            layer.weight.copy_(0.1 * torch.randn(layer.weight.shape, generator=generator))
        image = 1 + torch.rand(1, 8, 1, 1, generator=generator).expand(1, 8, 8, 8)
        sums = {layer.weight: torch.zeros(layer.weight.shape)}
        with torch.autocast("cpu", torch.bfloat16):
            engine.add_clipped_sum(image, torch.zeros(1, dtype=torch.long), sums, 2.0**20)
        norms.append(sums[layer.weight].double().norm().item() / 2.0**20)
    engine.close()
    assert 0.5 * CLIP < max(norms) <= CLIP


@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("by_gram", [True, False])
def test_no_example_of_a_network_contributes_more_than_the_clip_norm(scale, by_gram, monkeypatch):
    if by_gram:  # all layers, the stem too
        monkeypatch.setattr(convolution, "gram_is_cheaper", lambda *_: True)
        monkeypatch.setattr(linear, "grams_are_better", lambda *_: True)
    torch.manual_seed(0)
    start = build_network("resnet18", 3, "batch", None).net.state_dict()
    net = build_network("resnet18", 3, "group", start)
    with torch.no_grad():
        net.net.fc.weight.mul_(scale)
    images = torch.rand(4, 1, 32, 32)
    engine = BookKeeping(net, CLIP, {})
    norms = []
    for image, label in zip(images.split(1), torch.arange(4).split(1), strict=True):
        sums = {p: torch.zeros(p.shape) for p in net.parameters()}
        with torch.autocast("cpu", torch.bfloat16):
            engine.add_clipped_sum(image, label % 3, sums, 1.0)
        norms.append(torch.cat([s.flatten() for s in sums.values()]).double().norm().item())
    engine.close()
    assert 0.99 * CLIP < max(norms) <= CLIP


def test_float32_is_summed_without_tensor_cores():
    layer = nn.Conv2d(16, 24, 3, padding=1, bias=False)
    x, grad_output = torch.randn(2, 16, 7, 7), torch.randn(2, 24, 7, 7)
    assert GramContribution(layer, x, grad_output, None, 1).rounding is None
    assert LinearContribution(nn.Linear(16, 24), x.flatten(2).mT, grad_output.flatten(2).mT
                              ).rounding is None  # fmt: skip
