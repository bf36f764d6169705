import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dpmi.privacy.engines import convolution
from dpmi.privacy.engines.bookkeeping import BookKeeping

CLIP = 0.3


class Head(nn.Module):
    """Layers under test, then their mean over positions as logits."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x).flatten(2).mean(2) * 5


def naive(net, images, labels):
    """Clipped sum and norms by one backward pass an example: the definition, in double."""
    parameters = [p for p in net.parameters() if p.requires_grad]
    total, norms = [torch.zeros_like(p, dtype=torch.float64) for p in parameters], []
    for image, label in zip(images, labels, strict=True):
        loss = nn.functional.cross_entropy(net(image[None]), label[None])
        grads = [g.double() for g in torch.autograd.grad(loss, parameters)]
        norm = torch.cat([g.flatten() for g in grads]).norm().item()
        norms.append(norm)
        if norm < float("inf"):
            total = [
                t + g * min(1.0, CLIP / (norm + 1e-6)) for t, g in zip(total, grads, strict=True)
            ]
    return total, norms


def kept(net, images, labels, scale=1.0):
    """Clipped sum by book-keeping."""
    parameters = [p for p in net.parameters() if p.requires_grad]
    sums = {p: torch.zeros(p.shape) for p in parameters}
    engine = BookKeeping(net, CLIP, {})
    engine.add_clipped_sum(images, labels, sums, scale)
    engine.close()
    return [sums[p] for p in parameters], engine


def assert_same(sums, reference, tolerance=1e-5):
    difference = torch.cat(
        [(a.double() - b).flatten() for a, b in zip(sums, reference, strict=True)]
    )
    assert (
        difference.norm() <= tolerance * torch.cat([b.flatten() for b in reference]).norm() + 1e-9
    )


@st.composite
def convolutions(draw):
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    return {
        "in_channels": groups * draw(st.integers(1, 4)),
        "out_channels": groups * draw(st.integers(1, 4)),
        "kernel_size": (draw(st.integers(1, 4)), draw(st.integers(1, 4))),
        "stride": (draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        "padding": (draw(st.integers(0, 2)), draw(st.integers(0, 2))),
        "dilation": (draw(st.integers(1, 2)), draw(st.integers(1, 3))),
        "groups": groups,
        "bias": draw(st.booleans()),
    }


@pytest.mark.parametrize("by_gram", [True, False], ids=["gram", "rows"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    shape=convolutions(),
    height=st.integers(9, 15),
    width=st.integers(12, 17),
    batch=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_any_convolutions_clipped_sum_equals_a_loop_over_examples(
    by_gram, shape, height, width, batch, seed
):
    torch.manual_seed(seed)
    net = Head(nn.Conv2d(**shape), nn.Tanh(), nn.Conv2d(shape["out_channels"], 3, 1))
    images = torch.randn(batch, shape["in_channels"], height, width)
    labels = torch.arange(batch) % 3
    reference, _ = naive(net, images, labels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolution, "gram_is_cheaper", lambda *_: by_gram)
        sums, _ = kept(net, images, labels)
    assert_same(sums, reference)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_padding_by_name_is_understood(padding):
    torch.manual_seed(0)
    net = Head(nn.Conv2d(2, 3, 3, padding=padding, dilation=2))
    images, labels = torch.randn(3, 2, 9, 8), torch.arange(3)
    assert_same(kept(net, images, labels)[0], naive(net, images, labels)[0])


@pytest.mark.parametrize("by_gram", [True, False], ids=["gram", "rows"])
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_examples_without_a_finite_gradient_leave_no_trace(by_gram, poison, monkeypatch):
    monkeypatch.setattr(convolution, "gram_is_cheaper", lambda *_: by_gram)
    torch.manual_seed(0)
    net = Head(nn.Conv2d(2, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 3, 3))
    images, labels = torch.randn(5, 2, 9, 9), torch.arange(5) % 3
    images[1, 0, 3, 3] = images[4, 1, 0, 0] = poison
    sums, engine = kept(net, images, labels)
    keep = [0, 2, 3]
    assert_same(sums, naive(net, images[keep], labels[keep])[0])
    assert engine.dropped == 2


def test_an_example_of_zero_gradient_is_added_as_it_is():
    net = Head(nn.Conv2d(1, 2, 3))
    nn.init.zeros_(net.layers[0].bias)
    sums, engine = kept(net, torch.zeros(1, 1, 5, 5), torch.tensor([0]))
    assert torch.equal(sums[0], torch.zeros_like(sums[0]))
    assert torch.isfinite(sums[1]).all()
    assert engine.dropped == 0


def test_frozen_parameters_neither_count_nor_get_a_gradient():
    torch.manual_seed(0)
    net = Head(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Conv2d(4, 3, 3))
    net.layers[0].weight.requires_grad_(False)  # its bias still trains
    net.layers[1].bias.requires_grad_(False)
    for parameter in net.layers[3].parameters():
        parameter.requires_grad_(False)
    images, labels = torch.randn(4, 2, 8, 8), torch.arange(4) % 3
    sums, _ = kept(net, images, labels)
    assert len(sums) == 2
    assert_same(sums, naive(net, images, labels)[0])


def test_the_scale_multiplies_the_sum_and_not_the_bound():
    torch.manual_seed(0)
    net = Head(nn.Conv2d(2, 3, 3))
    images, labels = torch.randn(3, 2, 6, 6), torch.arange(3)
    once, _ = kept(net, images, labels)
    scaled, _ = kept(net, images, labels, scale=0.25)
    assert_same(scaled, [0.25 * s.double() for s in once], 1e-6)


def test_no_plain_gradient_is_ever_made():
    net = Head(nn.Conv2d(2, 3, 3), nn.GroupNorm(1, 3))
    kept(net, torch.randn(3, 2, 6, 6), torch.arange(3))
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"), "padding_mode='reflect'"),
        (nn.Conv2d(3, 3, 2, padding="same"), "pads one side more"),
    ],
)
def test_a_layer_that_cannot_be_handled_is_refused_by_name(layer, message):
    with pytest.raises(ValueError, match=message):
        BookKeeping(Head(layer), CLIP, {})


def test_a_layer_used_twice_is_refused():
    convolution_ = nn.Conv2d(3, 3, 1)
    net = Head(convolution_, nn.ReLU(), convolution_)
    engine = BookKeeping(net, CLIP, {})
    sums = {p: torch.zeros(p.shape) for p in net.parameters()}
    with pytest.raises(ValueError, match=r"layers\.0 was used twice"):
        engine.add_clipped_sum(torch.randn(2, 3, 5, 5), torch.arange(2), sums, 1.0)


def test_a_shared_parameter_is_refused():
    first, second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
    second.weight = first.weight
    with pytest.raises(ValueError, match=r"layers\.1 \(Conv2d\) shares a parameter"):
        BookKeeping(Head(first, second), CLIP, {})
