"""Under autocast a network is evaluated as it was trained, but for its last layer."""

import pytest
import torch

from dpmi.mechanisms.layers import RULES
from dpmi.models.classifier import last_layer_in_float32
from dpmi.models.network import build_network
from dpmi.privacy.engines.bookkeeping import BookKeeping

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    start = build_network("resnet18", 5, "batch", None).net.state_dict()
    return build_network("resnet18", 5, "group", start).eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(24, 1, 32, 32, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def logits(net, images, bfloat16, precise=True):
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        if not precise:
            return net(images)
        with last_layer_in_float32(net, "cpu"):
            return net(images)


def test_logits_do_not_tie_and_are_of_features_in_bfloat16(net, images):
    exact, rounded = logits(net, images, False), logits(net, images, True)
    tied = logits(net, images, True, precise=False)
    assert rounded.dtype == torch.float32
    assert torch.equal(tied.bfloat16().float(), tied)  # of 8 bits, whatever holds them
    assert 0 < (rounded - exact).norm() / exact.norm() < 0.02
    assert not torch.equal(rounded.bfloat16().float(), rounded)  # more than 8 bits
    kept = []
    hook = net.head.register_forward_pre_hook(lambda layer, inputs: kept.append(inputs[0]))
    logits(net, images, True)
    hook.remove()
    assert kept[0].dtype == torch.bfloat16
    weight, bias = net.head.weight, net.head.bias
    assert torch.equal(rounded, torch.nn.functional.linear(kept[0].float(), weight, bias))


def test_without_autocast_nothing_changes(net, images):
    assert torch.equal(logits(net, images, False), logits(net, images, False, precise=False))


def test_the_last_layer_is_left_as_it_was(net, images):
    """Also while an engine records what it does, between two epochs."""
    plain = net.head.forward
    logits(net, images, True)
    assert "forward" not in net.head.__dict__
    assert net.head.forward == plain
    engine = BookKeeping(net, 1.0, RULES)
    recording = net.head.forward
    logits(net, images, True)
    assert net.head.forward is recording
    engine.close()


def test_a_network_without_a_head_is_evaluated_in_float32(images):
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(32 * 32, 2))
    assert torch.equal(logits(flat, images, True), logits(flat, images, False))
