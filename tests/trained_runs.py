"""Real runs on a user's own images in files, of other sizes than the network's."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from rich.console import Console
from small_network import SMALL

from dpmi.config.folder import config_dir
from dpmi.config.schema import load_config
from dpmi.models.network import ImageNetwork
from dpmi.models.weights import write_state_dict
from dpmi.run.job import Run
from dpmi.run.stages import training


@dataclass(frozen=True)
class Trained:
    """A run on a user's own images in files, and what it was measured by.

    Attributes:
        folder: of the run.
        images: folder of the images; ``table`` lists them.
        paths: of the test images, in their order.
        labels: names of their classes.
        probabilities: (n, K), of the test images as the run itself measured them.
        backbone: the file of weights that the run started from.
    """

    folder: Path
    images: Path
    table: Path
    paths: list[Path]
    labels: list[str]
    probabilities: Any
    backbone: Path


OF_SMALL = f"model.name={SMALL}"
# All that can be trained, each with another norm, prior or reading of the images.
RUNS = {
    "none": ("mechanism=none", "model.norm=batch", "model.prior=uniform"),
    "ldp": (
        "mechanism=ldp",
        "mechanism.pool=4",
        "model.norm=group",
        "model.prior=midway",
        OF_SMALL,
    ),
    "dpsgd": ("mechanism=dpsgd", "model.norm=frozen_batch", "model.prior=midway", OF_SMALL),
    "head": (
        *("mechanism=dpsgd", "model.norm=frozen_batch", "model.train=head", "model.prior=midway"),
        *("model.features.views=[identity,mirror]", "model.features.exposure=per_image"),
        *("model.features.project=5", "data.batch_size=all"),
    ),
    "ordinal": (
        *("mechanism=none", "model.norm=frozen_batch", "model.train=head", "model.head=ordinal"),
        *("model.features.exposure=as_is", "data.channels=3"),
    ),
    "findings": (
        *("mechanism=dpsgd", "model.norm=frozen_batch", "model.prior=midway", OF_SMALL),
        *("data.task=multilabel", "data.csv=findings.csv", "data.findings=[Lying,Third]"),
    ),
}


def write_inputs(base: Path) -> None:
    """Write the images and the weights that all runs of a network start from."""
    _write_images(base / "images")
    for network in ("resnet18", SMALL):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            state = ImageNetwork(network, 2).net.state_dict()
        write_state_dict(state, base / f"{network}.safetensors")


def _write_images(folder: Path) -> None:
    """Stripes, standing or lying, in files of several kinds and sizes; a few in colour."""
    folder.mkdir()
    rng, rows = np.random.default_rng(0), ["path,label,patient,split,site"]
    findings = ["path,Lying,Third,patient,split,site"]  # some are not known
    for number in range(90):
        label, split = ("lying", "standing")[number % 2], "train" if number < 60 else "test"
        height, width = rng.integers(40, 70, 2)
        wave = (np.arange(max(height, width)) // 4 + rng.integers(0, 4)) % 2 * 120
        pixels = np.broadcast_to(
            wave[:height, None] if number % 2 else wave[:width], (height, width)
        )
        pixels = (pixels + rng.integers(0, 135, (height, width))).astype(np.uint8)
        name = f"{number:02}.{('png', 'jpeg')[number % 3 == 0]}"
        coloured = number in (1, 87, 88)  # to train and to test on, PNG and JPEG
        shown = np.stack([pixels, pixels // 2, 255 - pixels], 2) if coloured else pixels
        Image.fromarray(shown).save(folder / name)
        rows.append(f"{name},{label},p{number // 2},{split},{'AB'[number % 4 // 2]}")
        shown = f"{int(number % 2 == 0)},{int(number % 3 == 0) if number % 5 else ''}"
        findings.append(f"{name},{shown}{rows[-1].removeprefix(f'{name},{label}')}")
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    (folder / "findings.csv").write_text("\n".join(findings) + "\n")


def train(inputs: Path, name: str, base: Path) -> None:
    """Make the run of this name in a folder, and keep what it measured for ``read``."""
    words = RUNS[name]
    network = SMALL if OF_SMALL in words else "resnet18"
    images, backbone = inputs / "images", inputs / f"{network}.safetensors"
    table = images / ("findings.csv" if name == "findings" else "table.csv")
    own = (
        *("data=csv", f"data.root={images}", "data.csv=table.csv", "data.channels=1"),
        *("data.image_size=32", "data.resize=40", "data.batch_size=20", "data.groups=[site]"),
        *("trainer.max_epochs=2", "trainer.accelerator=cpu", "logger=csv", "model.average=none"),
        *(f"model.weights={backbone}", f"cache_dir={base / 'cache'}", "privacy.unit=image"),
    )
    accountant = ("mechanism.accountant=rdp", "mechanism.delta=1e-3")
    private = accountant if "mechanism=dpsgd" in words else ()
    (folder := base / "run").mkdir()
    with initialize_config_dir(config_dir(), version_base="1.3"):
        config = load_config(compose("config", overrides=[*own, *words, *private]))
    models, make = [], training.classifier
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            training, "classifier", lambda *given: models.append(make(*given)) or models[-1]
        )
        record = Run(config, folder, Console(quiet=True)).execute()
    assert record.status == "completed", record.reason
    rows = [line.split(",") for line in table.read_text().splitlines()[1:]]
    tested = [row for row in rows if row[-2] == "test"]
    trained = Trained(
        folder=folder,
        images=images,
        table=table,
        paths=[images / row[0] for row in tested],
        labels=[row[1] for row in tested],
        probabilities=models[0].tested[0],
        backbone=backbone,
    )
    (base / "trained.pickle").write_bytes(pickle.dumps(trained))


def read(base: Path, copy: Path) -> Trained:
    """The run that ``train`` made there, in whichever process; its folder is a copy to write in."""
    trained = pickle.loads((base / "trained.pickle").read_bytes())
    return replace(trained, folder=shutil.copytree(trained.folder, copy))
