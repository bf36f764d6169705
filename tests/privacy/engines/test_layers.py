"""Rules of single layers, and networks made of them: the clipped sum is that of a loop."""

import copy

import pytest
import torch
from torch import nn
from torchvision.models import ConvNeXt, DenseNet, ResNet, VisionTransformer
from torchvision.models.convnext import CNBlockConfig, LayerNorm2d
from torchvision.models.resnet import Bottleneck

from dpmi.mechanisms.layers import RULES, SAMPLERS
from dpmi.models.norms import convert_norms
from dpmi.privacy.engines import linear
from dpmi.privacy.engines.bookkeeping import BookKeeping
from dpmi.privacy.engines.opacus_hooks import OpacusHooks
from dpmi.privacy.plan import ROUNDING as ROUNDING_OF_PLANS

pytestmark = pytest.mark.usefixtures("one_thread")

CLIP = 0.3
# Where groups of a norm have few values, the forward pass alone loses three digits in float32.
ROUNDING = {torch.float32: 1e-4, torch.float64: 1e-12}


class Mean(nn.Module):
    """Logits from the mean over all axes between the first and that of the classes."""

    def __init__(self, *layers, classes_last=True):
        super().__init__()
        self.layers, self.classes_last = nn.Sequential(*layers), classes_last

    def forward(self, x):
        y = self.layers(x)
        y = y.flatten(1, -2).mean(1) if self.classes_last and y.ndim > 2 else y
        return 5 * (y if self.classes_last else y.flatten(2).mean(2))


class Tokens(nn.Flatten):
    """(B, 1, T, D) to (B, T, D): of three axes the second would be one of views."""

    def __init__(self):
        super().__init__(1, 2)


class SelfAttention(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.norm = nn.LayerNorm(12)
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True, **options)

    def forward(self, x):
        x = self.norm(x)
        return self.attention(x, x, x, need_weights=False)[0]


class Scale(nn.Module):
    """A parameter of a kind that no rule knows, and a layer within."""

    def __init__(self):
        super().__init__()
        self.factor, self.inner = nn.Parameter(torch.randn(1, 6)), nn.Linear(6, 6)

    def forward(self, x):
        return self.inner(x) * self.factor.exp()


class Centred(Scale):
    """Takes the mean of whatever batch it is given off."""

    def forward(self, x):
        return super().forward(x - 0.5 * x.mean(0, keepdim=True))


def vit():
    net = VisionTransformer(16, 8, 2, 3, 24, 32, num_classes=3)
    for parameter in net.parameters():  # biases and the head are zeros at first
        if not parameter.any():
            nn.init.normal_(parameter, std=0.3)
    return net


def convnext():
    blocks = [CNBlockConfig(8, 12, 1), CNBlockConfig(12, None, 2)]
    return ConvNeXt(blocks, layer_scale=0.7, num_classes=3)


def with_norms(net, norm):
    """Statistics and weights as pretraining leaves them, not 0 and 1."""
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, std=0.3)
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.2)
        if isinstance(layer, nn.ReLU):
            layer.inplace = False
    convert_norms(net, norm)
    return net


class OutOfPlace(DenseNet):
    def forward(self, x):
        return self.classifier(self.features(x).relu().mean((2, 3)))


def densenet(norm):
    return with_norms(OutOfPlace(32, (1, 2, 1, 1), 32, bn_size=2, num_classes=3), norm)


class OutOfPlaceBottleneck(Bottleneck):
    def forward(self, x):
        out = self.bn1(self.conv1(x)).relu()
        out = self.bn3(self.conv3(self.bn2(self.conv2(out)).relu()))
        return (out + (x if self.downsample is None else self.downsample(x))).relu()


def resnet(norm):
    return with_norms(ResNet(OutOfPlaceBottleneck, [1, 1, 1, 1], num_classes=3), norm)


IMAGE, TOKENS = (3, 16, 16), (1, 7, 12)
NETWORKS = {
    "vit": (vit, IMAGE),
    "convnext": (convnext, (3, 32, 32)),
    "densenet, group": (lambda: densenet("group"), (3, 32, 32)),
    "densenet, frozen batch": (lambda: densenet("frozen_batch"), (3, 32, 32)),
    "bottlenecks, group": (lambda: resnet("group"), (3, 32, 32)),
    "bottlenecks, frozen batch": (lambda: resnet("frozen_batch"), (3, 32, 32)),
}
LAYERS = {
    "linear on tokens": (
        lambda: Mean(Tokens(), nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 3)), TOKENS,
    ),
    "layer norm": (lambda: Mean(nn.LayerNorm(12), nn.Linear(12, 3)), (2, 3, 12)),
    "layer norm of two axes": (
        lambda: Mean(Tokens(), nn.LayerNorm((7, 12), bias=False), nn.Linear(12, 3)), TOKENS,
    ),
    "layer norm of vectors": (lambda: Mean(nn.LayerNorm(12), nn.Linear(12, 3)), (12,)),
    "layer norm of channels": (
        lambda: Mean(LayerNorm2d(3), nn.Conv2d(3, 3, 3), classes_last=False), IMAGE,
    ),
    "attention": (lambda: Mean(Tokens(), SelfAttention(), nn.Linear(12, 3)), TOKENS),
    "attention without bias": (
        lambda: Mean(Tokens(), SelfAttention(bias=False), nn.Linear(12, 3)), TOKENS,
    ),
    "depthwise convolution": (
        lambda: Mean(nn.Conv2d(3, 3, 7, padding=3, groups=3), nn.Tanh(), nn.Conv2d(3, 3, 1),
                     classes_last=False), IMAGE,
    ),
    "without a rule": (lambda: Mean(nn.Linear(12, 6), Scale(), nn.PReLU(), nn.Linear(6, 3)), (12,)),
}  # fmt: skip


def made(name, dtype):
    torch.manual_seed(0)
    make, shape = (NETWORKS | LAYERS)[name]
    net = make().to(dtype).train()
    if name in LAYERS:
        for parameter in net.parameters():
            nn.init.normal_(parameter, std=0.5)
    return net, shape


def batch(shape, dtype, examples=3, views=1):
    generator = torch.Generator().manual_seed(examples)
    x = torch.rand(examples, views, *shape, generator=generator, dtype=torch.float64).to(dtype)
    return (x if views > 1 else x[:, 0]), torch.arange(examples) % 3


def naive(net, x, labels, views=1):
    """Of one example after another by autograd alone, in double: the definition.

    Returns:
        The clipped sum, flat, and the norms of the examples' gradients.
    """
    exact, total, norms = copy.deepcopy(net).double(), 0.0, []
    parameters = [p for p in exact.parameters() if p.requires_grad]
    for one, label in zip(x.double(), labels, strict=True):
        own = one if views > 1 else one[None]
        loss = nn.functional.cross_entropy(exact(own), label.expand(len(own)))
        grads = torch.autograd.grad(loss, parameters, materialize_grads=True)
        flat = torch.cat([g.flatten() for g in grads])
        norms.append(flat.norm().item())
        total = total + flat * min(1.0, CLIP / (norms[-1] + 1e-6))
    return total, norms


def clipped(net, x, labels, engine="fast"):
    """Flat clipped sum of a piece, and the engine."""
    sums = {p: torch.zeros_like(p) for p in net.parameters() if p.requires_grad}
    clipping = (
        BookKeeping(net, CLIP, RULES) if engine == "fast" else OpacusHooks(net, CLIP, SAMPLERS)
    )
    clipping.add_clipped_sum(x, labels, sums, 1.0)
    clipping.close()
    assert all(p.grad is None for p in net.parameters())
    return torch.cat([s.flatten() for s in sums.values()]).double(), clipping


def error(a, b):
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_networks_clipped_sum_equals_a_naive_loop_over_examples(name, dtype):
    net, shape = made(name, dtype)
    x, labels = batch(shape, dtype)
    expected, norms = naive(net, x, labels)
    assert max(norms) > CLIP  # the clipping has something to do
    found, engine = clipped(net, x, labels)
    assert error(found, expected) < ROUNDING[dtype]
    assert engine.functional == ()


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("kept", [True, False], ids=["rows", "grams"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layers_clipped_sum_equals_a_naive_loop_over_examples(name, kept, views, monkeypatch):
    monkeypatch.setattr(linear, "grams_are_better", lambda *_: not kept)
    for dtype, most in ROUNDING.items():
        net, shape = made(name, dtype)
        x, labels = batch(shape, dtype, 4, views)
        expected, norms = naive(net, x, labels, views)
        assert max(norms) > CLIP
        assert error(clipped(net, x, labels)[0], expected) < most


@pytest.mark.parametrize("name", ["densenet, group", "bottlenecks, frozen batch"])
def test_opacus_finds_the_same(name):
    net, shape = made(name, torch.float64)
    x, labels = batch(shape, torch.float64)
    assert error(clipped(net, x, labels, "opacus")[0], naive(net, x, labels)[0]) < 1e-12


@pytest.mark.parametrize("name", ["vit", "convnext"])
def test_what_opacus_has_no_sampler_for_is_refused_under_its_hooks(name):
    net, shape = made(name, torch.float32)
    with pytest.raises(ValueError, match=r"has no per-example gradients under mechanism\.engine"):
        clipped(net, *batch(shape, torch.float32), "opacus")


@pytest.mark.parametrize("name", NETWORKS)
def test_no_example_of_a_network_contributes_more_than_the_clip_norm(name):
    net, shape = made(name, torch.float32)
    with torch.no_grad():
        list(net.modules())[-1].weight.mul_(1e4)  # the head comes last
    x, labels = batch(shape, torch.float32)
    norms = [
        clipped(net, one, label)[0].norm().item()
        for one, label in zip(x.split(1), labels.split(1), strict=True)
    ]
    assert 0.99 * CLIP < max(norms) <= CLIP * (1 + 1e-6)


@pytest.mark.parametrize("name", ["vit", "convnext", "without a rule"])
def test_under_bfloat16_no_example_contributes_more_than_the_clip_norm(name):
    net, shape = made(name, torch.float32)
    x, labels = batch(shape, torch.float32)
    expected, _ = naive(net, x, labels)
    with torch.autocast("cpu", torch.bfloat16):
        together, _ = clipped(net, x, labels)
        own = [clipped(net, *one)[0] for one in zip(x.split(1), labels.split(1), strict=True)]
    assert 1e-4 < error(together, expected) < 0.1  # bfloat16 was at work, and no more than that
    assert max(one.norm().item() for one in own) <= CLIP * (1 + 1e-6)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", [*NETWORKS, "without a rule"])
def test_an_example_of_a_network_without_a_finite_gradient_leaves_no_trace(name, poison):
    net, shape = made(name, torch.float32)
    x, labels = batch(shape, torch.float32)
    bad = x.clone()
    bad[1].view(-1)[0] = poison
    found, engine = clipped(net, bad, labels)
    assert engine.dropped == 1
    assert error(found, naive(net, x[[0, 2]], labels[[0, 2]])[0]) < ROUNDING[torch.float32]


def test_what_mixes_examples_has_none_to_mix_without_a_rule():
    """One example at a time: each adds what it would add alone, whoever else is there."""
    torch.manual_seed(0)
    net = Mean(nn.Linear(12, 6), Centred(), nn.Linear(6, 3))
    x, labels = batch((12,), torch.float64, 4)
    net.double()
    together, engine = clipped(net, x, labels)
    apart = [clipped(net, *one)[0] for one in zip(x.split(1), labels.split(1), strict=True)]
    assert engine.functional == ("layers.1",)
    assert error(together, sum(apart)) < 1e-12


def test_frozen_parts_of_a_network_neither_count_nor_get_a_gradient():
    net, shape = made("vit", torch.float64)
    block = net.encoder.layers[0]
    for frozen in (
        net.class_token, block.self_attention.in_proj_weight, block.self_attention.in_proj_bias,
        block.ln_1.weight, block.mlp[0].weight, block.mlp[3].bias, *net.conv_proj.parameters(),
    ):  # fmt: skip
        frozen.requires_grad_(False)
    x, labels = batch(shape, torch.float64)
    assert error(clipped(net, x, labels)[0], naive(net, x, labels)[0]) < 1e-12


class InPlace(nn.Module):
    """Adds in place to what a norm gave, as blocks of many networks do."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Conv2d(4, 3, 3)

    def forward(self, x):
        x = self.conv(x)
        y = self.norm(x)
        y += x
        return self.head(y.relu_()).mean((2, 3))


def test_operations_in_place_on_what_a_layer_gave_change_nothing():
    torch.manual_seed(0)
    net = InPlace().double()
    x, labels = batch(IMAGE, torch.float64)
    assert error(clipped(net, x, labels)[0], naive(net, x, labels)[0]) < 1e-12


class Drawn(Scale):
    def forward(self, x):
        return super().forward(x + torch.rand_like(x))


class TwoInputs(Scale):
    def forward(self, x, y):
        return super().forward(x + y)


class Twice(nn.Module):
    """Calls one attention on the output of the same."""

    def __init__(self):
        super().__init__()
        self.flat, self.layer, self.head = Tokens(), SelfAttention(), nn.Linear(12, 3)

    def forward(self, x):
        return self.head(self.layer(self.layer(self.flat(x))).mean(1))


class Stray(nn.Module):
    """Uses the weight of a layer outside of it."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        return nn.functional.linear(x, self.head.weight)


class CrossAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.flat, self.head = Tokens(), nn.Linear(12, 3)
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)

    def forward(self, x):
        x = self.flat(x)
        return self.head(self.attention(x, x + 1, x, need_weights=False)[0].mean(1))


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.head = TwoInputs(), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.layer(x, x))


@pytest.mark.parametrize(
    ("net", "shape", "message"),
    [
        (Mean(Drawn(), nn.Linear(6, 3)), (6,), r"layer layers\.0: a Drawn has no rule, and cannot"),
        (Both(), (6,), r"layer layer: a TwoInputs was given other than one tensor"),
        (Twice(), TOKENS, r"layer layer\.(norm|attention\.\w+) was used twice"),
        (Stray(), (12,), r"parameter head\.weight is used outside of its layer's own forward"),
        (CrossAttention(), TOKENS, r"layer attention: a MultiheadAttention was given other than"),
        (Mean(nn.MultiheadAttention(12, 3)), TOKENS, r"layer layers\.0 .*batch_first=True"),
        (Mean(nn.MultiheadAttention(12, 3, dropout=0.1, batch_first=True)), TOKENS, "dropout=0"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_exact_is_refused_by_name(net, shape, message):
    x, labels = batch(shape, torch.float32)
    with pytest.raises(ValueError, match=message):
        clipped(net, x, labels)
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("common", [0.0, 1.0, 100.0])
def test_norms_by_gram_matrices_are_as_exact_as_the_plan_allows_for(common):
    """Tokens that have much in common, output gradients that add up to nothing: the worst case."""
    torch.manual_seed(0)
    layer = nn.Linear(96, 128, bias=False)
    x, upstream = torch.randn(4, 197, 96) + common, torch.randn(4, 197, 128)
    upstream -= upstream.mean(1, keepdim=True)
    exact = (upstream.double().transpose(1, 2) @ x.double()).flatten(1).norm(dim=1)
    kept = linear.LinearContribution(layer, x, upstream)
    off = (kept.squared_norms.double().sqrt() / exact - 1).abs().max()
    assert off < ROUNDING_OF_PLANS / 1000
