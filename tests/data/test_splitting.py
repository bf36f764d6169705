from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpmi.base.errors import UserError
from dpmi.data.splitting import deal_patients, patient_split, stratified_split

NAMED = {"classes": ("cat", "dog", "fox"), "where": "PATH", "advice": "ADVICE"}


def share(splits: tuple[str, ...], name: str) -> float:
    return splits.count(name) / len(splits)


def test_each_class_keeps_its_proportions() -> None:
    labels = np.repeat([0, 1, 2], [500, 300, 200])
    splits = np.asarray(
        stratified_split(labels, val_fraction=0.1, test_fraction=0.2, seed=1, **NAMED)
    )
    for label, count in enumerate([500, 300, 200]):
        of_class = splits[labels == label]
        assert (of_class == "test").sum() == pytest.approx(0.2 * count, abs=1)
        assert (of_class == "val").sum() == pytest.approx(0.1 * count, abs=1)


def test_without_a_validation_share_there_is_none() -> None:
    labels = np.repeat([0, 1], 20)
    splits = stratified_split(labels, val_fraction=0, test_fraction=0.25, seed=1, **NAMED)
    assert set(splits) == {"train", "test"}


def test_the_seed_decides_the_split() -> None:
    labels = np.repeat([0, 1], 50)
    patients = [f"p{row // 2}" for row in range(100)]
    shares = {"val_fraction": 0.1, "test_fraction": 0.2}
    for split in (
        lambda seed: stratified_split(labels, **shares, seed=seed, **NAMED),
        lambda seed: patient_split(labels, patients, **shares, seed=seed, advice=""),
    ):
        assert split(1) == split(1)
        one, other = split(1), split(2)
        for name in ("train", "val", "test"):
            assert [its == name for its in one] != [its == name for its in other]


@settings(deadline=None, max_examples=60)
@given(
    owners=st.lists(st.integers(0, 30), min_size=40, max_size=120),
    val=st.sampled_from([0.0, 0.1, 0.3]),
    test=st.sampled_from([0.1, 0.2, 0.5]),
    seed=st.integers(0, 99),
)
def test_no_patient_is_in_two_splits(owners: list[int], val: float, test: float, seed: int) -> None:
    labels = np.asarray(owners) % 2
    patients = [f"p{owner}" for owner in owners]
    try:
        splits = patient_split(
            labels, patients, val_fraction=val, test_fraction=test, seed=seed, advice=""
        )
    except UserError:  # too few patients, told: no split is better than a leaking one
        return
    homes = defaultdict(set)
    for patient, split in zip(patients, splits, strict=True):
        homes[patient].add(split)
    assert all(len(splits) == 1 for splits in homes.values())
    assert set(splits) == {"train", "test"} | ({"val"} if val else set())


def test_patients_of_uneven_size_still_meet_the_shares_of_each_class() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.geometric(0.3, size=800)
    patients = np.repeat([f"p{number}" for number in range(800)], sizes).tolist()
    labels = np.repeat(rng.integers(0, 3, size=800), sizes)
    splits = patient_split(
        labels, patients, val_fraction=0.15, test_fraction=0.25, seed=0, advice=""
    )
    for label in range(3):
        of_class = tuple(np.asarray(splits)[labels == label].tolist())
        assert share(of_class, "test") == pytest.approx(0.25, abs=0.01)
        assert share(of_class, "val") == pytest.approx(0.15, abs=0.01)


def test_images_of_unknown_patients_are_split_one_by_one() -> None:
    labels = np.repeat([0, 1], 100)
    patients = ["known"] * 20 + [""] * 180
    splits = patient_split(labels, patients, val_fraction=0.1, test_fraction=0.2, seed=0, advice="")
    assert len(set(splits[:20])) == 1
    assert share(splits, "test") == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize(
    ("val", "test", "key"), [(0.1, 0.0, "data.test_fraction=0"), (0.5, 0.5, "below 1")]
)
def test_impossible_shares_are_refused(val: float, test: float, key: str) -> None:
    labels = np.repeat([0, 1], 20)
    with pytest.raises(UserError, match=key):
        stratified_split(labels, val_fraction=val, test_fraction=test, seed=0, **NAMED)
    with pytest.raises(UserError, match=key):
        patient_split(labels, ["p"] * 40, val_fraction=val, test_fraction=test, seed=0, advice="")


@pytest.mark.parametrize(
    ("labels", "val", "named", "splits"),
    [
        ([0, 0, 0, 1], 0.2, "class 'dog' has 1 of 4 images", "train, val, test"),
        ([0, 0, 0, 0, 2, 2], 0.2, "class 'fox' has 2 of 6 images", "train, val, test"),
        ([0, 0, 2, 0], 0, "class 'fox' has 1 of 4 images", "train, test"),
    ],
)
def test_a_class_of_too_few_images_is_named_with_its_place_and_what_to_do(
    labels: list[int], val: float, named: str, splits: str
) -> None:
    with pytest.raises(UserError) as refused:
        stratified_split(np.asarray(labels), val_fraction=val, test_fraction=0.4, seed=0, **NAMED)
    assert str(refused.value) == (
        f"PATH: {named}, too few for every split ({splits}). Add images of it, remove it, or "
        "ADVICE."
    )


def test_a_split_that_no_patient_is_left_for_is_named_with_what_to_do() -> None:
    with pytest.raises(UserError) as refused:
        deal_patients(
            *(np.asarray([0, 1, 0]), ["a", "b", "a"], {"train": 0.8, "val": 0.1, "test": 0.1}),
            seed=0,
            advice="ADVICE",
        )
    assert str(refused.value) == (
        "2 patients cannot be divided into train and val and test without a patient in two of "
        "them. Add patients, or ADVICE."
    )


def test_too_few_patients_are_refused() -> None:
    with pytest.raises(UserError, match="2 patients"):
        patient_split(
            *(np.asarray([0, 1, 0, 1]), list("aabb")),
            val_fraction=0.2,
            test_fraction=0.2,
            seed=0,
            advice="",
        )
