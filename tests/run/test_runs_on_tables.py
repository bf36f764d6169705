"""Whole runs, by the command, on images that lie as hospitals and archives have them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpmi.run.records.reading import read_record

OWN = ("data.image_size=32", "data.batch_size=10", "mechanism.accountant=rdp")


@pytest.fixture
def train(place, tiny) -> Callable:
    """Train on a set: ``train("data=csv", ...)`` gives the record and what was on the screen."""
    settings = [word for word in tiny if not word.startswith("data")]

    def run(*words: str):
        done = place.train(*settings, *OWN, *words)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        (path,) = place.outputs.glob("*/record.json")
        return read_record(path), done.stdout

    return run


def draw(path: Path, seed: int, side: int = 32) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def test_a_table_of_semicolons_is_trained_on_and_one_line_on_the_screen_says_so(place, train):
    lines = ["Path;Label;Patient;Split"]
    for n in range(60):
        draw(place.cwd / "Röntgen, 2024" / f"{n}.png", n)
        split = "TEST" if n >= 40 else "TRAIN"
        lines.append(f"Röntgen, 2024\\{n};{('krank', 'gesund')[n % 2]};Müller {n // 2};{split}")
    (place.cwd / "list.csv").write_text("\r\n".join(lines), encoding="utf-8-sig")
    record, screen = train("data=csv", "data.root=.", "data.csv=list.csv", "data.channels=1")
    assert record.data["class_counts"]["train"] == {"gesund": 20, "krank": 20}
    assert record.guarantee.unit == "patient"
    told = [line for line in screen.splitlines() if line.startswith("list.csv: ")]
    assert len(told) == 3
    assert "a semicolon between" in told[0]
    assert "Path as path, Label as label, Patient as patient, Split as split" in told[1]
    assert "60 paths have no extension" in told[2]
    assert "Müller" not in (place.outputs / screen.split()[-1]).with_name("public.json").read_text()
