"""From a config to decoded images, ready to batch, and what is to be known of them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median_high

import numpy as np
from numpy.typing import NDArray

from dpmi.base.errors import UserError
from dpmi.config.sections import CsvData, DataConfig, FolderData
from dpmi.data.catalogue import SPLITS, Catalogue
from dpmi.data.decoding.settings import PREPROCESSING_VERSION
from dpmi.data.digests import content_digests
from dpmi.data.left_out import check_share, note_of_undecoded, note_of_unknown
from dpmi.data.pixel_cache import ImageList, cached_pixels
from dpmi.data.readers import read_catalogue

log = logging.getLogger(__name__)

_FEW_LEVELS = 16  # a sixteenth of all: what 12 bits leave of 16


@dataclass(frozen=True)
class Split:
    """The images of one split; row i of every field speaks of the same image."""

    pixels: NDArray[np.uint8]  # (n, C, R, R), memory-mapped, read-only
    labels: NDArray[np.int64]  # (n,)
    patients: tuple[str, ...]  # "" where unknown
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # asked for, by column

    def of_rows(self, rows: NDArray[np.int64]) -> Split:
        """Those images alone, (m,), in that order; their pixels are copied."""
        return Split(
            self.pixels[rows],
            self.labels[rows],
            tuple(self.patients[row] for row in rows),
            {column: tuple(of[row] for row in rows) for column, of in self.groups.items()},
        )


@dataclass(frozen=True)
class DataFingerprint:
    """What a run was trained and tested on, in plain values for its record."""

    sha256: str  # of contents, labels, patients, splits and preprocessing; not of where files lie
    image_side: int  # R, in pixels
    channels: int
    counts: dict[str, int]  # images by split
    class_counts: dict[str, dict[str, int]]  # images by split and class
    duplicates_removed: int  # byte-identical to an image of a split that is kept in their place
    duplicates_within_split: int  # kept
    patients_in_two_splits: int
    corrupt_skipped: int
    largest_images_per_patient: int | None  # in train; None where patients are unknown
    median_images_per_patient: int | None  # the same; of an even number of patients the higher
    most_copies_of_an_image: int  # byte-identical ones in train, itself included
    groups: str | None = None  # SHA-256 of the test images' groups; None where none are asked for

    @property
    def together(self) -> dict[str, int]:
        """Training images that belong to one: of a patient, where known; copies of an image."""
        groups = {
            "largest_patient": self.largest_images_per_patient,
            "median_patient": self.median_images_per_patient,
            "copies": self.most_copies_of_an_image,
        }
        return {name: images for name, images in groups.items() if images is not None}


@dataclass(frozen=True)
class PreparedData:
    """Decoded images of a whole data set."""

    name: str
    classes: tuple[str, ...]
    graded: bool
    channels: int  # 1 where all images are gray, whatever their files
    size: int  # R, side of the squares, in pixels
    splits: dict[str, Split]  # "train", "test" and, where the set has one, "val"
    fingerprint: DataFingerprint
    train_contents: tuple[str, ...] = ()  # SHA-256 of each training image's content, row by row
    notes: tuple[str, ...] = ()  # what the user should know of how the set was read, a line each


def prepare(config: DataConfig, cache_dir: Path, delta: float | None = None) -> PreparedData:
    """Read a data set's catalogue, check it, and decode its images (once: see pixel_cache).

    An image whose bytes occur in two splits is kept in the later of train, val, test, so that
    test figures stay comparable with other work on the same set.

    Args:
        config: the ``data`` section of the config.
        cache_dir: where decoded images are kept between runs.
        delta: the delta of an (epsilon, delta) guarantee, if the run gives one. It must lie
            below one over the number of training images: otherwise a mechanism that publishes
            one whole image would satisfy the guarantee. None also where it follows from n.

    Raises:
        UserError: the data or the config cannot be used; nothing half-written is left.
    """
    size = config.resize or config.image_size
    if config.image_size > size:
        raise UserError(
            f"data.image_size={config.image_size} is larger than data.resize={size}: an image "
            "cannot be cropped to more than it was resized to. Raise data.resize, or leave it "
            "null to follow data.image_size."
        )
    catalogue = read_catalogue(config, cache_dir)
    if delta is not None:
        _check_delta(delta, catalogue)
    labels, splits = catalogue.labels, np.asarray(catalogue.splits)
    _check_classes(catalogue, labels, splits, "")
    check_share(config, catalogue)

    digests = content_digests(catalogue.source, catalogue.paths, cache_dir)
    kept = _without_copies(digests, catalogue.splits)
    removed = len(digests) - len(kept)
    if removed:
        log.warning(
            "%d images are byte-identical to an image of another split: removed from train "
            "(or val), kept in test.",
            removed,
        )
    # Split by split, so that each is one slice of the pixels.
    rows = [row for split in SPLITS for row in kept if catalogue.splits[row] == split]

    images = ImageList(
        source=catalogue.source,
        paths=[catalogue.paths[row] for row in rows],
        digests=[digests[row] for row in rows],
        size=size,
        channels=catalogue.channels,
        decoding=catalogue.decoding,
    )
    cached = cached_pixels(images, cache_dir, skip_bad=config.on_corrupt == "skip")
    if bad := {images.paths[position]: cached.bad[position] for position in sorted(cached.bad)}:
        check_share(config, catalogue, bad)
        rows = [row for position, row in enumerate(rows) if position not in cached.bad]
    _check_classes(catalogue, labels[rows], splits[rows], " that can be used")

    notes = (
        *catalogue.notes,
        *note_of_unknown(catalogue),
        *note_of_undecoded(bad),
        *_note_of_levels(config, cached.levels),
    )
    for note in notes:
        log.warning("%s", note)

    channels = cached.pixels.shape[1]
    fingerprint = _fingerprint(catalogue, rows, digests, size, channels, removed, len(cached.bad))
    return PreparedData(
        name=catalogue.name,
        classes=catalogue.classes,
        graded=catalogue.graded,
        channels=channels,
        size=size,
        splits=_slices(catalogue, rows, cached.pixels),
        fingerprint=fingerprint,
        train_contents=tuple(digests[row] for row in rows if splits[row] == "train"),
        notes=notes,
    )


def _note_of_levels(config: DataConfig, levels: int) -> tuple[str, ...]:
    if levels > _FEW_LEVELS or not isinstance(config, FolderData | CsvData):
        return ()
    return (
        f"All images together have {levels} of 256 levels of brightness, as where their files have "
        "more bits than their values use: set data.bit_depth=12 where 16 bits hold 12, as "
        "converters of DICOM write them; of DICOM files data.window, of floats data.value_range.",
    )


def _check_delta(delta: float, catalogue: Catalogue) -> None:
    n = catalogue.splits.count("train")
    if n and delta >= 1 / n:
        raise UserError(
            f"mechanism.delta={delta:g} is too large for the {n} training images of "
            f"data={catalogue.name}: it must lie below 1/{n} = {1 / n:.3g}, or the guarantee "
            "would allow one image to be published. Set mechanism.delta=auto."
        )


def _check_classes(
    catalogue: Catalogue, labels: NDArray[np.int64], splits: NDArray[np.str_], which: str
) -> None:
    present = Counter(labels[splits == "train"].tolist())
    for label, name in enumerate(catalogue.classes):
        if not present[label]:
            raise UserError(
                f"data={catalogue.name}: class {name!r} has no training image{which}. Every one "
                f"of the classes ({', '.join(catalogue.classes)}) needs at least one in train: "
                "add images of it, or remove the class."
            )
    if not (splits == "test").any():
        raise UserError(
            f"data={catalogue.name}: there are no test images{which}. Put some in the test split, "
            "or, for your own images without splits, set data.test_fraction above 0."
        )


def _without_copies(digests: Sequence[str], splits: Sequence[str]) -> list[int]:
    """Rows that remain when each content stays in one split only: the last of train, val, test."""
    home: dict[str, int] = {}
    for digest, split in zip(digests, splits, strict=True):
        home[digest] = max(home.get(digest, 0), SPLITS.index(split))
    return [row for row, digest in enumerate(digests) if SPLITS[home[digest]] == splits[row]]


def _slices(
    catalogue: Catalogue, rows: Sequence[int], pixels: NDArray[np.uint8]
) -> dict[str, Split]:
    """Cut the pixels into splits; ``rows`` come split by split."""
    counts = Counter(catalogue.splits[row] for row in rows)
    splits: dict[str, Split] = {}
    start = 0
    for name in SPLITS:
        if not counts[name]:
            continue
        stop = start + counts[name]
        splits[name] = Split(
            pixels=pixels[start:stop],
            labels=catalogue.labels[rows[start:stop]],
            patients=tuple(catalogue.patients[row] for row in rows[start:stop]),
            groups={
                column: tuple(values[row] for row in rows[start:stop])
                for column, values in catalogue.groups.items()
            },
        )
        start = stop
    return splits


def _fingerprint(
    catalogue: Catalogue,
    rows: Sequence[int],
    digests: Sequence[str],
    size: int,
    channels: int,
    removed: int,
    corrupt: int,
) -> DataFingerprint:
    contents: dict[str, list[str]] = defaultdict(list)
    labels: dict[str, Counter[int]] = defaultdict(Counter)
    patients: dict[str, Counter[str]] = defaultdict(Counter)
    sha256 = hashlib.sha256()
    preprocessing = [
        *(PREPROCESSING_VERSION, size, channels, catalogue.decoding, catalogue.classes)
    ]
    sha256.update(json.dumps(preprocessing, sort_keys=True).encode())
    for row in rows:
        split, label, patient = catalogue.splits[row], int(catalogue.labels[row]), ""
        patient = catalogue.patients[row]
        sha256.update(json.dumps([digests[row], label, patient, split]).encode())
        contents[split].append(digests[row])
        labels[split][label] += 1
        if patient:
            patients[split][patient] += 1

    duplicates = sum(len(in_split) - len(set(in_split)) for in_split in contents.values())
    homes = Counter(patient for in_split in patients.values() for patient in in_split)
    shared = sum(splits > 1 for splits in homes.values())
    if duplicates:
        log.info("%d images are byte-identical to another of the same split; kept.", duplicates)
    if shared:
        log.warning("%d patients have images in more than one split.", shared)
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
        most_copies_of_an_image=max(Counter(contents["train"]).values()),
        groups=_digest_of_groups(catalogue, [r for r in rows if catalogue.splits[r] == "test"]),
    )


def _digest_of_groups(catalogue: Catalogue, rows: Sequence[int]) -> str | None:
    """Of what ``sha256`` leaves out: groups change what is told of a run, not what it computes."""
    if not catalogue.groups:
        return None
    told = {name: [values[row] for row in rows] for name, values in catalogue.groups.items()}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
