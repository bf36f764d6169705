"""What is known of a data set without its images: counts, and a digest of all of it."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_high
from typing import Any

import numpy as np

from dpmi.data.catalogue import Catalogue
from dpmi.data.decoding.settings import PREPROCESSING_VERSION

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataFingerprint:
    """What a run was trained and tested on, in plain values for its record."""

    sha256: str  # of contents, labels, patients, splits and preprocessing; not of where files lie
    image_side: int  # R, in pixels
    channels: int
    counts: dict[str, int]  # images by split
    class_counts: dict[str, dict[str, int]]  # images by split and class, or finding that they show
    duplicates_removed: int  # byte-identical to an image of a split that is kept in their place
    duplicates_within_split: int  # kept
    patients_in_two_splits: int
    corrupt_skipped: int
    largest_images_per_patient: int | None  # in train; None where patients are unknown
    median_images_per_patient: int | None  # the same; of an even number of patients the higher
    most_copies_of_an_image: int  # byte-identical ones in train, itself included
    groups: str | None = None  # SHA-256 of the test images' groups; None where none are requested

    @property
    def together(self) -> dict[str, int]:
        """Training images that belong to one: of a patient, where known; copies of an image."""
        groups = {
            "largest_patient": self.largest_images_per_patient,
            "median_patient": self.median_images_per_patient,
            "copies": self.most_copies_of_an_image,
        }
        return {name: images for name, images in groups.items() if images is not None}


def fingerprint_of(
    catalogue: Catalogue,
    rows: Sequence[int],
    digests: Sequence[str],
    size: int,
    channels: int,
    removed: int,
    corrupt: int,
) -> DataFingerprint:
    """Make the fingerprint of some rows of a catalogue.

    Args:
        catalogue: the data set.
        rows: that are used.
        digests: SHA-256 of each image's content, of all rows.
        size: side of the decoded images, in pixels.
        channels: of the decoded images.
        removed: copies of images of another split that were left out.
        corrupt: images that cannot be decoded and were left out.
    """
    contents: dict[str, list[str]] = defaultdict(list)
    labels: dict[str, Counter[int]] = defaultdict(Counter)
    patients: dict[str, Counter[str]] = defaultdict(Counter)
    sha256 = hashlib.sha256()
    preprocessing = [
        *(PREPROCESSING_VERSION, size, channels, catalogue.decoding, catalogue.classes)
    ]
    sha256.update(json.dumps(preprocessing, sort_keys=True).encode())
    for row in rows:
        split, patient = catalogue.splits[row], catalogue.patients[row]
        label, shown = _states(catalogue.labels[row])
        sha256.update(json.dumps([digests[row], label, patient, split]).encode())
        contents[split].append(digests[row])
        labels[split].update(shown)
        if patient:
            patients[split][patient] += 1

    duplicates = sum(len(in_split) - len(set(in_split)) for in_split in contents.values())
    homes = Counter(patient for in_split in patients.values() for patient in in_split)
    shared = sum(splits > 1 for splits in homes.values())
    if duplicates:
        log.info("%d images are byte-identical to another of the same split; kept.", duplicates)
    return DataFingerprint(
        sha256=sha256.hexdigest(),
        image_side=size,
        channels=channels,
        counts={split: len(in_split) for split, in_split in contents.items()},
        class_counts={
            split: {name: counts[label] for label, name in enumerate(catalogue.classes)}
            for split, counts in labels.items()
        },
        duplicates_removed=removed,
        duplicates_within_split=duplicates,
        patients_in_two_splits=shared,
        corrupt_skipped=corrupt,
        largest_images_per_patient=max(patients["train"].values(), default=None),
        median_images_per_patient=(
            median_high(patients["train"].values()) if patients["train"] else None
        ),
        most_copies_of_an_image=max(Counter(contents["train"]).values(), default=0),
        groups=_digest_of_groups(catalogue, [r for r in rows if catalogue.splits[r] == "test"]),
    )


def notes_of_splits(fingerprint: DataFingerprint) -> tuple[str, ...]:
    """What is in more than one split, a line each: images, which are removed; patients."""
    notes = []
    if copies := fingerprint.duplicates_removed:
        are = "image is" if copies == 1 else "images are"
        notes.append(
            f"{copies} {are} byte-identical to an image of another split: removed from train (or "
            "val), kept in test."
        )
    if shared := fingerprint.patients_in_two_splits:
        have = "patient has" if shared == 1 else "patients have"
        notes.append(
            f"{shared} {have} images in more than one split: metrics are too good where a model is "
            "tested on patients whom it was trained on."
        )
    return tuple(notes)


def _states(label: Any) -> tuple[int | list[int | None], list[int]]:
    """An image's label in JSON's values, and of which classes, or findings known, it is."""
    if not np.ndim(label):
        return int(label), [int(label)]
    known = [None if np.isnan(value) else int(value) for value in label]
    return known, [number for number, value in enumerate(known) if value]


def _digest_of_groups(catalogue: Catalogue, rows: Sequence[int]) -> str | None:
    """Of what ``sha256`` leaves out: groups change what is reported, not what is computed."""
    if not catalogue.groups:
        return None
    groups = {name: [values[row] for row in rows] for name, values in catalogue.groups.items()}
    return hashlib.sha256(json.dumps(groups, sort_keys=True).encode()).hexdigest()
