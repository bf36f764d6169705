"""What the tests of attacks have in common: heads on random public weights, in a second."""

import csv
import functools

import numpy as np
import pytest
import torch
from PIL import Image

from dpmi.models.network import ImageNetwork
from dpmi.models.weights import write_state_dict

HEAD = (
    *("data=phantom_xray", "data.image_size=32", "data.train_images=60", "data.val_images=10"),
    *("data.test_images=30", "data.batch_size=all", "trainer.accelerator=cpu", "logger=csv"),
    *("trainer.max_epochs=8", "model.norm=frozen_batch", "model.train=head", "data.augment=none"),
    *("model.learning_rate=1", "model.weight_decay=0", "max_grad_norm=0.7"),
    *("model.average=last_half", "model.prior=midway"),
)


@pytest.fixture(scope="session")
def head_words(tmp_path_factory):
    """Overrides of a run that trains a head on features of a random network."""
    folder = tmp_path_factory.mktemp("public")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        write_state_dict(
            ImageNetwork("resnet18", 2).net.state_dict(), folder / "weights.safetensors"
        )
    public = f"model.weights={folder / 'weights.safetensors'}", f"cache_dir={folder / 'cache'}"
    return *HEAD, *public


@pytest.fixture(scope="session")
def head(composed, head_words):
    """Compose such a run: ``head("mechanism=dpsgd")``."""
    return functools.lru_cache(lambda *words: composed(*head_words, *words))


@pytest.fixture(scope="session")
def clinic(tmp_path_factory):
    """30 patients to train on, one to four random images each, of one or of both classes."""
    folder, rng = tmp_path_factory.mktemp("clinic"), np.random.default_rng(0)
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "patient", "split"])
        for patient in range(40):
            for number in range(patient % 4 + 1):
                path = f"{patient}-{number}.png"
                Image.fromarray(rng.integers(0, 256, (32, 32), np.uint8)).save(folder / path)
                label = "ill" if (patient + number) % 2 else "well"
                rows.writerow([path, label, patient, "train" if patient < 30 else "test"])
    return folder


@pytest.fixture(scope="session")
def head_of_patients(composed, head_words, clinic):
    """Compose a run that trains a head on the clinic's patients."""
    own = ("data=csv", f"data.root={clinic}", "data.channels=1")
    kept = [
        word for word in head_words if not word.startswith(("data=", "data.train_", "data.val"))
    ]
    kept = [word for word in kept if not word.startswith("data.test_images")]
    return functools.lru_cache(lambda *words: composed(*own, *kept, *words))


@pytest.fixture(scope="session")
def findings(tmp_path_factory):
    """40 random images, each of three random findings, of which some are not known."""
    folder, rng = tmp_path_factory.mktemp("findings"), np.random.default_rng(0)
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "A", "B", "C", "split"])
        for n in range(60):
            Image.fromarray(rng.integers(0, 256, (32, 32), np.uint8)).save(folder / f"{n}.png")
            its = (
                [("", 0, 1)[k] for k in rng.choice(3, 3, p=(0.2, 0.4, 0.4))] if n else ["", "", ""]
            )
            rows.writerow([f"{n}.png", *its, "train" if n < 40 else "test"])
    return folder


@pytest.fixture(scope="session")
def head_of_findings(composed, head_words, findings):
    """Compose a run that trains a head on all three findings."""
    own = ("data=csv", f"data.root={findings}", "data.channels=1", "data.task=multilabel")
    drawn = ("data=", "data.train_", "data.val", "data.test_images")
    kept = [word for word in head_words if not word.startswith(drawn)]
    named = "data.findings=[A,B,C]"
    return functools.lru_cache(lambda *words: composed(*own, named, *kept, *words))
