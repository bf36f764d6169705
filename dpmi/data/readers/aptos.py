"""APTOS 2019 Blindness Detection: 3,662 fundus photographs, five grades of retinopathy."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dpmi.base.errors import UserError
from dpmi.config.data_sets import BenchmarkData
from dpmi.data.catalogue import Catalogue
from dpmi.data.decoding.settings import Decoding
from dpmi.data.files import FileSource, image_files, no_data
from dpmi.data.splitting import stratified_split
from dpmi.data.tables import read_table

# The international clinical scale of diabetic retinopathy, 0 to 4.
CLASSES = ("no DR", "mild", "moderate", "severe", "proliferative")

# The poster's split, which has no validation part: 2,929 images to train, 733 to test.
_TEST_FRACTION = 0.2
_SPLIT_SEED = 42


def read_aptos(config: BenchmarkData) -> Catalogue:
    """Read ``root/train.csv`` (id_code, diagnosis) and ``root/train_images/<id_code>.png``.

    Raises:
        UserError: these are absent, a diagnosis is not an integer from 0 to 4, or an image
            named in the table is missing.
    """
    root = Path(config.root)
    table = root / "train.csv"
    present = set(image_files(root / "train_images"))
    if not present or not table.is_file():
        raise no_data(
            config.name,
            root,
            "Kaggle's train.csv (columns id_code and diagnosis) and train_images/ of .png files",
            download=True,
            instead="phantom_fundus",
        )
    labels: dict[str, int] = {}  # by path, in the order of the table, on which the split depends
    for row in read_table(table, ["id_code", "diagnosis"]).rows:
        diagnosis = row.values["diagnosis"]
        if diagnosis not in {"0", "1", "2", "3", "4"}:
            raise UserError(
                f"{table}, line {row.line}: diagnosis {diagnosis!r} is not an integer from 0 "
                f"({CLASSES[0]}) to 4 ({CLASSES[4]}). Correct the line or take Kaggle's file."
            )
        file = f"{row.values['id_code']}.png"
        path = f"train_images/{file}"
        if file not in present:
            raise UserError(
                f"{table}, line {row.line}: there is no image {root / 'train_images' / file}. "
                "Put it there, or remove the line."
            )
        if path in labels:
            raise UserError(
                f"{table}, line {row.line}: {file} is listed a second time. Remove one of the two."
            )
        labels[path] = int(diagnosis)
    label_array = np.asarray(list(labels.values()), dtype=np.int64)
    return Catalogue(
        name=config.name,
        classes=CLASSES,
        graded=True,
        channels=3,
        paths=tuple(labels),
        labels=label_array,
        patients=("",) * len(labels),
        splits=stratified_split(
            label_array,
            val_fraction=0,
            test_fraction=_TEST_FRACTION,
            seed=_SPLIT_SEED,
            classes=CLASSES,
            where=str(table),
            advice="take Kaggle's whole file",
        ),
        source=FileSource(root, Decoding(channels=3)),
    )
