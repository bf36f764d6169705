"""Chest X-Ray Images (Pneumonia), Kermany, Zhang and Goldbaum 2018, in Kaggle's folders.

5,216 training, 16 validation and 624 test X-rays of children, normal or with pneumonia.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from dpmi.config.data_sets import BenchmarkData
from dpmi.data.catalogue import SPLITS, Catalogue
from dpmi.data.decoding.settings import Decoding
from dpmi.data.files import FileSource, image_files, no_data

CLASSES = ("NORMAL", "PNEUMONIA")

# person17_bacteria_55.jpeg; IM-0115-0001.jpeg; NORMAL2-IM-1234-0001.jpeg
_PATIENT = re.compile(r"(person\d+)_|((?:NORMAL2-)?IM-\d+)-")
_KIND = re.compile(r"person\d+_(bacteria|virus)_")


def read_chest_xray(config: BenchmarkData) -> Catalogue:
    """Read ``root/{train,val,test}/{NORMAL,PNEUMONIA}/*.jpeg``; val may be absent.

    Raises:
        UserError: there are no images in these folders.
    """
    root = Path(config.root)
    # Kaggle's archive holds everything in one more folder.
    inner = root / "chest_xray"
    if not (root / "train").is_dir() and (inner / "train").is_dir():
        root = inner

    paths, labels, splits = [], [], []
    for split in SPLITS:
        for label, name in enumerate(CLASSES):
            for file in image_files(root / split / name):
                paths.append(f"{split}/{name}/{file}")
                labels.append(label)
                splits.append(split)
    if not paths:
        raise no_data(
            config.name,
            root,
            "Kaggle's folders train/, val/ and test/, each with NORMAL/ and PNEUMONIA/ of .jpeg "
            "files",
            download=True,
            instead="phantom_xray",
        )
    return Catalogue(
        name=config.name,
        classes=CLASSES,
        graded=False,
        channels=1,
        paths=tuple(paths),
        labels=np.asarray(labels, dtype=np.int64),
        patients=tuple(patient_of(Path(path).name) for path in paths),
        splits=tuple(splits),
        source=FileSource(root, Decoding(channels=1)),
        groups={"kind": tuple(kind_of(path) for path in paths)},
    )


def patient_of(file_name: str) -> str:
    """Return the patient a file name tells: the person, or for a normal X-ray the study.

    ``person17_bacteria_55`` and ``person17_virus_1`` are taken for one patient, as the set is
    commonly read. The names themselves leave room for doubt: the persons with bacterial and with
    viral pneumonia are numbered in two series, each growing with the image's number through both
    train and test, and within a series no person is in two splits. So the 170 persons found in
    both train and test (as bacteria here, virus there) may be different children under the same
    number. Taking them for one is the cautious reading: it makes patients larger, never smaller,
    and reports a leak where there may be none. ``IM-0115`` and ``NORMAL2-IM-0115`` are two
    series by their names, and are kept apart.

    Returns:
        For instance "person17", "IM-0115" or "NORMAL2-IM-1234"; "" for other names.
    """
    match = _PATIENT.match(file_name)
    return (match[1] or match[2]) if match else ""


def kind_of(path: str) -> str:
    """Return the kind of pneumonia that a file's name tells; of a normal X-ray "normal".

    Args:
        path: ``split/class/name``.

    Returns:
        "normal", "bacteria", "virus", or "" for another name among the pneumonias.
    """
    _, name, file = path.split("/")[-3:]
    if name == "NORMAL":
        return "normal"
    match = _KIND.match(file)
    return match[1] if match else ""
