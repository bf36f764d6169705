"""MIMIC-CXR-JPG: 377,110 chest X-rays of 65,379 patients (Johnson et al. 2019)."""

from __future__ import annotations

import re
from pathlib import Path

from dpmi.base.errors import UserError
from dpmi.config.data_sets import MimicData
from dpmi.data.catalogue import Catalogue
from dpmi.data.readers.archives import Listed, archive_catalogue, first_file, no_archive
from dpmi.data.readers.findings import classes_of, left_out, report_label, unknown_findings
from dpmi.data.tables import read_table

_SPLITS = {"train": "train", "validate": "val", "test": "test"}
_FRONTAL = ("AP", "PA")
_IDS = ["dicom_id", "study_id", "subject_id"]
_ID = re.compile(r"[\w-]+")  # paths are made of them, and stay below the root


def read_mimic_cxr(config: MimicData) -> Catalogue:
    """Read split, metadata and CheXpert's labels (.csv.gz or .csv), and ``files/p10/p1.../s.../``.

    Splits are the official ones, by patient. All images of a study have its labels; those of a
    study without labels are left out.

    Raises:
        UserError: the tables or the images are not there, or do not fit together.
    """
    root = Path(config.root)
    files = {
        kind: first_file(root, [f"mimic-cxr-*-{kind}.csv.gz", f"mimic-cxr-*-{kind}.csv"])
        for kind in ("split", "metadata", "chexpert")
    }
    split_file, metadata_file, label_file = files.values()
    if not (split_file and metadata_file and label_file):
        raise no_archive(
            config,
            root,
            "MIMIC-CXR-JPG's tables mimic-cxr-2.0.0-split.csv.gz, -metadata.csv.gz and "
            "-chexpert.csv.gz, and its folder files/",
            "phantom_xray",
        )
    labelled = read_table(label_file, ["study_id", *config.learned], others=False)
    labels = {
        row.values["study_id"]: report_label(row, config, label_file) for row in labelled.rows
    }
    metadata = read_table(metadata_file, ["dicom_id", "ViewPosition"], others=False)
    views = {row.values["dicom_id"]: row.values["ViewPosition"] for row in metadata.rows}
    table = read_table(split_file, [*_IDS, "split"], others=False)
    images: list[Listed] = []
    undecided = unlabelled = 0
    for row in table.rows:
        image, study, patient = (row.values[column] for column in _IDS)
        where = f"{split_file}, line {row.line}: {image}"
        if not all(_ID.fullmatch(part) for part in (image, study, patient)):
            raise UserError(f"{where}: {', '.join(_IDS)} must be numbers or names, without blanks.")
        if row.values["split"] not in _SPLITS:
            raise UserError(
                f"{where}: split {row.values['split']!r} is not one of {', '.join(_SPLITS)}."
            )
        view = views.get(image, "")
        if config.views == "frontal" and view not in _FRONTAL:
            continue
        if study not in labels:
            unlabelled += 1
            continue
        if (label := labels[study]) is None:
            undecided += 1
            continue
        path = f"files/p{patient[:2]}/p{patient}/s{study}/{image}.jpg"
        split = _SPLITS[row.values["split"]]
        images.append(Listed(path, label, f"p{patient}", split, where, {"view": view}))
    notes = [*labelled.notes, *metadata.notes, *table.notes]
    if unlabelled:
        notes.append(f"{label_file}: {unlabelled} images of studies without labels are left out.")
    if undecided:
        notes.append(left_out(label_file, undecided, config.learned[0]))
    notes += unknown_findings(images, label_file, config.learned)
    return archive_catalogue(
        config,
        root,
        images,
        classes=classes_of(config),
        graded=False,
        channels=1,
        notes=notes,
    )
