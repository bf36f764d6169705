from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from dpmi.models.network import ImageNetwork, build_network
from dpmi.models.whitening import RIDGE, Whitening
from dpmi.pretraining import whitening
from dpmi.pretraining.whitening import whiten_by_public_images

SIDE = 32

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", autouse=True)
def few_images() -> Iterator[None]:
    """Drawing hundreds takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dpmi.pretraining.whitening.DRAWN", 40)
        yield
    whitening._drawn.cache_clear()


def correlated(n: int, dimensions: int) -> Tensor:
    rng = torch.Generator().manual_seed(3)
    mixing = torch.randn(dimensions, dimensions, generator=rng)
    return torch.randn(n, dimensions, generator=rng) @ mixing + 5


@pytest.fixture(scope="module")
def start() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return resnet18(num_classes=3).state_dict()


def whitened(start: dict[str, Tensor], norm: str = "group") -> ImageNetwork:
    net = build_network("resnet18", 3, norm, start, side=SIDE)
    whiten_by_public_images(net, 1, SIDE)
    return net


def test_public_features_have_the_identity_for_their_covariance_but_for_the_ridge() -> None:
    features = correlated(400, 8)
    own = Whitening(features)(features).double()
    assert own.mean(0).abs().max() < 1e-4
    raw = torch.cov(features.double().T, correction=0)
    variances = torch.linalg.eigvalsh(raw)
    expected = variances / (variances + RIDGE * raw.diagonal().mean())
    found = torch.linalg.eigvalsh(torch.cov(own.T, correction=0))
    assert torch.allclose(found, expected.sort().values, atol=1e-4)


def test_fewer_images_than_features_and_features_that_never_vary_are_whitened() -> None:
    few = torch.cat([correlated(5, 8), torch.ones(5, 4)], 1)
    assert Whitening(few)(few).isfinite().all()
    assert Whitening(torch.ones(5, 4))(torch.ones(5, 4)).eq(0).all()


@pytest.mark.parametrize("norm", ["group", "frozen_batch"])
def test_whitening_changes_nothing_that_the_network_computes(
    start: dict[str, Tensor], norm: str
) -> None:
    images = torch.rand(4, 1, SIDE, SIDE)
    plain = build_network("resnet18", 3, norm, start, side=SIDE).eval()
    assert torch.allclose(whitened(start, norm).eval()(images), plain(images), atol=1e-4)


def test_what_is_kept_of_a_trained_network_is_torchvisions_and_decides_the_same(
    start: dict[str, Tensor],
) -> None:
    net, images = whitened(start).eval(), torch.rand(4, 1, SIDE, SIDE)
    with torch.no_grad():  # as training would
        net.head.weight += torch.randn(3, 512)
        net.head.bias += torch.randn(3)
        net.log_shares += torch.tensor([0.5, -1.0, 0.25])
    kept = net.exported()
    assert kept.keys() == resnet18(num_classes=3, norm_layer=_group_norm).state_dict().keys()
    again = build_network("resnet18", 3, "group", kept, side=SIDE).eval()
    assert torch.allclose(again(images), net(images), rtol=1e-4, atol=1e-3)


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels)


def test_a_first_head_is_one_of_the_features_as_they_are(start: dict[str, Tensor]) -> None:
    weight, bias, images = torch.randn(3, 512), torch.randn(3), torch.rand(4, 1, SIDE, SIDE)
    plain, net = build_network("resnet18", 3, "group", start, side=SIDE), whitened(start)
    for one in (plain, net):
        one.eval().set_head(weight, bias)
    assert torch.allclose(net(images), plain(images), rtol=1e-3, atol=1e-3)


def test_drawing_public_images_leaves_the_seeded_generator_alone(start: dict[str, Tensor]) -> None:
    torch.manual_seed(5)
    net = build_network("resnet18", 3, "group", start, side=SIDE)
    before = torch.get_rng_state()
    whiten_by_public_images(net, 3, SIDE)
    assert torch.equal(torch.get_rng_state(), before)


def test_folded_at_the_end_it_is_the_plain_network_that_is_kept(start: dict[str, Tensor]) -> None:
    net, images = whitened(start).eval(), torch.rand(4, 1, SIDE, SIDE)
    with torch.no_grad():
        net.log_shares += torch.tensor([0.5, -1.0, 0.25])
    before, kept = net(images), net.exported()
    net.fold()
    assert net.whitening is None
    assert torch.allclose(net(images), before, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(value, kept[name]) for name, value in net.exported().items())
