import dataclasses

import numpy as np
import pytest
import torch
from rich.console import Console

from dpmi.base.errors import UserError
from dpmi.features import cache
from dpmi.features.cache import FeatureRequest, pooled_features

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def request_for(stripes, pretrained):
    def make(**changes):
        request = FeatureRequest(stripes(train=6), 32, pretrained, "layer1", "identity", "as_is")
        return dataclasses.replace(request, **changes)

    return make


@pytest.fixture
def computed(monkeypatch):
    """How often features were computed."""
    times = []
    compute = cache._compute
    monkeypatch.setattr(cache, "_compute", lambda *a: times.append(a[0]) or compute(*a))
    return times


def ask(request, folder):
    return pooled_features(request, folder, Console(quiet=True))


def test_features_are_computed_once_and_are_read_as_they_were(request_for, computed, tmp_path):
    first, again = (ask(request_for(), tmp_path) for _ in range(2))
    assert len(computed) == 1
    assert first.keys() == again.keys() == {"train", "test"}
    for split in first:
        assert torch.equal(first[split]["layer1"], again[split]["layer1"])
    assert first["train"]["layer1"].shape == (6, 64)


def test_whatever_features_depend_on_makes_others(request_for, computed, pretrained, tmp_path):
    first = request_for()
    others = pretrained.state | {"conv1.weight": pretrained.state["conv1.weight"] * 2}
    other_images = dataclasses.replace(first.data.fingerprint, sha256="1" * 64)
    requests = [
        first,
        request_for(view="mirror"),
        request_for(exposure="per_image"),
        request_for(image_size=31),
        request_for(pretrained=dataclasses.replace(pretrained, state=others)),
        request_for(pretrained=dataclasses.replace(pretrained, input="half")),
        request_for(data=dataclasses.replace(first.data, fingerprint=other_images)),
    ]
    for request in requests:
        ask(request, tmp_path)
    assert len(computed) == len(requests)


def test_images_that_another_data_set_has_are_not_computed_again(
    request_for, monkeypatch, tmp_path
):
    """A new split of the same images and one more: each image has the features it had."""
    wanted, passed, forward = request_for(deepest="layer2"), [], cache.FrozenBackbone.forward
    whole = ask(wanted, tmp_path)
    order = [5, 0, 3, 1]
    old, test = wanted.data.splits["train"], wanted.data.splits["test"]
    new = 255 - old.pixels[:1]
    split = dataclasses.replace(
        old,
        pixels=np.concatenate([old.pixels[order], new, test.pixels[:1]]),
        labels=np.concatenate([old.labels[order], old.labels[:1], test.labels[:1]]),
    )
    fingerprint = dataclasses.replace(wanted.data.fingerprint, sha256="1" * 64)
    data = dataclasses.replace(
        wanted.data, splits=wanted.data.splits | {"train": split}, fingerprint=fingerprint
    )
    monkeypatch.setattr(
        cache.FrozenBackbone, "forward", lambda s, x: passed.append(len(x)) or forward(s, x)
    )
    console = Console(record=True, width=500)
    request = dataclasses.replace(wanted, data=data, deepest="layer1")
    got = pooled_features(request, tmp_path, console)["train"]["layer1"]
    assert passed == [1]
    total = 6 + len(test.labels)
    assert f"features of 1 of {total} images, others are known" in console.export_text()
    assert torch.equal(got[:4], whole["train"]["layer1"][order])
    assert torch.equal(got[5:], whole["test"]["layer1"][:1])
    alone = ask(request, tmp_path / "fresh")["train"]["layer1"]
    torch.testing.assert_close(got, alone)


def test_a_file_of_deeper_stages_serves_a_shallower_request(request_for, computed, tmp_path):
    deep = ask(request_for(deepest="layer3"), tmp_path)
    shallow = ask(request_for(deepest="layer1"), tmp_path)
    assert len(computed) == 1
    assert list(shallow["test"]) == ["layer1"]
    assert torch.equal(shallow["test"]["layer1"], deep["test"]["layer1"])


def test_a_damaged_file_is_reported_and_made_anew(request_for, computed, tmp_path):
    whole = ask(request_for(), tmp_path)
    (file,) = (tmp_path / "features").glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    console = Console(record=True, width=500)
    again = pooled_features(request_for(), tmp_path, console)
    assert "damaged; computed anew" in console.export_text()
    assert len(computed) == 2
    assert torch.equal(again["test"]["layer1"], whole["test"]["layer1"])


def test_a_cache_that_cannot_be_written_is_one_clear_line(request_for, tmp_path):
    (tmp_path / "features").touch()
    with pytest.raises(UserError, match=r"^cache_dir=.*the features cannot be kept there"):
        ask(request_for(), tmp_path)


def test_a_process_killed_while_computing_leaves_no_file(request_for, monkeypatch, tmp_path):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cache.FrozenBackbone, "forward", killed)
    with pytest.raises(KeyboardInterrupt):
        ask(request_for(), tmp_path)
    assert not list((tmp_path / "features").glob("*.safetensors"))
    assert not list((tmp_path / "features").glob("*.part"))
