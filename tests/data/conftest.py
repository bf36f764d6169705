"""Real images where they are at hand, and images made on the fly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter

from dpmi.config.data_sets import DataConfig
from dpmi.data.readers.medmnist_sets import MEDMNIST

COMMON = {
    "image_size": 32,
    "resize": None,
    "batch_size": 4,
    "augment": "none",
    "multiplicity": 1,
    "on_corrupt": "error",
    "num_workers": 0,
    "resident": "auto",
    "groups": None,
}
OWN = {
    "channels": 3,
    "graded": False,
    "many_classes": False,
    "val_fraction": 0.2,
    "test_fraction": 0.2,
    "split_seed": 42,
    "bit_depth": "auto",
    "window": None,
    "value_range": None,
    "max_left_out": 0.1,
}
ARCHIVE = {"on_missing": "error", "max_left_out": 0.1, "val_fraction": 0.25, "split_seed": 42}
ONE = {"task": "classes", "findings": None}
SEVERAL = {"task": "multilabel", "finding": None}
DEFAULTS: dict[str, dict[str, Any]] = {
    "chest_xray": {"test": "official", "max_left_out": 0.1},
    "aptos": {"test": "official", "max_left_out": 0.1},
    "folder": OWN,
    "csv": OWN | {"csv": "labels.csv", "task": "classes", "findings": None},
    "nih": ARCHIVE | ONE | {"finding": "Mass"},
    "chexpert": ARCHIVE | ONE | {"finding": "Edema", "uncertain": "ignore", "views": "frontal"},
    "mimic_cxr": ONE
    | {
        "on_missing": "error",
        "max_left_out": 0.1,
        "finding": "Edema",
        "uncertain": "ignore",
    }
    | {"views": "frontal"},
    "eyepacs": ARCHIVE | {"test_fraction": 0.25},
    "messidor2": ARCHIVE | {"test_fraction": 0.25},
    **{name: {"size": 28} for name in MEDMNIST},
}


@pytest.fixture
def config() -> Callable[..., DataConfig]:
    """Make the data section of a config: ``config("folder", root=...)``."""

    def make(name: str, **changes: Any) -> DataConfig:
        values = COMMON | DEFAULTS.get(name, {}) | {"name": name} | changes
        values = {key: str(v) if isinstance(v, Path) else v for key, v in values.items()}
        return TypeAdapter(DataConfig).validate_python(values)

    return make


@pytest.fixture
def real_images(shared: Path) -> Path:
    """The folder of real X-rays."""
    folder = shared / "data"
    if not (folder / "chest_xray" / "train").is_dir():
        pytest.skip(f"no real X-rays: {folder / 'chest_xray'} is absent (set DPMI_SHARED)")
    return folder


@pytest.fixture
def draw() -> Callable[..., Path]:
    """Write an image of noise: ``draw(path, seed)``; equal seeds write equal bytes."""

    def write(
        path: Path, seed: int = 0, size: tuple[int, int] = (40, 36), mode: str = "RGB"
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
        values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(values).save(path)
        return path

    return write


@pytest.fixture
def classes(tmp_path: Path, draw: Callable[..., Path]) -> Path:
    """train/ and test/ with the classes cat (4 + 2 images) and dog (3 + 2 images)."""
    root = tmp_path / "images"
    seed = 0
    for split, counts in {"train": (4, 3), "test": (2, 2)}.items():
        for name, count in zip(("cat", "dog"), counts, strict=True):
            for number in range(count):
                draw(root / split / name / f"{number}.png", seed)
                seed += 1
    return root
