"""An image that is given in several views contributes their mean gradient, clipped once."""

import copy
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_network import SMALL
from test_bookkeeping import Head, convolutions
from torch import nn

from dpmi.mechanisms.frozen_norm import FrozenBatchNormRule, frozen_batch_norm_grad_sampler
from dpmi.models.network import build_network
from dpmi.models.norms import FrozenStatisticsBatchNorm
from dpmi.privacy.engines import convolution
from dpmi.privacy.engines.bookkeeping import BookKeeping
from dpmi.privacy.engines.opacus_hooks import OpacusHooks

pytestmark = pytest.mark.usefixtures("one_thread")

CLIP = 0.5
ENGINES = {
    "fast": (BookKeeping, {FrozenStatisticsBatchNorm: FrozenBatchNormRule()}),
    "opacus": (OpacusHooks, {FrozenStatisticsBatchNorm: frozen_batch_norm_grad_sampler}),
}


def reference(net, images, labels):
    """Of (B, K, C, H, W) views, an example at a time, by autograd alone, in double: the definition.

    Returns:
        The clipped sum, flat, and the norms of the images' gradients.
    """
    exact = copy.deepcopy(net).double()
    total, norms = torch.zeros(()), []
    for views, label in zip(images.double(), labels, strict=True):
        of_views = label if label.ndim else label.expand(len(views))
        loss = nn.functional.cross_entropy(exact(views), of_views)
        grads = torch.autograd.grad(loss, [p for p in exact.parameters() if p.requires_grad])
        flat = torch.cat([g.flatten() for g in grads])
        norms.append(flat.norm().item())
        total = total + flat * min(1.0, CLIP / norms[-1])
    return total, norms


def clipped_sum(engine, net, images, labels, bfloat16=False):
    """Flat sum of one piece, and how many images were dropped."""
    kind, layers = ENGINES[engine]
    sums = {p: torch.zeros(p.shape) for p in net.parameters() if p.requires_grad}
    clipping = kind(net, CLIP, layers)
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        logits = clipping.add_clipped_sum(images, labels, sums, 1.0)
    clipping.close()
    assert len(logits) == len(images.flatten(0, -4))
    return torch.cat([s.flatten() for s in sums.values()]).double(), clipping.dropped


def error(a, b):
    return ((a - b).norm() / b.norm()).item()


@cache
def first(norm, name):
    torch.manual_seed(0)
    return build_network(name, 3, norm, build_network(name, 3, "batch", None).net.state_dict())


def resnet(norm, name=SMALL):
    """One of its own for who asks, always with the same weights."""
    return copy.deepcopy(first(norm, name))


@cache
def expected_of(name, norm, drawn, count):
    """The definition, of three images or patients of that many views: the same for each engine."""
    return reference(resnet(norm, name), *drawn(3, count, 48))


def batch(images, views, side=32):
    generator = torch.Generator().manual_seed(views)
    drawn = torch.rand(images, views, 1, side, side, generator=generator)
    return drawn, torch.arange(images) % 3


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("norm", ["group", "frozen_batch"])
@pytest.mark.parametrize("views", [1, 2, 4])
def test_clipped_sums_of_views_equal_a_naive_loop_over_images(engine, norm, views):
    net, (images, labels) = resnet(norm), batch(3, views, 48)
    expected, norms = expected_of(SMALL, norm, batch, views)
    assert max(norms) > CLIP  # the clipping has something to do
    assert error(clipped_sum(engine, net, images, labels)[0], expected) < 1e-5


@pytest.mark.parametrize("by_gram", [True, False], ids=["gram", "rows"])
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    shape=convolutions(),
    height=st.integers(9, 13),
    width=st.integers(12, 15),
    images=st.integers(1, 3),
    views=st.integers(2, 4),
    seed=st.integers(0, 99),
)
def test_any_convolutions_clipped_sum_over_views_equals_a_loop_over_images(
    by_gram, shape, height, width, images, views, seed
):
    torch.manual_seed(seed)
    net = Head(nn.Conv2d(**shape), nn.Tanh(), nn.Conv2d(shape["out_channels"], 3, 1))
    drawn = torch.randn(images, views, shape["in_channels"], height, width)
    labels = torch.arange(images) % 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolution, "gram_is_cheaper", lambda *_: by_gram)
        found, _ = clipped_sum("fast", net, drawn, labels)
    expected, _ = reference(net, drawn, labels)
    assert (found - expected).norm() <= 1e-5 * expected.norm() + 1e-9


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("norm", ["group", "frozen_batch"])
@pytest.mark.parametrize("views", [2, 4])
def test_no_image_contributes_more_than_the_clip_norm_in_however_many_views(
    engine, bfloat16, norm, views
):
    net = resnet(norm)
    with torch.no_grad():
        net.net.fc.weight.mul_(1e4)
    images, labels = batch(3, views)
    norms = [
        clipped_sum(engine, net, one, label, bfloat16)[0].norm().item()
        for one, label in zip(images.split(1), labels.split(1), strict=True)
    ]
    assert 0.99 * CLIP < max(norms) <= CLIP * (1 + 1e-6)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e38])
def test_an_image_with_one_view_that_is_not_finite_contributes_nothing(engine, poison):
    net, (images, labels) = resnet("group"), batch(3, 2)
    bad = images.clone()
    bad[1, 1] = poison
    found, dropped = clipped_sum(engine, net, bad, labels)
    keep = [0, 2]
    assert dropped == 1
    assert error(found, reference(net, images[keep], labels[keep])[0]) < 1e-5


@pytest.mark.parametrize("engine", ENGINES)
def test_equal_views_of_an_image_contribute_what_one_of_them_does(engine):
    net, (images, labels) = resnet("group"), batch(3, 1)
    one, _ = clipped_sum(engine, net, images[:, 0], labels)
    assert error(clipped_sum(engine, net, images.expand(-1, 4, -1, -1, -1), labels)[0], one) < 1e-5


def test_frozen_parameters_neither_count_nor_get_a_gradient_from_any_view():
    torch.manual_seed(0)
    net = Head(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Conv2d(4, 3, 3))
    net.layers[0].weight.requires_grad_(False)  # its bias still trains
    net.layers[1].bias.requires_grad_(False)
    images, labels = torch.randn(4, 3, 2, 8, 8), torch.arange(4) % 3
    expected, _ = reference(net, images, labels)
    assert error(clipped_sum("fast", net, images, labels)[0], expected) < 1e-5


def patients(people, images_each, side=32):
    """Patients with several images each, whose labels differ."""
    images, _ = batch(people, images_each, side)
    return images, torch.arange(people * images_each).view(people, images_each) % 3


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("norm", ["group", "frozen_batch"])
def test_clipped_sums_of_patients_equal_a_naive_loop_over_patients(engine, norm):
    net, (images, labels) = resnet(norm, "resnet18"), patients(3, 4, 48)
    expected, norms = expected_of("resnet18", norm, patients, 4)
    assert max(norms) > CLIP  # the clipping has something to do
    assert error(clipped_sum(engine, net, images, labels)[0], expected) < 1e-5


@pytest.mark.parametrize("engine", ENGINES)
def test_dropping_any_one_patient_moves_the_sum_by_no_more_than_the_clip_norm(engine):
    net = resnet("group")
    with torch.no_grad():
        net.net.fc.weight.mul_(1e4)
    images, labels = patients(3, 3)
    whole, _ = clipped_sum(engine, net, images, labels)
    moved = []
    for left_out in range(3):
        kept = [number for number in range(3) if number != left_out]
        fewer, _ = clipped_sum(engine, net, images[kept], labels[kept])
        moved.append((whole - fewer).norm().item())
    assert 0.99 * CLIP < max(moved) <= CLIP * (1 + 1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_dropping_any_one_patient_moves_the_sum_of_a_head_by_no_more_than_the_clip_norm(engine):
    torch.manual_seed(1)
    net, vectors = nn.Linear(6, 3), 20 * torch.randn(5, 4, 6)
    labels = torch.arange(20).view(5, 4) % 3

    def of(rows):
        sums = {p: torch.zeros(p.shape) for p in net.parameters()}
        kind, layers = ENGINES[engine]
        clipping = kind(net, CLIP, layers)
        assert len(clipping.add_clipped_sum(vectors[rows], labels[rows], sums, 1.0)) == 4 * len(
            rows
        )
        clipping.close()
        return torch.cat([s.flatten() for s in sums.values()])

    whole = of(list(range(5)))
    moved = [
        (whole - of([number for number in range(5) if number != left_out])).norm().item()
        for left_out in range(5)
    ]
    assert 0.99 * CLIP < max(moved) <= CLIP * (1 + 1e-5)
