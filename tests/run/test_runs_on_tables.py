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
    printed = [line for line in screen.splitlines() if line.startswith("list.csv: ")]
    assert len(printed) == 3
    assert "a semicolon between" in printed[0]
    assert "Path as path, Label as label, Patient as patient, Split as split" in printed[1]
    assert "paths without an extension (60)" in printed[2]
    assert "Müller" not in (place.outputs / screen.split()[-1]).with_name("public.json").read_text()


def test_nihs_archive_is_trained_on_by_patient_for_one_finding(place, train):
    lines = ["Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Sex,"]
    lists = {"train_val_list.txt": [], "test_list.txt": []}
    for n in range(90):
        name, findings = f"{n // 2:08}_{n % 2:03}.png", ("No Finding", "Mass|Effusion", "Mass")
        lines.append(f"{name},{findings[n // 2 % 3]},{n % 2},{n // 2},57,F,")
        lists["test_list.txt" if n >= 60 else "train_val_list.txt"].append(name)
        draw(place.cwd / "nih" / f"images_{1 + n // 50:03}" / "images" / name, n)
    (place.cwd / "nih" / "Data_Entry_2017.csv").write_text("\n".join(lines))
    for name, names in lists.items():
        (place.cwd / "nih" / name).write_text("\n".join(names))
    record, screen = train(
        *("data=nih", "data.root=nih", "data.finding=Effusion", "data.val_fraction=0.2"),
        "data.groups=[sex]",
    )
    assert record.data["class_counts"] == {
        "train": {"no Effusion": 32, "Effusion": 16},
        "val": {"no Effusion": 8, "Effusion": 4},
        "test": {"no Effusion": 20, "Effusion": 10},
    }
    assert (record.guarantee.unit, record.data["patients_in_two_splits"]) == ("patient", 0)
    assert record.mechanism["plan"]["n"] == 24
    assert "test/recall/Effusion" in record.metrics
    assert "left out" not in screen


def test_eyepacs_is_trained_on_by_patient_with_kappa_of_its_grades(place, train):
    lines = ["image,level"]
    for n in range(120):
        name = f"{n // 2}_{('left', 'right')[n % 2]}"
        lines.append(f"{name},{n // 2 % 5}")
        draw(place.cwd / "train" / f"{name}.jpeg", n)
    (place.cwd / "trainLabels.csv").write_text("\n".join(lines))
    (place.cwd / "train" / "0_left.jpeg").unlink()
    record, screen = train("data=eyepacs", "data.root=.", "data.on_missing=skip")
    assert sum(record.data["counts"].values()) == 119
    assert (record.guarantee.unit, record.data["patients_in_two_splits"]) == ("patient", 0)
    assert "test/kappa" in record.metrics
    assert "1 of 120 images that are listed are not there and are left out" in screen
