"""Dividing images that come without splits into train, val and test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dpmi.base.errors import UserError
from dpmi.data.catalogue import SPLITS, Catalogue, Labels

HELD_OUT = 0.25  # of the training images
_HELD_OUT_SEED = 42


def stratified_split(
    labels: NDArray[np.int64],
    *,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    classes: Sequence[str],
    where: str,
    advice: str,
) -> tuple[str, ...]:
    """Split at random, each class in the same proportions (scikit-learn's train_test_split).

    Args:
        labels: (n,), each an index of a class.
        val_fraction: share of the images to validate on; 0 makes no validation split.
        test_fraction: share of the images to test on; 1, which no config for training has: all.
        seed: the same seed gives the same split.
        classes: their names, for messages.
        where: the folder or file that names them, for messages.
        advice: what else its user can do where images are too few, for messages.

    Returns:
        "train", "val" or "test" for each label.

    Raises:
        UserError: the fractions leave no training or test images, or a class is too small.
    """
    if test_fraction == 1:
        return ("test",) * len(labels)
    from sklearn.model_selection import train_test_split  # loads for a second: only where needed

    _check_fractions(val_fraction, test_fraction, advice)
    splits = np.full(len(labels), "train", dtype="U5")
    rest = np.arange(len(labels))
    try:
        rest, test = train_test_split(
            rest, test_size=test_fraction, stratify=labels, random_state=seed
        )
        splits[test] = "test"
        if val_fraction:
            share = val_fraction / (1 - test_fraction)
            _, val = train_test_split(
                rest, test_size=share, stratify=labels[rest], random_state=seed
            )
            splits[val] = "val"
    except ValueError as error:
        splits_of = ["train", *(["val"] if val_fraction else []), "test"]
        raise UserError(
            f"{where}: {_smallest(labels, classes)}, too few for every split "
            f"({', '.join(splits_of)}). Add images of it, remove it, or {advice}."
        ) from error
    return tuple(splits.tolist())


def _smallest(labels: NDArray[np.int64], classes: Sequence[str]) -> str:
    """In words: the class of the fewest images, and how many of all it has."""
    label, count = min(Counter(labels.tolist()).items(), key=lambda its: (its[1], its[0]))
    return f"class {classes[label]!r} has {count} of {len(labels)} images"


def random_split(
    labels: Labels,
    patients: Sequence[str],
    *,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    classes: Sequence[str],
    where: str,
    advice: str,
) -> tuple[str, ...]:
    """``patient_split`` where some patient is known, or of findings, else ``stratified_split``."""
    if any(patients) or labels.ndim == 2:
        return patient_split(
            *(labels, patients),
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            seed=seed,
            advice=advice,
        )
    return stratified_split(
        labels.astype(np.int64),
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        seed=seed,
        classes=classes,
        where=where,
        advice=advice,
    )


def patient_split(
    labels: Labels,
    patients: Sequence[str],
    *,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    advice: str,
) -> tuple[str, ...]:
    """Split at random by patient: no patient is in two splits.

    Args:
        labels: as of ``deal_patients``.
        patients: as there.
        val_fraction: share of the images to validate on; 0 makes no validation split.
        test_fraction: share of the images to test on; 1, which no config for training has: all.
        seed: as there.
        advice: as there.

    Returns:
        "train", "val" or "test" for each label.

    Raises:
        UserError: the fractions leave no training or test images, or there are too few patients.
    """
    if test_fraction == 1:
        return ("test",) * len(labels)
    _check_fractions(val_fraction, test_fraction, advice)
    shares = {"train": 1 - val_fraction - test_fraction, "val": val_fraction, "test": test_fraction}
    return deal_patients(labels, patients, shares, seed=seed, advice=advice)


def deal_patients(
    labels: Labels,
    patients: Sequence[str],
    shares: Mapping[str, float],
    *,
    seed: int,
    advice: str,
) -> tuple[str, ...]:
    """Divide images at random so that no patient is in two splits.

    As scikit-learn's StratifiedGroupKFold does, patients are dealt out one by one, those with
    the most images first, each to the split that then lies nearest to its share of every class;
    unlike there, the shares may be any fractions.

    Args:
        labels: (n,), each an index of a class; or (n, K) findings, each of which is dealt out in
            proportion, as are all images (after Sechidis et al. 2011, "On the Stratification of
            Multi-Label Data").
        patients: (n,); an image whose patient is unknown ("") is taken for a patient of its own.
        shares: of the images, by split; one whose share is 0 is left out.
        seed: the same seed gives the same split.
        advice: what else the user can do where patients are too few, for messages.

    Returns:
        The split of each label.

    Raises:
        UserError: there are too few patients.
    """
    shares = {split: share for split, share in shares.items() if share}
    members = _members(labels)
    target = np.outer(list(shares.values()), members.sum(0))  # (splits, classes), images
    dealt = np.zeros_like(target)

    groups: dict[str, list[int]] = {}
    for row, patient in enumerate(patients):
        group = f"patient {patient}" if patient else f"image {row}"
        groups.setdefault(group, []).append(row)
    each = "patient" if any(patients) else "image"
    if len(groups) < len(shares):
        raise UserError(
            f"{len(groups)} {each}s cannot be divided into {' and '.join(shares)} without a "
            f"{each} in two of them. Add {each}s, or {advice}."
        )

    names = np.asarray(list(groups))
    np.random.default_rng(seed).shuffle(names)
    splits = np.full(len(labels), "train", dtype="U5")
    for name in sorted(names.tolist(), key=lambda name: -len(groups[name])):
        rows = groups[name]
        images = members[rows].sum(0)
        # The rise of sum((dealt - target)^2 / target): a chi-squared distance to the shares.
        rise = images * (2 * (dealt - target) + images) / np.maximum(target, 1e-9)
        chosen = int(rise.sum(axis=1).argmin())
        dealt[chosen] += images
        splits[rows] = list(shares)[chosen]
    if missing := set(shares) - set(splits.tolist()):
        raise UserError(
            f"{len(groups)} {each}s are too few: no {each} is left for "
            f"{' and '.join(split for split in SPLITS if split in missing)}. Add {each}s, or "
            f"{advice}."
        )
    return tuple(splits.tolist())


def _members(labels: Labels) -> NDArray[np.int64]:
    """(n, K) of which class each image is; or which findings it shows, and that it is an image."""
    if labels.ndim == 2:
        every = np.ones((len(labels), 1), bool)
        return np.hstack([labels == 1, every]).astype(np.int64)
    return np.eye(int(labels.max()) + 1, dtype=np.int64)[labels.astype(np.int64)]


def held_out_patients(catalogue: Catalogue) -> Catalogue:
    """The training images alone, a quarter of their patients to test on.

    To choose by, or to measure without the shift between two collections of images: the official
    test and validation images are in neither part. The same patients at each call.

    Raises:
        UserError: there are too few patients.
    """
    rows = [row for row, split in enumerate(catalogue.splits) if split == "train"]
    left = catalogue.of_rows(rows)
    splits = deal_patients(
        *(left.labels, left.patients, {"train": 1 - HELD_OUT, "test": HELD_OUT}),
        seed=_HELD_OUT_SEED,
        advice="set data.test=official",
    )
    return replace(left, splits=splits)


def patients_of_test_left_out(catalogue: Catalogue) -> Catalogue:
    """The official test images, and of all others those of patients who are not among them.

    Raises:
        UserError: it is not known whose the images are.
    """
    tested = {
        patient
        for patient, split in zip(catalogue.patients, catalogue.splits, strict=True)
        if split == "test" and patient
    }
    if not tested:
        raise UserError(
            "data.test=other_patients: it is not known whose the test images are; allowed are "
            "official and held_out."
        )
    rows = [
        row
        for row, split in enumerate(catalogue.splits)
        if split == "test" or catalogue.patients[row] not in tested
    ]
    return catalogue.of_rows(rows)


class Fractions(Protocol):
    """A section of a config by whose shares images are split."""

    @property
    def val_fraction(self) -> float:
        """Of the images, to validate on."""
        ...

    @property
    def test_fraction(self) -> float:
        """Of the images, to test on."""
        ...


def advice_on_fractions(config: Fractions, by_hand: str = "") -> str:
    """What a user can do whose images are too few for the fractions of a config.

    Args:
        config: has them.
        by_hand: how splits can be given instead, if they can.
    """
    keys = f"data.val_fraction={config.val_fraction:g} and data.test_fraction="
    return f"change {keys}{config.test_fraction:g}" + (f", or {by_hand}" if by_hand else "")


def _check_fractions(val_fraction: float, test_fraction: float, advice: str) -> None:
    if not test_fraction:
        raise UserError(f"data.test_fraction=0 leaves no test images: {advice}.")
    if val_fraction + test_fraction >= 1:
        raise UserError(
            f"data.val_fraction={val_fraction:g} and data.test_fraction={test_fraction:g} leave "
            "no training images: their sum must be below 1."
        )
