"""Every network of ``model.name`` as it is trained, whole: a new one is tried with the others."""

import pytest
import torch
from test_layers import CLIP, clipped, error, naive
from torch import nn

from dpmi.backbones import backbone, names
from dpmi.models.network import build_network
from dpmi.pretraining.whitening import whiten_by_public_images
from dpmi.privacy.gradients import refuse_batch_norm, refuse_randomness

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]
NETWORKS = [
    (name, norm) for name in names() for norm in backbone(name).norms if norm != "batch"
]  # fmt: skip


@pytest.fixture
def network():
    def make(name, norm, whitened=False):
        torch.manual_seed(0)
        state = build_network(name, 3, backbone(name).norms[0], None, side=32).net.state_dict()
        net = build_network(name, 3, norm, state, side=32).train()
        nn.init.normal_(net.head.weight, std=0.1)  # of ViT it is zero: nothing would come back
        if whitened:
            whiten_by_public_images(net, 1, 32)
        return net

    return make


@pytest.mark.parametrize("whitened", [False, True], ids=["plain", "whitened"])
@pytest.mark.parametrize(("name", "norm"), NETWORKS, ids=str)
def test_its_clipped_sum_equals_a_naive_loop_over_examples(network, name, norm, whitened):
    net = network(name, norm, whitened).double()
    refuse_batch_norm(net)
    refuse_randomness(net)
    images, labels = torch.rand(2, 1, 32, 32, dtype=torch.float64), torch.arange(2)
    expected, norms = naive(net, images, labels)
    found, engine = clipped(net, images, labels)
    assert max(norms) > CLIP  # the clipping has something to do
    assert error(found, expected) < 1e-10
    assert engine.functional == ()


@pytest.mark.parametrize(("name", "norm"), NETWORKS, ids=str)
def test_no_image_contributes_more_than_the_clip_norm(network, name, norm):
    net = network(name, norm)
    with torch.no_grad():
        net.head.weight.mul_(1e4)
    images = torch.rand(1, 1, 32, 32)
    norms = [clipped(net, images, torch.tensor([k]))[0].norm().item() for k in range(3)]
    assert 0.99 * CLIP < max(norms) <= CLIP * (1 + 1e-6)
