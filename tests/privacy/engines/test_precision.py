"""Autocast to bfloat16, memory formats and compilation change rounding, and no promise."""

from functools import cache

import pytest
import torch
from small_network import SMALL
from torch import nn

from dpmi.mechanisms.frozen_norm import FrozenBatchNormRule, frozen_batch_norm_grad_sampler
from dpmi.models.network import build_network
from dpmi.models.norms import FrozenStatisticsBatchNorm
from dpmi.privacy.engines import convolution
from dpmi.privacy.engines.bookkeeping import BookKeeping
from dpmi.privacy.engines.convolution import ConvolutionRule
from dpmi.privacy.engines.linear import LinearRule
from dpmi.privacy.engines.norms import GroupNormRule
from dpmi.privacy.engines.opacus_hooks import OpacusHooks

pytestmark = pytest.mark.usefixtures("one_thread")

CLIP = 0.5
FAST = (BookKeeping, {FrozenStatisticsBatchNorm: FrozenBatchNormRule()})
ENGINES = {
    "fast": FAST,
    "opacus": (OpacusHooks, {FrozenStatisticsBatchNorm: frozen_batch_norm_grad_sampler}),
}


def autocast(on=True):
    return torch.autocast("cpu", torch.bfloat16, enabled=on)


@cache
def pretrained(name):
    torch.manual_seed(0)
    return build_network(name, 3, "batch", None).net.state_dict()


def resnet(norm, name="resnet18"):
    return build_network(name, 3, norm, pretrained(name))


def batch(size, side=32):
    generator = torch.Generator().manual_seed(size)
    return torch.rand(size, 1, side, side, generator=generator), torch.arange(size) % 3


def clipped_sum(net, images, labels, engine=FAST, clip=CLIP, bfloat16=False):
    """Flat clipped sum of one piece."""
    kind, layers = engine
    sums = {p: torch.zeros(p.shape) for p in net.parameters() if p.requires_grad}
    clipping = kind(net, clip, layers)
    with autocast(bfloat16):
        logits = clipping.add_clipped_sum(images, labels, sums, 1.0)
    clipping.close()
    assert logits.dtype == torch.float32
    return torch.cat([s.flatten() for s in sums.values()]).double()


def naive(net, images, labels, bfloat16):
    """The definition: plain training's own gradient of each example, clipped, added in double."""
    total = 0
    for image, label in zip(images, labels, strict=True):
        with autocast(bfloat16):
            logits = net(image[None])
        loss = nn.functional.cross_entropy(logits.float(), label[None])
        grads = torch.autograd.grad(loss, list(net.parameters()))
        flat = torch.cat([g.flatten() for g in grads]).double()
        total = total + flat * min(1.0, CLIP / flat.norm().item())
    return total


def error(a, b):
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("norm", ["group", "frozen_batch"])
def test_under_bfloat16_clipped_sums_err_no_more_than_plain_training_does(engine, norm):
    net, (images, labels) = resnet(norm), batch(5)
    exact = naive(net, images, labels, bfloat16=False)
    plain = error(naive(net, images, labels, bfloat16=True), exact)
    assert plain > 1e-3  # bfloat16 was at work
    private = error(clipped_sum(net, images, labels, ENGINES[engine], bfloat16=True), exact)
    assert 1e-3 < private < 1.25 * plain


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("norm", ["group", "frozen_batch"])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_under_bfloat16_no_example_contributes_more_than_the_clip_norm(engine, norm, scale):
    net = resnet(norm, SMALL)
    with torch.no_grad():
        net.net.fc.weight.mul_(scale)
    images, labels = batch(4)
    norms = [
        clipped_sum(net, one, label, ENGINES[engine], bfloat16=True).norm().item()
        for one, label in zip(images.split(1), labels.split(1), strict=True)
    ]
    assert 0.99 * CLIP < max(norms) <= CLIP * (1 + 1e-6)


LAYERS = {
    "convolution by gram": (ConvolutionRule(), nn.Conv2d(16, 24, 3, padding=1), (16, 7, 7), True),
    "convolution by rows": (ConvolutionRule(), nn.Conv2d(16, 24, 3, padding=1), (16, 7, 7), False),
    "group norm": (GroupNormRule(), nn.GroupNorm(4, 16), (16, 7, 7), True),
    "linear": (LinearRule(), nn.Linear(50, 20), (50,), True),
    "frozen batch norm": (
        FrozenBatchNormRule(),
        FrozenStatisticsBatchNorm(nn.BatchNorm2d(16)),
        (16, 7, 7),
        True,
    ),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_a_sum_over_many_examples_is_not_rounded_to_bfloat16(layer, monkeypatch):
    """Rounded to 8 bits, a sum of 64 examples would hide, or double, what one of them adds."""
    rule, module, shape, by_gram = LAYERS[layer]
    monkeypatch.setattr(convolution, "gram_is_cheaper", lambda *_: by_gram)
    torch.manual_seed(0)
    x, factors = torch.randn(64, *shape, requires_grad=True), torch.rand(64)
    with autocast(), torch.no_grad():
        y, saved = rule.forward(module, x)
    upstream = torch.randn(y.shape).to(y.dtype)

    def weighted_sum(chosen):
        # What a rule saved first has an axis of examples; statistics of GroupNorm are in order.
        mine = [s.view(64, -1)[chosen].reshape(-1, *s.shape[1:]) for s in saved]
        with torch.no_grad():
            _, contribution = rule.backward(module, tuple(mine), upstream[chosen], True, 1)
            sums = {p: torch.zeros(p.shape) for p in module.parameters()}
            contribution.add_weighted_sum(factors[chosen], None, sums)
        assert contribution.squared_norms.dtype == torch.float32
        flat = torch.cat([s.flatten() for s in sums.values()]).double()
        return flat, contribution.squared_norms.double()

    if layer == "group norm":
        saved = (saved[0], saved[1].view(64, -1), saved[2].view(64, -1))
    together, squares = weighted_sum(slice(0, 64))
    apart = [weighted_sum(slice(i, i + 1)) for i in range(64)]
    assert error(together, sum(flat for flat, _ in apart)) < 1e-5
    for (flat, square), factor in zip(apart, factors.double(), strict=True):
        assert flat.norm() <= factor * square.sqrt() * (1 + 1e-5)
    torch.testing.assert_close(squares, torch.cat([s for _, s in apart]), rtol=1e-4, atol=0)


@pytest.mark.parametrize("norm", ["group", "frozen_batch"])
def test_channels_last_gives_the_same_sums(norm):
    images, labels = batch(5)
    plain = clipped_sum(resnet(norm), images, labels)
    net = resnet(norm).to(memory_format=torch.channels_last)
    assert error(clipped_sum(net, images, labels), plain) < 1e-5
