"""Real images where they are at hand, images made on the fly, and public archives in small."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter

from dpmi.config.data_sets import DataConfig
from dpmi.data.catalogue import Catalogue
from dpmi.data.readers import read_catalogue
from dpmi.data.readers.medmnist_sets import MEDMNIST

Read = Callable[..., Catalogue]
Draw = Callable[..., Path]

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


@pytest.fixture
def read(config: Callable[..., DataConfig], tmp_path: Path) -> Read:
    """Read a set below ``tmp_path``: ``read("nih", finding="Mass")``."""
    return lambda name, **changes: read_catalogue(
        config(name, **{"root": tmp_path} | changes), tmp_path
    )


NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)


@pytest.fixture
def nih(tmp_path: Path, draw: Draw) -> Path:
    """Twelve patients of two images each; the last four patients are in the test list."""
    lines, lists = [NIH_HEADER], {"train_val_list.txt": [], "test_list.txt": []}
    for patient in range(1, 13):
        for visit in range(2):
            name = f"{patient:08}_{visit:03}.png"
            findings = ("No Finding", "Mass|Effusion", "Effusion", "Pleural_Thickening|Mass")[
                (patient + visit) % 4
            ]
            lines.append(
                f"{name},{findings},{visit},{patient},57,{'MF'[patient % 2]},{('PA', 'AP')[visit]},"
                "2682,2749,0.14300000000000002,0.14300000000000002,"
            )
            draw(tmp_path / f"images_{1 + patient // 6:03}" / "images" / name, patient * 2 + visit)
            lists["test_list.txt" if patient > 8 else "train_val_list.txt"].append(name)
    (tmp_path / "Data_Entry_2017.csv").write_text("\n".join(lines) + "\n")
    for name, names in lists.items():
        (tmp_path / name).write_text("\n".join(names) + "\n")
    return tmp_path


CHEXPERT_HEADER = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Edema,Pleural Effusion"


@pytest.fixture
def chexpert(tmp_path: Path, draw: Draw) -> Path:
    """Twelve patients to train on, with a lateral view each, and four in valid."""
    root = tmp_path / "CheXpert-v1.0-small"
    for table, patients in (("train", range(1, 13)), ("valid", range(64541, 64545))):
        lines = [CHEXPERT_HEADER]
        for patient in patients:
            for number, view in ((1, "frontal"), (2, "lateral")):
                path = f"{table}/patient{patient:05}/study1/view{number}_{view}.jpg"
                value = ("1.0", "", "0.0", "-1.0")[patient % 4] if table == "train" else "1.0"
                side = "AP" if view == "frontal" else ""
                lines.append(f"{root.name}/{path},Female,68,{view.title()},{side},,{value},")
                draw(root / path, patient * 2 + number)
        (root / f"{table}.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def mimic(tmp_path: Path, draw: Draw) -> Path:
    """Eight patients with a study of two views; of the last there are no labels."""
    split = ["dicom_id,study_id,subject_id,split"]
    metadata = ["dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows"]
    labels = ["subject_id,study_id,Atelectasis,Edema"]
    for number in range(8):
        patient, study = 10000032 + number * 1000000, 50414267 + number
        for view in ("PA", "LATERAL"):
            image = f"02aa804e-bde0afdd-{number}-{view}"
            where = ("train", "train", "train", "train", "validate", "validate", "test", "test")
            split.append(f"{image},{study},{patient},{where[number]}")
            metadata.append(f'{image},{patient},{study},"CHEST (PA, LAT)",{view},3056')
            folder = f"files/p{str(patient)[:2]}/p{patient}/s{study}"
            draw(tmp_path / folder / f"{image}.jpg", number * 2 + len(view))
        if number < 7:
            labels.append(f"{patient},{study},,{('1.0', '', '-1.0')[number % 3]}")
    for kind, lines in (("split", split), ("metadata", metadata), ("chexpert", labels)):
        packed = gzip.compress(("\n".join(lines) + "\n").encode())
        (tmp_path / f"mimic-cxr-2.0.0-{kind}.csv.gz").write_bytes(packed)
    return tmp_path
