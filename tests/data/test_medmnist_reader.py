from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dpmi.base.errors import UserError
from dpmi.config.data_sets import DataConfig
from dpmi.data.readers import read_catalogue
from dpmi.data.readers.medmnist_sets import MEDMNIST, RETINOPATHY_GRADES

Config = Callable[..., DataConfig]
ARRAYS = {"train": 12, "val": 4, "test": 6}


@pytest.fixture
def medmnist(tmp_path: Path) -> Path:
    """medmnist's archives in small: 28 px, gray or in colour."""
    root = tmp_path / "cache" / "medmnist"
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, its in MEDMNIST.items():
        shape, classes = ((28, 28), (28, 28, 3))[its.channels == 3], len(its.classes)
        arrays = {}
        for split, count in ARRAYS.items():
            images = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
            arrays[f"{split}_images"] = images
            arrays[f"{split}_labels"] = (np.arange(count) % classes).astype(np.uint8)[:, None]
        np.savez_compressed(root / f"{name}.npz", **arrays)
    return root


@pytest.mark.parametrize("name", MEDMNIST)
def test_medmnist_archives_are_read(config: Config, medmnist: Path, name: str) -> None:
    channels, graded = MEDMNIST[name].channels, name == "retinamnist"
    catalogue = read_catalogue(config(name, root=None), medmnist.parent)
    assert Counter(catalogue.splits) == ARRAYS
    assert (catalogue.channels, catalogue.graded) == (channels, graded)
    with np.load(medmnist / f"{name}.npz") as arrays:
        last = arrays["test_images"][-1].reshape(28, 28, channels)
        assert catalogue.labels[-1] == arrays["test_labels"][-1, 0]
    assert len(catalogue.classes) > catalogue.labels.max()
    assert np.array_equal(catalogue.source.load(catalogue.paths[-1], 28), last)
    assert catalogue.source.load(catalogue.paths[0], 64).shape == (64, 64, channels)
    contents = {catalogue.source.fetch(path) for path in catalogue.paths}
    assert len(contents) == len(catalogue.paths)


def test_the_table_of_sets_is_medmnists_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    own = __import__("medmnist").INFO
    flat = {
        name: (info["n_channels"], tuple(info["label"].values()))
        for name, info in own.items()
        if not name.endswith("3d") and info["task"] != "multi-label, binary-class"
    }
    ours = {name: (its.channels, its.classes) for name, its in MEDMNIST.items()}
    assert ours == flat | {"retinamnist": (3, RETINOPATHY_GRADES)}
    for name in MEDMNIST:
        assert all(f"url{size}" in own[name] for size in ("", "_64", "_128", "_224"))


def test_medmnist_without_a_network_is_one_clear_error(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("socket.socket.connect", offline)
    monkeypatch.setattr("socket.getaddrinfo", offline)
    with pytest.raises(UserError, match=r"pneumoniamnist_64\.npz is not in .* cannot be downl"):
        read_catalogue(config("pneumoniamnist", root=None, size=64), tmp_path)
    assert [path.suffix for path in (tmp_path / "medmnist").iterdir()] == [".lock"]


def test_medmnist_on_a_disk_that_takes_no_writing_is_one_clear_error(
    config: Config, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match=r"cache_dir: .* cannot be written: Not a directory"):
        read_catalogue(config("retinamnist", root=None), tmp_path / "file")


def test_a_damaged_medmnist_archive_is_refused(config: Config, medmnist: Path) -> None:
    file = medmnist / "retinamnist.npz"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"retinamnist\.npz: .* damaged"):
        read_catalogue(config("retinamnist", root=None), medmnist.parent)


def test_a_folder_of_ones_own_for_medmnist_is_used(
    config: Config, medmnist: Path, tmp_path: Path
) -> None:
    shutil.move(medmnist, tmp_path / "mine")
    catalogue = read_catalogue(config("pneumoniamnist", root=tmp_path / "mine"), tmp_path / "cache")
    assert len(catalogue.paths) == 22
