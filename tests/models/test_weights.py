import os
import pickle
import zipfile

import pytest
import safetensors.torch
import torch
from small_network import SMALL
from torchvision.models import ResNet18_Weights, resnet18

from dpmi.base.errors import UserError
from dpmi.models.network import build_network
from dpmi.models.weights import (
    imagenet_state_dict,
    read_state_dict,
    read_weights,
    write_state_dict,
)


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(1)
    return resnet18(num_classes=10).state_dict()


def test_half_precision_is_read_and_computed_with_in_single(state, tmp_path):
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in state.items()},
               tmp_path / "half.pth")  # fmt: skip
    net = build_network("resnet18", 10, "batch", read_state_dict(tmp_path / "half.pth"))
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    torch.testing.assert_close(net.net.conv1.weight, state["conv1.weight"], atol=1e-3, rtol=1e-2)


def test_another_heads_classes_are_dropped_and_the_rest_is_kept(state):
    net = build_network("resnet18", 2, "batch", state)
    assert torch.equal(net.net.fc.weight, torch.zeros(2, 512))
    assert torch.equal(net.net.fc.bias, torch.zeros(2))
    assert torch.equal(net.net.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: s.pop("layer2.0.conv1.weight"), r"lacks 1 entries \(layer2.0.conv1.weight\)"),
        (lambda s: s.update(extra=torch.zeros(1)), r"unknown 1 entries \(extra\)"),
        (lambda s: s.update({"conv1.weight": torch.zeros(64, 1, 7, 7)}), "conv1.weight"),
    ],
)
def test_anything_else_that_does_not_fit_is_refused_by_name(state, damage, message):
    damaged = dict(state)
    damage(damaged)
    with pytest.raises(UserError, match=message):
        build_network("resnet18", 2, "batch", damaged)


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


@pytest.mark.parametrize("old_format", [False, True])
def test_code_in_a_raw_pickle_is_not_run_whatever_the_format(tmp_path, old_format):
    victim, file = tmp_path / "written", tmp_path / "evil.pth"
    payload = pickle.dumps(Payload(str(victim)))
    if old_format:
        file.write_bytes(payload)
    else:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("evil/data.pkl", payload)
            archive.writestr("evil/version", "3\n")
    with pytest.raises(UserError, match="weights_only") as caught:
        read_state_dict(file)
    assert not victim.exists()
    assert "\n" not in str(caught.value)
    with open(file, "rb") if old_format else zipfile.ZipFile(file).open("evil/data.pkl") as stream:
        pickle.load(stream)
    assert victim.exists()  # it would have run


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"not weights", pickle.dumps(1), b"\xff" * 64, b"\0" * 8 + b"{}"]
)
def test_a_file_that_holds_no_weights_is_one_line(tmp_path, content, kind):
    file = tmp_path / f"bad.{kind}"
    file.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_state_dict(file)
    assert "\n" not in str(caught.value)


def test_safetensors_hold_what_was_written_to_the_bit(state, tmp_path):
    write_state_dict(state, tmp_path / "net.safetensors")
    again = read_state_dict(tmp_path / "net.safetensors")
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], state[name]) for name in state)
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]


def test_safetensors_of_another_program_are_read_in_half_precision_too(state, tmp_path):
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    safetensors.torch.save_file(half, tmp_path / "half.safetensors")
    net = build_network("resnet18", 10, "batch", read_state_dict(tmp_path / "half.safetensors"))
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    torch.testing.assert_close(net.net.conv1.weight, state["conv1.weight"], atol=1e-3, rtol=1e-2)


def test_no_flipped_bit_and_no_truncation_of_written_weights_goes_unseen(tmp_path):
    small = {"a": torch.arange(3.0), "b": torch.tensor(7), "c": torch.ones(2, 2).half()}
    file = tmp_path / "small.safetensors"
    write_state_dict(small, file, provenance='{"epsilon": 1}')
    whole = file.read_bytes()
    flips = [(at, 1 << at % 8) for at in range(len(whole))]
    damaged = [whole[:at] + bytes([whole[at] ^ mask]) + whole[at + 1 :] for at, mask in flips]
    refused = 0
    for content in damaged + [whole[:length] for length in range(len(whole))]:
        file.write_bytes(content)
        try:
            again, metadata = read_weights(file)
        except UserError:
            refused += 1
        else:  # a bit that means nothing, as in the name of the digest
            assert metadata == '{"epsilon": 1}'
            assert again.keys() == small.keys()
            assert all(torch.equal(again[k], small[k]) for k in small)
            assert all(again[k].dtype == small[k].dtype for k in small)
    assert refused > 0.9 * len(damaged)


@pytest.mark.slow
def test_the_weights_that_a_run_leaves_are_weights_to_start_from(real_sweeps):
    (file,) = (real_sweeps[1] / "3").glob("model.*")  # trained with BatchNorm
    left = read_state_dict(file)
    again = build_network(SMALL, 2, "batch", left).net.state_dict()
    assert all(torch.equal(again[name], left[name]) for name in left)


def test_weights_trained_with_group_norm_start_another_such_run_and_no_other(state):
    left = build_network("resnet18", 10, "group", state).net.state_dict()
    again = build_network("resnet18", 10, "group", left).net.state_dict()
    assert all(torch.equal(again[name], left[name]) for name in left)
    for norm in ("batch", "frozen_batch"):
        with pytest.raises(UserError, match=r"lacks 40 entries \(bn1\.running_mean, .*, \.\.\.\)"):
            build_network("resnet18", 10, norm, left)


def test_a_full_disk_leaves_no_half_written_weights(state, tmp_path, disk):
    with disk(tmp_path / "small", "size=1m") as folder:
        with pytest.raises(OSError, match="No space left"):
            write_state_dict(state, folder / "net.safetensors")
        assert list(folder.iterdir()) == []


def test_imagenet_weights_come_from_the_cache_once_they_are_there(state, tmp_path, monkeypatch):
    requested = {}

    def get_state_dict(self, **kwargs):
        requested.update(kwargs)
        return state

    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", get_state_dict)
    assert imagenet_state_dict("resnet18", tmp_path) is state
    assert requested["model_dir"] == str(tmp_path / "weights")
    assert requested["check_hash"] is True
    assert requested["weights_only"] is True


def test_damaged_imagenet_weights_are_downloaded_again(tmp_path, monkeypatch, caplog):
    file = tmp_path / "weights" / "resnet18-f37072fd.pth"
    file.parent.mkdir()
    file.write_bytes(b"damaged")
    monkeypatch.setattr("torch.hub.download_url_to_file", lambda *_, **__: os.stat("/nowhere"))
    with pytest.raises(UserError, match=r"model\.weights=imagenet: the download"):
        imagenet_state_dict("resnet18", tmp_path)
    assert not file.exists()
    assert f"{file}: damaged" in caplog.text


def test_without_a_network_the_imagenet_download_is_one_line(tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise OSError("unreachable")

    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    with pytest.raises(UserError, match=r"model.weights=imagenet.*model.weights=phantom"):
        imagenet_state_dict("resnet18", tmp_path)


def test_the_stand_in_weights_fit(shared):
    file = shared / "weights" / "resnet18_standin.pth"
    for norm in ("batch", "group", "frozen_batch"):
        net = build_network("resnet18", 2, norm, read_state_dict(file)).eval()
        assert torch.isfinite(net(torch.rand(2, 1, 64, 64))).all()
