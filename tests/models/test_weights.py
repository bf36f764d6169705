import pickle

import pytest
import torch
from torchvision.models import resnet18

from dpmi.errors import UserError
from dpmi.models import weights
from dpmi.models.weights import build_resnet18, imagenet_state_dict, read_state_dict


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(1)
    return resnet18(num_classes=10).state_dict()


def test_half_precision_is_read_and_computed_with_in_single(state, tmp_path):
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in state.items()},
               tmp_path / "half.pth")  # fmt: skip
    net = build_resnet18(10, "batch", read_state_dict(tmp_path / "half.pth"))
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    torch.testing.assert_close(net.net.conv1.weight, state["conv1.weight"], atol=1e-3, rtol=1e-2)


def test_another_heads_classes_are_dropped_and_the_rest_is_kept(state):
    net = build_resnet18(2, "batch", state)
    assert torch.equal(net.net.fc.weight, torch.zeros(2, 512))
    assert torch.equal(net.net.fc.bias, torch.zeros(2))
    assert torch.equal(net.net.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda s: s.pop("layer2.0.conv1.weight"), "lacks 1 entries, first layer2.0.conv1.weight"),
        (lambda s: s.update(extra=torch.zeros(1)), "unknown 1 entries, first extra"),
        (lambda s: s.update({"conv1.weight": torch.zeros(64, 1, 7, 7)}), "conv1.weight"),
    ],
)
def test_anything_else_that_does_not_fit_is_refused_by_name(state, damage, told):
    damaged = dict(state)
    damage(damaged)
    with pytest.raises(UserError, match=told):
        build_resnet18(2, "batch", damaged)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no such file") as caught:
        read_state_dict(tmp_path / "nowhere.pth")
    assert "\n" not in str(caught.value)


class Payload:
    """What a malicious state dict would hold."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_code_in_a_file_of_weights_is_not_run(tmp_path):
    victim, file = tmp_path / "written", tmp_path / "evil.pth"
    torch.save({"conv1.weight": Payload(str(victim))}, file)
    with pytest.raises(UserError, match="weights_only"):
        read_state_dict(file)
    assert not victim.exists()


@pytest.mark.parametrize("content", [b"", b"not weights", pickle.dumps(1)])
def test_a_file_that_holds_no_weights_is_one_line(tmp_path, content):
    file = tmp_path / "bad.pth"
    file.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_state_dict(file)
    assert "\n" not in str(caught.value)


def test_imagenet_weights_come_from_the_cache_once_they_are_there(state, tmp_path, monkeypatch):
    asked = {}

    def get_state_dict(self, **kwargs):
        asked.update(kwargs)
        return state

    monkeypatch.setattr(weights.ResNet18_Weights, "get_state_dict", get_state_dict)
    assert imagenet_state_dict(tmp_path) is state
    assert asked["model_dir"] == str(tmp_path / "weights")
    assert asked["check_hash"] is True
    assert asked["weights_only"] is True


def test_without_a_network_the_imagenet_download_is_one_line(tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise OSError("unreachable")

    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    with pytest.raises(UserError, match=r"model.weights=imagenet.*model.weights=phantom"):
        imagenet_state_dict(tmp_path)


def test_the_stand_in_weights_fit(shared):
    file = shared / "weights" / "resnet18_standin.pth"
    for norm in ("batch", "group", "frozen_batch"):
        net = build_resnet18(2, norm, read_state_dict(file)).eval()
        assert torch.isfinite(net(torch.rand(2, 1, 64, 64))).all()
