"""CheXpert: 224,316 chest X-rays of 65,240 patients (Irvin et al. 2019)."""

from __future__ import annotations

import re
from pathlib import Path

from dpmi.base.errors import UserError
from dpmi.config.data_sets import ChexpertData
from dpmi.data.catalogue import Catalogue
from dpmi.data.readers.archives import (
    Listed,
    archive_catalogue,
    no_archive,
    with_validation,
)
from dpmi.data.readers.findings import classes_of, left_out, report_label, unknown_findings
from dpmi.data.tables import read_table

_TABLES = {"train.csv": "train", "valid.csv": "test"}
_VIEW = "Frontal/Lateral"
# CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg
_PATH = re.compile(r"(?:.*/)?((?:train|valid)/(patient\d+)/[^/]+/[^/]+)")


def read_chexpert(config: ChexpertData) -> Catalogue:
    """Read ``train.csv``, ``valid.csv`` and the folders ``train`` and ``valid``.

    Tests are on the official validation images, which radiologists labelled; the official test
    images come apart from the set. Some of the training patients are to validate on.

    Raises:
        UserError: the tables or the images are not there, or do not fit together.
    """
    root = Path(config.root)
    # The archive holds everything in one more folder, which the tables' paths begin with.
    inner = next(iter(sorted(root.glob("CheXpert-v1.0*/train.csv"))), None)
    if not (root / "train.csv").is_file() and inner:
        root = inner.parent
    if not all((root / name).is_file() for name in _TABLES):
        raise no_archive(
            config,
            root,
            "CheXpert's train.csv, valid.csv, train/ and valid/ (as CheXpert-v1.0-small has them)",
            "phantom_xray",
        )
    images: list[Listed] = []
    notes: list[str] = []
    for name, split in _TABLES.items():
        file, undecided = root / name, 0
        table = read_table(file, ["Path", _VIEW, *config.learned], ["Sex", "AP/PA"], others=False)
        notes += table.notes
        for row in table.rows:
            where = f"{file}, line {row.line}: {row.values['Path']}"
            match = _PATH.fullmatch(row.values["Path"])
            if not match:
                raise UserError(
                    f"{where} is not a path of CheXpert: train/patient00001/study1/NAME, or the "
                    "same below valid/."
                )
            if config.views == "frontal" and row.values[_VIEW] != "Frontal":
                continue
            label = report_label(row, config, file)
            if label is None:
                undecided += 1
                continue
            view = row.values.get("AP/PA", "") or row.values[_VIEW]
            groups = {"sex": row.values.get("Sex", ""), "view": view}
            images.append(Listed(match[1], label, match[2], split, where, groups))
        if undecided:
            notes.append(left_out(file, undecided, config.learned[0]))
    notes += unknown_findings(images, root, config.learned)
    return archive_catalogue(
        config,
        root,
        with_validation(images, config.val_fraction, config.split_seed),
        classes=classes_of(config),
        graded=False,
        channels=1,
        notes=notes,
    )
