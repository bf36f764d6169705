"""Cards of real runs, in copies of their folders that a test may spoil."""

import json
import shutil

import numpy as np
import pytest
from made_once import made_once
from PIL import Image
from rich.console import Console

from dpmi.card import main as card
from dpmi.cards.making import weights_file
from dpmi.cards.rendering import read_card, write
from dpmi.models.weights import read_weights, write_state_dict
from dpmi.run.job import Run
from dpmi.run.records.reading import read_records

OWN = ("data=folder", "data.image_size=32", "data.channels=1", "data.batch_size=13")


@pytest.fixture(scope="session")
def runs(real_sweeps, composed, tiny, tmp_path_factory):
    """Folders of runs with their cards: by mechanism, and "own", of a user's own images."""

    def make(base):
        write_cards(real_sweeps, composed, tiny, base)

    base = made_once(tmp_path_factory, "carded", make)
    return {folder.parent.name: folder.parent for folder in base.glob("*/card.json")}


def write_cards(sweeps, composed, tiny, base):
    found = {}
    for sweep in sweeps:
        for folder in sorted(sweep.iterdir()):
            for record in read_records(folder) if folder.is_dir() else ():
                if record.status == "completed":
                    found.setdefault(record.config["mechanism"]["name"], folder)
    for name, folder in found.items():
        shutil.copytree(folder, base / name)
        found[name] = base / name
    images, rng = base / "images", np.random.default_rng(0)
    for label, grey in (("calm", 200), ("striped", 100)):
        (images / label).mkdir(parents=True)
        for number in range(40):
            pixels = rng.integers(0, grey, (32, 32), dtype=np.uint8)
            Image.fromarray(pixels).save(images / label / f"{number}.png")
    words = [word for word in tiny if not word.startswith("data")]
    words += [*OWN, f"data.root={images}", "mechanism=dpsgd", "mechanism.accountant=rdp"]
    found["own"] = base / "own"
    found["own"].mkdir()
    config = composed(*words, f"cache_dir={base / 'cache'}")
    assert Run(config, found["own"], Console(quiet=True)).execute().status == "completed"
    assert card([str(folder) for folder in found.values()]) == 0


@pytest.fixture
def forge(runs, tmp_path):
    """Write a card that says something else, with a digest that fits, and weights likewise.

    ``forge("dpsgd", change, metadata)``: ``change`` alters the plain values of the card in place,
    ``metadata`` those of what the weights file tells; gives the paths of both.
    """

    def make(name, change=lambda values: None, metadata=None):
        real, _ = read_card(runs[name] / "card.json")
        values = json.loads(real.as_json())
        weights = runs[name] / "model.safetensors"
        if metadata:
            state, stored = read_weights(weights)
            stored = json.loads(stored)
            metadata(stored)
            weights = tmp_path / "model.safetensors"
            write_state_dict(state, weights, json.dumps(stored))
            values["weights"] = weights_file(weights).model_dump()
        change(values)
        write(type(real).model_validate(values).sealed(), tmp_path)
        return tmp_path / "card.html", weights

    return make
