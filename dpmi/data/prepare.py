"""From a config to decoded images, ready to batch, and what is to be known of them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpmi.base.errors import UserError
from dpmi.config.data_sets import CsvData, DataConfig, FolderData
from dpmi.data.catalogue import SPLITS, Catalogue, Labels
from dpmi.data.digests import content_digests
from dpmi.data.findings import NO_FINDING, check_findings
from dpmi.data.fingerprint import DataFingerprint, fingerprint_of, notes_of_splits
from dpmi.data.left_out import check_share, note_of_undecoded, note_of_unknown
from dpmi.data.pixel_cache import ImageList, cached_pixels
from dpmi.data.readers import read_catalogue

log = logging.getLogger(__name__)

_FEW_LEVELS = 16  # a sixteenth of all: what 12 bits leave of 16


@dataclass(frozen=True)
class Split:
    """The images of one split; row i of every field speaks of the same image."""

    pixels: NDArray[np.uint8]  # (n, C, R, R), memory-mapped, read-only
    labels: Labels  # (n,) classes, or (n, K) findings: 1, 0, NaN where not known
    patients: tuple[str, ...]  # "" where unknown
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # requested, by column

    def of_rows(self, rows: NDArray[np.int64]) -> Split:
        """Those images alone, (m,), in that order; their pixels are copied."""
        return Split(
            self.pixels[rows],
            self.labels[rows],
            tuple(self.patients[row] for row in rows),
            {column: tuple(of[row] for row in rows) for column, of in self.groups.items()},
        )


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

    @property
    def multilabel(self) -> bool:
        """Whether the labels are several findings of an image, not one class."""
        return next(iter(self.splits.values())).labels.ndim == 2

    def label_of(self, split: str, row: int) -> str:
        """In words: the class of an image, or the findings that it is known to show."""
        label = self.splits[split].labels[row]
        if not self.multilabel:
            return self.classes[int(label)]
        shown = [name for name, there in zip(self.classes, label, strict=True) if there == 1]
        return "|".join(shown) or NO_FINDING


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
    if config.image_size > (size := config.resize or config.image_size):
        raise UserError(
            f"data.image_size={config.image_size} is larger than data.resize={size}: an image "
            "cannot be cropped to more than it was resized to. Raise data.resize, or leave it "
            "null to follow data.image_size."
        )
    catalogue = read_catalogue(config, cache_dir)
    if delta is not None:
        _check_delta(delta, catalogue)
    _check_classes(catalogue, np.arange(len(catalogue.splits)), "")
    check_share(config, catalogue)

    digests = content_digests(catalogue.source, catalogue.paths, cache_dir)
    kept = _without_copies(digests, catalogue.splits)
    removed = len(digests) - len(kept)
    prepared, rows = _decoded(config, catalogue, kept, digests, cache_dir, removed)
    _check_classes(catalogue, np.asarray(rows, dtype=np.int64), " that can be used")
    return prepared


def prepare_test(
    config: DataConfig, cache_dir: Path, classes: Sequence[str], *, graded: bool
) -> tuple[PreparedData, tuple[str, ...]]:
    """Read and decode the test images of a data set alone, for a classifier that is there already.

    Args:
        config: the ``data`` section of a config.
        cache_dir: where decoded images are kept.
        classes: that the classifier knows, in its order; or findings, in theirs.
        graded: whether they are ordered.

    Returns:
        The data set with its labels in the order of ``classes``, NaN of findings that it does not
        label; and the SHA-256 of the images' contents, row by row.

    Raises:
        UserError: the data cannot be used, or have a class that the classifier does not know.
    """
    catalogue = read_catalogue(config, cache_dir)
    catalogue = catalogue.of_rows([r for r, s in enumerate(catalogue.splits) if s == "test"])
    if not catalogue.paths:
        raise UserError(f"data={catalogue.name}: there are no test images. Put some in its split.")
    if unknown := [name for name in catalogue.classes if name not in classes]:
        raise UserError(
            f"data={catalogue.name}: its classes ({', '.join(catalogue.classes)}) are not those of "
            f"the classifier ({', '.join(classes)}), which does not know {', '.join(unknown)}. "
            "Name them alike."
        )
    if catalogue.multilabel:
        labels: Labels = np.full((len(catalogue.labels), len(classes)), np.nan, np.float32)
        labels[:, [classes.index(name) for name in catalogue.classes]] = catalogue.labels
    else:
        order = np.asarray([classes.index(name) for name in catalogue.classes], dtype=np.int64)
        labels = order[catalogue.labels]
    catalogue = replace(catalogue, classes=tuple(classes), labels=labels, graded=graded)
    digests = content_digests(catalogue.source, catalogue.paths, cache_dir)
    every = list(range(len(digests)))
    prepared, rows = _decoded(config, catalogue, every, digests, cache_dir, removed=0)
    if not rows:
        raise UserError(f"data={catalogue.name}: none of its test images can be decoded.")
    return prepared, tuple(digests[row] for row in rows)


def _decoded(
    config: DataConfig,
    catalogue: Catalogue,
    kept: Sequence[int],
    digests: Sequence[str],
    cache_dir: Path,
    removed: int,
) -> tuple[PreparedData, list[int]]:
    """Decode the images of some rows; return which of the rows are left, split by split."""
    size = config.resize or config.image_size
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
    channels = cached.pixels.shape[1]
    fingerprint = fingerprint_of(catalogue, rows, digests, size, channels, removed, len(cached.bad))
    notes = (
        *catalogue.notes,
        *note_of_unknown(catalogue),
        *note_of_undecoded(bad),
        *notes_of_splits(fingerprint),
        *_note_of_levels(config, cached.levels),
    )
    for note in notes:
        log.warning("%s", note)
    prepared = PreparedData(
        name=catalogue.name,
        classes=catalogue.classes,
        graded=catalogue.graded,
        channels=channels,
        size=size,
        splits=_slices(catalogue, rows, cached.pixels),
        fingerprint=fingerprint,
        train_contents=tuple(digests[row] for row in rows if catalogue.splits[row] == "train"),
        notes=notes,
    )
    return prepared, rows


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


def _check_classes(catalogue: Catalogue, rows: NDArray[np.int64], which: str) -> None:
    """Refuse rows of which a class has no training image, or none is a test image."""
    labels, splits = catalogue.labels[rows], np.asarray(catalogue.splits)[rows]
    if catalogue.multilabel:
        check_findings(catalogue, labels[splits == "train"], which)
    else:
        _check_present(catalogue, labels[splits == "train"], which)
    if not (splits == "test").any():
        raise UserError(
            f"data={catalogue.name}: there are no test images{which}. Put some in the test split, "
            "or, for your own images without splits, set data.test_fraction above 0."
        )


def _check_present(catalogue: Catalogue, train: Labels, which: str) -> None:
    present = Counter(train.tolist())
    for label, name in enumerate(catalogue.classes):
        if not present[label]:
            raise UserError(
                f"data={catalogue.name}: class {name!r} has no training image{which}. Every one "
                f"of the classes ({', '.join(catalogue.classes)}) needs at least one in train: "
                "add images of it, or remove the class."
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
