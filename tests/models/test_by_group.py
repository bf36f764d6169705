"""Metrics by group, of probabilities whose metrics are counted by hand."""

import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_auroc, multiclass_calibration_error

from dpmi.models.by_group import by_group
from dpmi.models.groups import SMALL, flat, worst_groups
from dpmi.models.names import BINS

CLASSES = ("well", "ill")


@pytest.fixture
def tested():
    """60 images of 30 patients."""
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(0, 2, 60))
    ill = torch.from_numpy(rng.random(60)).float() * 0.7 + 0.3 * labels
    return torch.stack([1 - ill, ill], 1), labels


PATIENTS = tuple(f"{number // 2}" for number in range(60))


def test_each_groups_metrics_are_those_of_its_images_alone(tested):
    probabilities, labels = tested
    sex = tuple("fm"[number % 3 == 0] for number in range(60))
    site = tuple(("north", "south", "unknown")[number // 20] for number in range(60))
    found = by_group(tested, {"sex": sex, "site": site}, PATIENTS, CLASSES)
    assert [group.title for group in found] == [
        "sex=f", "sex=m", "site=north", "site=south", "site=unknown",
    ]  # fmt: skip
    for group in found:
        of_images = {"sex": sex, "site": site}[group.column]
        rows = [row for row, name in enumerate(of_images) if name == group.name]
        p, truth = probabilities[rows], labels[rows]
        right = (p.argmax(1) == truth).float()
        recalls = [float(right[truth == k].mean()) for k in (0, 1)]
        expected = {
            "accuracy": float(right.mean()),
            "balanced_accuracy": sum(recalls) / 2,
            "auroc": float(multiclass_auroc(p, truth, 2)),
            "ece": float(multiclass_calibration_error(p, truth, 2, n_bins=BINS)),
        }
        assert group.images == len(rows) == sum(group.class_counts.values())
        assert group.patients == len({PATIENTS[row] for row in rows})
        assert group.class_counts["ill"] == int(truth.sum())
        for name, value in expected.items():
            its = group.measures[name]
            assert its.value == pytest.approx(value, abs=1e-6), (group.title, name)
            assert 0 <= its.low <= its.high <= 1
            if name != "ece":  # whose interval is of the error without what is by chance
                assert its.low <= its.value <= its.high


def test_a_group_of_one_class_has_no_auroc_and_its_accuracy_is_its_recall(tested):
    probabilities, labels = tested
    kind = tuple(CLASSES[label] for label in labels)
    well, ill = sorted(
        by_group(tested, {"kind": kind}, PATIENTS, CLASSES), key=lambda g: -len(g.name)
    )
    for group, k in ((well, 0), (ill, 1)):
        recall = float((probabilities[labels == k].argmax(1) == k).float().mean())
        auroc = group.measures["auroc"]
        assert (auroc.value, auroc.low, auroc.high) == (None, None, None)
        assert group.measures["accuracy"].value == pytest.approx(recall)
        assert group.measures["balanced_accuracy"] == group.measures["accuracy"]
    assert math.isnan(flat([ill])["by_group/kind=ill/auroc"])
    assert "auroc" not in worst_groups([well, ill])


def test_an_image_whose_patient_is_not_known_is_one_of_its_own(tested):
    group = {"all": ("all",) * 60}
    of = {n: by_group(tested, group, ("p",) * n + ("",) * (60 - n), CLASSES)[0] for n in (0, 1, 20)}
    assert [its.patients for its in of.values()] == [None, 60, 41]
    assert of[0].measures == of[1].measures
    named = by_group(tested, group, ("image 5", *("",) * 59), CLASSES)[0]
    assert named.patients == 60


def test_the_worst_group_is_none_of_a_handful_of_images(tested):
    probabilities, labels = tested
    right = (probabilities.argmax(1) == labels).tolist()
    wrong = [row for row in range(60) if not right[row]][: SMALL - 1]
    names = tuple("few" if row in wrong else "ab"[row % 2] for row in range(60))
    found = {group.name: group for group in by_group(tested, {"g": names}, PATIENTS, CLASSES)}
    assert found["few"].is_small
    assert found["few"].measures["accuracy"].value == 0
    assert found["few"].measures["ece"].low is None
    worst = worst_groups(list(found.values()))
    accuracies = {n: found[n].measures["accuracy"].value for n in "ab"}
    assert worst["accuracy"].value == min(accuracies.values())
    assert worst["ece"].value == max(found[n].measures["ece"].value for n in "ab")
    assert worst["accuracy"].group == f"g={min(accuracies, key=accuracies.get)}"
