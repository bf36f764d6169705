from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from dicom_files import dicom
from PIL import Image

from dpmi.config.data_sets import DataConfig
from dpmi.data.decoding.settings import Decoding
from dpmi.data.prepare import PreparedData, prepare

Config = Callable[..., DataConfig]

RAMP = np.linspace(0, 4095, 32 * 32).reshape(32, 32).astype(np.uint16)
OTHER = {"bit_depth": 13, "window": [2000, 500], "value_range": [0, 5000]}  # than below


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Files of 12 bits in PNG, DICOM files and float TIFFs, four of each in each class."""
    for number in range(24):
        folder = tmp_path / "mixed" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        values = np.roll(RAMP, 31 * number, axis=0) ^ np.uint16(number)
        if number < 8:
            Image.fromarray(values).save(folder / f"{number}.png")
        elif number < 16:
            (folder / f"{number}.dcm").write_bytes(dicom(values, 12))
        else:
            tifffile.imwrite(folder / f"{number}.tif", values.astype(np.float32))
    return tmp_path / "mixed"


def test_no_key_reuses_the_pixels_or_the_fingerprint_of_another_value(
    config: Config, mixed: Path, tmp_path: Path
) -> None:
    def run(**changes: object) -> PreparedData:
        known = {"bit_depth": 12, "window": [1000, 900], "value_range": [0, 4095]}
        return prepare(config("folder", root=mixed, **known | changes), tmp_path / "cache")

    seen = [run(), *(run(**{key: value}) for key, value in OTHER.items())]
    pixels = [data.splits["train"].pixels for data in seen]
    for one, first in enumerate(pixels):
        for other in pixels[:one]:
            assert not np.array_equal(first, other)
    assert len({data.fingerprint.sha256 for data in seen}) == len(seen)
    again = run()
    assert np.array_equal(again.splits["train"].pixels, pixels[0])
    assert again.fingerprint == seen[0].fingerprint
    assert len(list((tmp_path / "cache" / "images").glob("*/pixels.npy"))) == len(seen)


def test_every_setting_that_changes_pixels_is_in_the_key() -> None:
    keys = {field.name for field in dataclasses.fields(Decoding)}
    assert set(Decoding(1, 12, (1, 2), (3, 4)).key) == keys - {"channels"}  # kept by itself


def test_a_set_that_uses_less_than_a_sixteenth_of_its_range_is_noted_in_one_line(
    config: Config, tmp_path: Path
) -> None:
    for number in range(12):
        folder = tmp_path / "deep" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.roll(RAMP, number)).save(folder / f"{number}.png")
    for _ in range(2):  # decoded, and from the cache
        (line,) = prepare(config("folder", root=tmp_path / "deep"), tmp_path / "cache").notes
        assert "together have 16 of 256 levels of brightness" in line
        assert "data.bit_depth=12" in line
    right = config("folder", root=tmp_path / "deep", bit_depth=12)
    assert prepare(right, tmp_path / "cache").notes == ()


def test_one_bright_image_of_a_dark_set_is_enough_for_no_note(
    config: Config, tmp_path: Path
) -> None:
    for number in range(12):
        folder = tmp_path / "dark" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        values = np.roll(RAMP, number) * (16 if number == 5 else 1)
        Image.fromarray(values.astype(np.uint16)).save(folder / f"{number}.png")
    assert prepare(config("folder", root=tmp_path / "dark"), tmp_path / "cache").notes == ()
