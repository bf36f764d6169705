"""Which images of a patient a step sees: a function of that patient, the step and the seed."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpmi.base.errors import UserError
from dpmi.data.patients import Patients, known_patients, one_image_of_each

# Patients by name, their images in any order.
NAMES = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=40)


def places(patients, number, images, step, seed=0):
    """Which of their own images, counted from 0, a patient gives."""
    own = np.flatnonzero(patients.of_image == number).tolist()
    (rows,) = patients.draw([number], images, seed, step).tolist()
    return [own.index(row) for row in rows]  # fails where a row is another patient's


def test_patients_are_numbered_in_the_order_in_which_they_occur():
    patients = Patients.named(["b", "a", "b", "c", "a", "b"])
    assert patients.of_image.tolist() == [0, 1, 0, 2, 1, 0]
    assert patients.counts.tolist() == [3, 2, 1]
    assert len(patients) == 3


@settings(max_examples=60, deadline=None)
@given(names=NAMES, images=st.integers(1, 5), step=st.integers(0, 1000))
def test_a_patient_gives_images_of_their_own_each_as_often_as_the_others(names, images, step):
    patients = Patients.named(names)
    for number, count in enumerate(patients.counts):
        given_ = np.bincount(places(patients, number, images, step), minlength=count)
        assert given_.sum() == images
        assert given_.max() - given_.min() <= 1


@settings(max_examples=60, deadline=None)
@given(names=NAMES, others=NAMES, step=st.integers(0, 1000))
def test_what_a_patient_gives_depends_on_no_other_patients_images(names, others, step):
    """Neighbours: the images of all patients but one are replaced, in kind and number."""
    mine = ["me"] * 4
    one = Patients.named(["z", "me", *names, *mine])
    two = Patients.named(["z", "z", "z", "me", *mine, *others])
    assert places(one, 1, 2, step) == places(two, 1, 2, step)


@settings(max_examples=30, deadline=None)
@given(names=NAMES, step=st.integers(0, 1000))
def test_what_a_patient_gives_depends_on_nobody_else_in_the_batch(names, step):
    patients = Patients.named(names)
    everybody = patients.draw(range(len(patients)), 2, 7, step)
    for left_out in range(len(patients)):
        others = [number for number in range(len(patients)) if number != left_out]
        assert np.array_equal(patients.draw(others, 2, 7, step), everybody[others])


def test_every_image_of_a_patient_is_given_equally_often():
    patients = Patients.named(["a"] * 5 + ["b"] * 2)
    given_ = [places(patients, 0, 1, step)[0] for step in range(4000)]
    # Five standard errors for each of five counts: one false alarm in 300 000.
    assert np.abs(np.bincount(given_) - 800).max() < 5 * (4000 * 0.2 * 0.8) ** 0.5
    assert {places(patients, 1, 1, 3, seed)[0] for seed in range(20)} == {0, 1}


def test_an_empty_batch_of_patients_has_no_images():
    assert Patients.named(["a", "b"]).draw([], 3, 0, 0).shape == (0, 3)


def test_patients_are_protected_where_all_images_name_theirs(stripes):
    nameless = stripes(6)
    train = nameless.splits["train"]

    def known(*names, unit):
        split = dataclasses.replace(train, patients=names)
        return known_patients(dataclasses.replace(nameless, splits={"train": split}), unit)

    assert known_patients(nameless, "auto") is None
    assert known(*"aabbcc", unit="image") is None
    for unit in ("auto", "patient"):
        assert len(known(*"aabbcc", unit=unit)) == 3
        with pytest.raises(UserError, match=r"2 of the 6 training images.*column patient"):
            known("a", "a", "", "b", "", "b", unit=unit)
    with pytest.raises(UserError, match=r"6 of the 6 training images.*privacy\.unit=image"):
        known_patients(nameless, "patient")


def test_each_patient_gives_one_image_the_same_in_all_runs(stripes):
    data = stripes(12)
    names = tuple("abcabcabcaab")
    split = dataclasses.replace(
        data.splits["train"], patients=names, groups={"sex": tuple("fmfmfmfmfmfm")}
    )
    data = dataclasses.replace(data, splits=data.splits | {"train": split})
    patients = Patients.named(names)
    kept = one_image_of_each(data, patients)
    assert kept.splits["train"].patients == ("a", "b", "c")
    rows = patients.one_image_each().tolist()
    assert [names[row] for row in rows] == ["a", "b", "c"]
    assert np.array_equal(kept.splits["train"].pixels, split.pixels[rows])
    assert np.array_equal(kept.splits["train"].labels, split.labels[rows])
    assert kept.splits["train"].groups == {"sex": tuple("fm"[row % 2] for row in rows)}
    again = one_image_of_each(data, patients).splits["train"]
    assert np.array_equal(again.pixels, kept.splits["train"].pixels)
    assert kept.splits["test"] is data.splits["test"]
