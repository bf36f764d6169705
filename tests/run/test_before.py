"""What is refused before any work: exit status 2, one line, nothing written."""

from __future__ import annotations

import re
import shlex

import numpy as np
import pytest
import torch
from hydra.errors import HydraException
from PIL import Image

from dpmi.base.errors import UserError
from dpmi.launch.sweep import explain
from dpmi.run.before import make_folder, refuse_on_this_machine

# Overrides, and what their line must say: the key with its value, and what is allowed or to do.
REFUSED = {
    "seed=1099511627776": "seed=1099511627776: .*less than 4294967296",
    "trainer.accelerator=gpu": "trainer.accelerator=gpu: there is no GPU here.* auto and cpu",
    "trainer=ddp trainer.accelerator=gpu": "trainer.accelerator=gpu: there is no GPU",
    "trainer.compile=true": "trainer.compile=True: .*there is no no-such-compiler here.* CXX",
    "model.weights=no.pth": r"model\.weights=no\.pth: no such file; allowed are phantom,",
    "mechanism=ldp beta=0.01": "beta=0.01: .*allowed is about 0.4 to 1e7",
    "mechanism=ldp beta=2 privacy.max_epsilon=0.4": "max_epsilon=0.4: .* = 0.5 of .* 2.5 or more",
    "mechanism.calibration=noise_multiplier model.prior=train beta=1e9": "beta=1e.09: .* to 100000",
    "mechanism.calibration=noise_multiplier model.prior=train beta=0.01": "beta=0.01: .* 0.1 to",
    "mechanism.calibration=noise_multiplier": "calibration=noise_multiplier: there is no ε of",
    "cache_dir=file/x": "cache_dir=file/x: no folder can be made there",
    "output_dir=file/x": "output_dir=file/x: no folder can be made there",
    "'output_dir=\"~nobody-here\"'": "output_dir=~nobody-here: no user here has a home folder",
    "output_dir=/proc/x": "output_dir=/proc/x: no folder can be made there",
    f"output_dir={'x' * 300}": "output_dir=x+: no folder can be made there .*too long",
    "data=folder 'data.root=my images (2)'": r"write 'data\.root=\"my images \(2\)\"'",
    "-m mechanism=none,ldp beta=1,0.01": "beta=0.01: .*allowed is about",
    "-m mechanism=none seed=1,2 trainer.accelerator=cpu,gpu": "trainer.accelerator=gpu: there is",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_run_here_is_one_line_before_anything_is_written(place, words):
    (place.cwd / "file").touch()
    variables = {"CUDA_VISIBLE_DEVICES": "", "CXX": "no-such-compiler"}
    on_cpu = () if "accelerator" in words else ("trainer.accelerator=cpu",)
    done = place.train(*shlex.split(words), *on_cpu, "logger=csv", **variables)
    assert done.returncode == 2, done.stdout
    assert re.fullmatch(rf"error: [^\n]*{REFUSED[words]}[^\n]*\n", done.stderr), done.stderr
    assert done.stdout == ""
    assert place.files(place.cwd) == {"file"}
    assert place.files(place.home) == place.files(place.tmp) == set()
    assert not list(place.cache.rglob("*"))


def test_a_home_folder_is_meant_by_a_tilde_in_every_path(place, tiny):
    for number in range(20):
        folder = place.home / "images" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    words = ("data=folder", "data.root=~/images", "data.image_size=32", "data.batch_size=2")
    its = [word for word in tiny if not word.startswith("data")]
    done = place.train(*its, *words, "output_dir=~/out", "cache_dir=~/my-cache", "mechanism=none")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name for path in place.home.iterdir()} == {"images", "out", "my-cache"}
    assert list((place.home / "out").glob("folder-none-seed42-*/record.json"))
    assert place.files(place.cwd) == set()


@pytest.mark.parametrize(
    "value", ["my images (2)", "a=b", "it's, isn't it", 'a "b" (c)', "ü#1", "a=b\\", "[1]x", "a,b"]
)
def test_an_override_as_the_message_quotes_it_is_what_was_meant(composed, value):
    with pytest.raises(HydraException) as refusal:
        composed("data=folder", f"data.root=/x/{value}")
    (quoted,) = shlex.split(explain(refusal.value).partition(" write ")[2])
    assert composed("data=folder", quoted).data.root == f"/x/{value}"


def test_more_devices_than_gpus_are_refused_and_as_many_are_not(composed, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for accelerator in ("gpu", "auto"):
        words = ("trainer=ddp", f"trainer.accelerator={accelerator}")
        refuse_on_this_machine(composed(*words, "trainer.devices=2"))
        with pytest.raises(UserError, match=r"trainer\.devices=3: .* 2 GPUs here; allowed is 1 to"):
            refuse_on_this_machine(composed(*words, "trainer.devices=3"))
    refuse_on_this_machine(composed("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=3"))


def test_without_a_gpu_any_number_of_processes_shares_the_processor(composed, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refuse_on_this_machine(composed("trainer=ddp", "trainer.devices=3"))


def test_a_compiler_without_pythons_headers_is_refused(composed, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"include": "/nowhere"})
    words = ("trainer.compile=true", "trainer.accelerator=cpu")
    with pytest.raises(UserError, match=r"trainer\.compile=True: needs Python's headers"):
        refuse_on_this_machine(composed(*words))


def test_a_folder_that_is_there_but_takes_no_files_is_refused(tmp_path, monkeypatch):
    make_folder("output_dir", tmp_path)
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write anywhere
    with pytest.raises(UserError, match=r"output_dir=.*: this folder cannot be written to"):
        make_folder("output_dir", tmp_path)
