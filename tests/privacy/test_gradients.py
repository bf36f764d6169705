import copy
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import job_processes
import pytest
import torch
from scipy import stats
from small_network import SMALL
from torch import nn
from torchvision.ops import StochasticDepth

from dpmi.mechanisms.frozen_norm import FrozenBatchNormRule, frozen_batch_norm_grad_sampler
from dpmi.models.network import build_network
from dpmi.models.norms import FrozenStatisticsBatchNorm
from dpmi.privacy.engines.bookkeeping import BookKeeping
from dpmi.privacy.engines.opacus_hooks import OpacusHooks
from dpmi.privacy.gradients import PrivateGradient, refuse_batch_norm, refuse_randomness
from dpmi.privacy.journal import Journal, read_journal
from dpmi.privacy.ledger import Ledger
from dpmi.privacy.noise import GaussianNoise
from dpmi.privacy.plan import PrivacyPlan
from dpmi.privacy.randomness import NoiseSource

CLIP = 0.5
TINY_NOISE = 1e-9  # a plan has noise; so little that it does not show in single precision
ENGINES = {
    "fast": (BookKeeping, {FrozenStatisticsBatchNorm: FrozenBatchNormRule()}),
    "opacus": (OpacusHooks, {FrozenStatisticsBatchNorm: frozen_batch_norm_grad_sampler}),
}


@pytest.fixture(autouse=True, params=ENGINES)
def engine(request):
    """Every property holds for both engines: the fast one, and the reference."""
    return request.param


def plan(noise_multiplier=TINY_NOISE, expected_batch_size=4):
    return PrivacyPlan(
        n=100, expected_batch_size=expected_batch_size, max_grad_norm=CLIP,
        noise_multiplier=noise_multiplier, steps=10, delta=1e-4, accountant="prv",
    )  # fmt: skip


def private(engine, net, ledger=None, piece=16, **of_plan):
    kind, layers = ENGINES[engine]
    return PrivateGradient(
        net,
        kind(net, CLIP, layers),
        plan=plan(**of_plan),
        noise=GaussianNoise(NoiseSource(0)),
        ledger=Ledger() if ledger is None else ledger,
        physical_batch_size=piece,
    )


@cache
def pretrained(name):
    torch.manual_seed(0)
    net = build_network(name, 3, "batch", None)
    for layer in net.modules():  # statistics and weights as pretraining leaves them, not 0 and 1
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, std=0.3)
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.2)
    return net.net.state_dict()


def resnet(norm, name=SMALL):
    return build_network(name, 3, norm, pretrained(name))


def batch(size, side=32):
    generator = torch.Generator().manual_seed(size)
    images = torch.rand(size, 1, side, side, generator=generator)
    return images, torch.arange(size) % 3


def naive_clipped_mean(net, images, labels, expected_batch_size):
    """One example at a time by autograd alone: the definition."""
    total, norms = None, []
    for image, label in zip(images, labels, strict=True):
        loss = nn.functional.cross_entropy(net(image[None]), label[None])
        grads = torch.autograd.grad(loss, list(net.parameters()))
        norm = torch.cat([g.flatten() for g in grads]).double().norm()
        clipped = [g * min(1.0, CLIP / norm.item()) for g in grads]
        total = clipped if total is None else [a + b for a, b in zip(total, clipped, strict=True)]
        norms.append(norm.item())
    return [g / expected_batch_size for g in total], norms


def relative_error(grads, reference):
    difference = torch.cat([(a - b).flatten() for a, b in zip(grads, reference, strict=True)])
    return (difference.norm() / torch.cat([b.flatten() for b in reference]).norm()).item()


@cache
def naive_of_resnet18(norm, side):
    """The definition, of five images: the same for each engine."""
    return naive_clipped_mean(resnet(norm, "resnet18"), *batch(5, side), 4)


@pytest.mark.parametrize("side", [64, pytest.param(224, marks=pytest.mark.slow)])
@pytest.mark.parametrize("norm", ["group", "frozen_batch"])
def test_clipped_gradients_of_resnet18_equal_a_naive_loop_over_examples(engine, norm, side):
    net, (images, labels) = resnet(norm, "resnet18"), batch(5, side)
    reference, norms = naive_of_resnet18(norm, side)
    assert max(norms) > CLIP  # the clipping has something to do
    gradient = private(engine, net)
    gradient(images, labels)
    assert relative_error([p.grad for p in net.parameters()], reference) < 1e-5


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_no_example_contributes_more_than_the_clip_norm(engine, scale):
    net, (images, labels) = resnet("group"), batch(1)
    with torch.no_grad():
        net.net.fc.weight.mul_(scale)
    gradient = private(engine, net)
    gradient(images, labels)
    contribution = 4 * torch.cat([p.grad.flatten() for p in net.parameters()]).double().norm()
    assert contribution <= CLIP * (1 + 1e-6)


def test_pieces_of_a_batch_give_the_gradient_of_the_whole(engine):
    whole, pieces = resnet("frozen_batch"), resnet("frozen_batch")
    images, labels = batch(7)
    private(engine, whole, piece=7)(images, labels)
    private(engine, pieces, piece=2)(images, labels)
    reference = [p.grad for p in whole.parameters()]
    assert relative_error([p.grad for p in pieces.parameters()], reference) < 1e-5


class Linear(nn.Module):
    """Few layers and many parameters, where only the noise matters."""

    def __init__(self):
        super().__init__()
        self.flat, self.fc = nn.Flatten(), nn.Linear(32 * 32, 100)

    def forward(self, x):
        return self.fc(self.flat(x))


@pytest.mark.parametrize("size", [0, 1, 9])
def test_noise_is_added_once_a_logical_batch_at_the_plans_scale(engine, size):
    torch.manual_seed(0)
    net, ledger, sigma = Linear(), Ledger(), 50.0
    images, labels = batch(size)
    gradient = private(engine, net, ledger, piece=2, noise_multiplier=sigma)
    gradient(images, labels)
    noised = torch.cat([p.grad.flatten() for p in net.parameters()])
    quiet = Linear()
    quiet.load_state_dict(net.state_dict())
    private(engine, quiet)(images, labels)
    noise = noised - torch.cat([p.grad.flatten() for p in quiet.parameters()])
    # False alarm 1e-6 were the seed not fixed. Noise added for each of 5 pieces would be √5 wider.
    law = stats.norm(scale=sigma * CLIP / 4)
    assert stats.kstest(noise.numpy(), law.cdf).pvalue > 1e-6
    assert ledger.to_dict() == [
        {"noise_multiplier": sigma, "sample_rate": 0.04, "steps": 1},
    ]


def test_each_release_has_noise_of_its_own(engine):
    net = Linear()
    gradient = private(engine, net, noise_multiplier=1.0)
    images, labels = batch(0)
    gradient(images, labels)
    first = net.fc.weight.grad.clone()
    gradient(images, labels)
    assert not torch.equal(first, net.fc.weight.grad)
    assert abs(stats.pearsonr(first.flatten(), net.fc.weight.grad.flatten()).statistic) < 0.02


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e38])
def test_an_example_without_a_finite_gradient_contributes_nothing_and_is_counted(engine, poison):
    images, labels = batch(4)
    bad = images.clone()
    bad[2] = poison
    net, clean = resnet("group"), resnet("group")
    gradient = private(engine, net)
    gradient(bad, labels)
    keep = [0, 1, 3]
    private(engine, clean)(images[keep], labels[keep])
    reference = [p.grad for p in clean.parameters()]
    assert relative_error([p.grad for p in net.parameters()], reference) < 1e-5
    assert gradient.dropped == 1


def test_a_batch_norm_is_refused():
    with pytest.raises(ValueError, match="BatchNorm"):
        refuse_batch_norm(build_network("resnet18", 2, "batch", None))


class Scale(nn.Module):
    """Of a kind that nobody has a rule for."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x * self.factor


def test_a_layer_without_a_rule_goes_one_example_at_a_time_or_is_refused_by_name(engine):
    net = nn.Sequential(Linear(), Scale())
    if engine == "opacus":
        with pytest.raises(ValueError, match=r"layer 1 \(Scale\)"):
            private(engine, net)
        return
    images, labels = batch(3)
    reference, norms = naive_clipped_mean(copy.deepcopy(net), images, labels, 4)
    gradient = private(engine, net)
    gradient(images, labels)
    assert max(norms) > CLIP
    assert gradient.functional == ("1",)
    assert relative_error([p.grad for p in net.parameters()], reference) < 1e-5


@pytest.mark.parametrize(
    "layer",
    [
        nn.Dropout(0.5),
        nn.Dropout2d(0.5),
        StochasticDepth(0.1, "row"),
        nn.MultiheadAttention(4, 2, dropout=0.1),
    ],
)
def test_a_layer_that_drops_at_random_is_refused_by_name(layer):
    with pytest.raises(ValueError, match=rf"layer 1 \({type(layer).__name__}\) drops at random"):
        refuse_randomness(nn.Sequential(nn.Dropout(0.0), layer))


def test_a_closed_gradient_leaves_the_network_as_it_was(engine):
    net, (images, labels) = resnet("group"), batch(2)
    gradient = private(engine, net)
    gradient(images, labels)
    gradient.close()
    for network in (net, untouched := resnet("group")):
        network.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
    reference = [p.grad for p in untouched.parameters()]
    assert relative_error([p.grad for p in net.parameters()], reference) < 1e-6


def test_a_release_has_nothing_of_the_one_before(engine):
    net, fresh = resnet("group"), resnet("group")
    gradient = private(engine, net)
    for size in (3, 0, 5):
        gradient(*batch(size))
    private(engine, fresh)(*batch(5))
    assert relative_error([p.grad for p in net.parameters()],
                          [p.grad for p in fresh.parameters()]) < 1e-5  # fmt: skip


class FullDisk:
    """A journal that cannot be written."""

    def cover(self, *_):
        raise OSError("no space left")


def test_a_step_that_cannot_be_written_ahead_is_not_released(engine):
    net, ledger = nn.Sequential(nn.Flatten(), nn.Linear(8 * 8, 3)), Ledger()
    gradient = private(engine, net, ledger)
    gradient._journal = FullDisk()
    with pytest.raises(OSError, match="no space left"):
        gradient(*batch(4, side=8))
    assert ledger.steps == 0
    assert all(parameter.grad is None for parameter in net.parameters())


class Hungry(nn.Module):
    """Needs 64 MiB for each image, of the system's own allocator."""

    def forward(self, x):
        room = torch.empty(len(x), 1 << 24).fill_(1.0)
        return x * room[:, :1, None, None]


@contextmanager
def half_a_gibibyte():
    """The process may take half a GiB more than it has."""
    import resource

    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmSize:"))
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (int(line.split()[1]) * 2**10 + 2**29, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_where_memory_runs_out_the_same_release_is_made_in_smaller_pieces(engine, tmp_path):
    """In a process of its own: one that ran other tests has memory that they had and gave back."""
    pytest.importorskip("resource")  # not on Windows
    if not Path("/proc/self/status").is_file():
        pytest.skip("the size of a process is not told here")
    target, args = release_with_little_memory, (engine, tmp_path)
    process = job_processes.context().Process(target=target, args=args)
    process.start()
    process.join(120)
    assert process.exitcode == 0


def release_with_little_memory(engine, tmp_path):
    """Same batch, same noise, one entry on the ledger; what was written ahead says both sizes."""

    def net():
        torch.manual_seed(0)
        # No convolution: how its kernels behave with next to no memory is not tried here.
        return nn.Sequential(Hungry(), nn.Flatten(), nn.Linear(8 * 8, 3))

    images, labels = batch(16, side=8)
    hungry, small = net(), net()
    ledger, journal = Ledger(), Journal(tmp_path / "journal")
    private_gradient = private(engine, hungry, ledger, piece=16, noise_multiplier=0.5)
    private_gradient._journal = journal
    with half_a_gibibyte():
        logits = private_gradient(images, labels)  # 1 GiB at once: more than there is
    assert private_gradient.physical_batch_size in (1, 2, 4, 8)
    assert ledger.steps == 1
    sizes = [r.physical_batch_size for r in read_journal(tmp_path / "journal")]
    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[0], sizes[-1]) == (16, private_gradient.physical_batch_size)
    assert {r.first for r in read_journal(tmp_path / "journal")} == {0}
    expected = private(engine, small, piece=sizes[-1], noise_multiplier=0.5)(images, labels)
    torch.testing.assert_close(logits, expected)
    for one, other in zip(hungry.parameters(), small.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    with half_a_gibibyte():
        private_gradient(images, labels)  # and goes on
    assert ledger.steps == 2
