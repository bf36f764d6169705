import dataclasses
import math

import pytest
import torch

from dpmi.privacy.statistics import (
    LOGIT_BOUND,
    SENSITIVITY,
    TrainingSet,
    class_logit_sums,
    class_sensitivity,
    class_statistics,
    packed,
    unpacked,
)


def training_set(n=40, d=7, classes=3):
    """Rows of all lengths: shorter than one, longer, none, and not finite."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(n, d, generator=generator) * torch.rand(n, 1, generator=generator) * 3
    vectors[3], vectors[5, 2], vectors[6, 0] = 0, math.nan, math.inf
    vectors[7] *= 1e30
    return TrainingSet(torch.arange(n) % classes, classes, vectors)


def without(data, row):
    kept = torch.arange(len(data.labels)) != row
    return TrainingSet(data.labels[kept], data.num_classes, data.vectors[kept])


def test_dropping_any_one_image_moves_each_statistic_by_at_most_its_sensitivity():
    data, scale = training_set(), 0.3
    joint = class_statistics(data.vectors, data.labels, 3, scale)
    assert class_sensitivity(scale) == pytest.approx(math.sqrt(1.09))
    logits = 10 * data.vectors[:, :3]
    sums = class_logit_sums(logits, data.labels, 3)
    largest, of_logits, of_sums = 0.0, 0.0, 0.0
    for row in range(len(data.labels)):
        fewer = without(data, row)
        assert (data.vector_sum() - fewer.vector_sum()).norm() <= SENSITIVITY + 1e-12
        assert (data.class_counts() - fewer.class_counts()).norm() <= SENSITIVITY
        moved = joint - class_statistics(fewer.vectors, fewer.labels, 3, scale)
        largest = max(largest, float(moved.norm()))
        of_sums = max(of_sums, float((data.class_sums() - fewer.class_sums()).norm()))
        kept = torch.arange(len(data.labels)) != row
        moved = sums - class_logit_sums(logits[kept], fewer.labels, 3)
        of_logits = max(of_logits, float(moved.norm()))
    assert largest == pytest.approx(class_sensitivity(scale))  # and no less is enough
    assert of_logits == pytest.approx(SENSITIVITY)
    assert of_sums == pytest.approx(SENSITIVITY)


@pytest.mark.parametrize("rows", ["hostile", "identical", "along one axis"])
@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_dropping_any_one_image_moves_sums_counts_and_second_moment_by_no_more_than_planned(
    rows, scale
):
    """In float64: long rows, rows that are not finite, copies, and those where a bound is tight."""
    data = training_set()
    if rows != "hostile":
        row = {"identical": torch.randn(7), "along one axis": torch.eye(7)[2]}[rows]
        data = TrainingSet(data.labels, 3, 5 * row.expand(40, 7))
    joint = class_statistics(data.vectors, data.labels, 3, 0.3, scale)
    assert joint.dtype == torch.float64
    assert joint.isfinite().all()
    bound = class_sensitivity(0.3, scale)
    assert bound == pytest.approx(math.sqrt(1.09 + scale**2))
    moved = []
    for row in range(data.n):
        fewer = without(data, row)
        less = class_statistics(fewer.vectors, fewer.labels, 3, 0.3, scale)
        moved.append(float((joint - less).norm()))
    assert max(moved) <= bound * (1 + 1e-12)
    assert max(moved) == pytest.approx(bound)  # and no less is enough
    if rows == "hostile":  # one that is not finite has a count and no more
        assert moved[5] == pytest.approx(0.3)


def of_patients(data, whose):
    return dataclasses.replace(data, patients=torch.tensor(whose))


def test_dropping_any_one_patient_moves_each_statistic_by_at_most_its_sensitivity():
    """Of 1, 3 and 12 images, hostile ones, and equal ones, for which a bound is tight."""
    data, scale, moment = training_set(16), 0.3, 1.0
    vectors, labels = data.vectors.clone(), data.labels.clone()
    vectors[8:] = 9 * torch.eye(7)[1]
    labels[8:] = 1
    whose = [0, 1, 1, 1, 2, 3, 3, 3, *[4] * 8]
    logits = 10 * torch.nan_to_num(vectors[:, :3], nan=0.0, posinf=1.0).clamp(-9, 9)

    def all_of(kept):
        rows = [row for row, patient in enumerate(whose) if patient in kept]
        numbers = [kept.index(whose[row]) for row in rows]
        part = TrainingSet(labels[rows], 3, vectors[rows], patients=torch.tensor(numbers))
        joint = class_statistics(part.vectors, part.labels, 3, scale, moment, part.weights)
        of_logits = class_logit_sums(logits[rows], part.labels, 3, part.weights)
        return part.vector_sum(), part.class_counts(), part.class_sums(), of_logits, joint

    everybody = list(range(5))
    bounds = [SENSITIVITY] * 4 + [class_sensitivity(scale, moment)]
    moved = []
    for left_out in everybody:
        fewer = all_of([patient for patient in everybody if patient != left_out])
        moved.append([float((a - b).norm()) for a, b in zip(all_of(everybody), fewer, strict=True)])
    for found, bound in zip(zip(*moved, strict=True), bounds, strict=True):
        assert max(found) <= bound * (1 + 1e-12)
    assert moved[4][0] == pytest.approx(SENSITIVITY)  # and no less is enough
    assert moved[4][4] == pytest.approx(class_sensitivity(scale, moment))


def test_patients_with_one_image_each_have_the_statistics_of_images():
    data = training_set()
    patients = of_patients(data, list(range(40)))
    assert patients.n == 40
    torch.testing.assert_close(patients.vector_sum(), data.vector_sum())
    torch.testing.assert_close(patients.class_sums(), data.class_sums())
    assert patients.class_counts().tolist() == data.class_counts().tolist()


def test_a_patient_counts_once_however_many_images_there_are():
    labels, vectors = torch.tensor([0, 0, 1, 1]), torch.eye(4)
    data = TrainingSet(labels, 2, vectors, patients=torch.tensor([0, 1, 1, 1]))
    assert data.n == 2
    third = 1 / 3
    assert data.class_counts().tolist() == pytest.approx([1 + third, 2 * third])
    assert data.vector_sum().tolist() == pytest.approx([1, third, third, third])


def test_a_patient_has_the_mean_of_the_vectors_and_the_label_of_most_images():
    labels, vectors = torch.tensor([2, 0, 1, 1, 2, 1]), torch.eye(6)
    data = TrainingSet(labels, 3, vectors, patients=torch.tensor([1, 0, 0, 0, 1, 1]))
    rows = data.of_patients()
    assert rows.labels.tolist() == [1, 2]
    assert rows.patients is None
    assert rows.vectors[0].tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3, 0, 0])
    tie = TrainingSet(torch.tensor([2, 1]), 3, torch.eye(2), patients=torch.tensor([0, 0]))
    assert tie.of_patients().labels.tolist() == [1]


def test_a_packed_matrix_is_as_long_as_it_was_and_is_had_again():
    x = torch.randn(9, 6, dtype=torch.float64)
    matrix = x.T @ x
    assert packed(matrix).shape == (21,)
    assert packed(matrix).norm() == pytest.approx(float(matrix.norm()))
    torch.testing.assert_close(unpacked(packed(matrix)), matrix)
    joint = class_statistics(x / 9, torch.zeros(9, dtype=torch.long), 1, 0.3, 2.0)
    torch.testing.assert_close(unpacked(joint[7:] / 2), matrix / 81)


def test_statistics_are_the_sums_and_counts_they_say():
    data = training_set()
    rows = torch.nan_to_num(data.vectors.double(), nan=0.0, posinf=0.0)
    rows[[5, 6]] = 0
    rows = rows / rows.norm(dim=1, keepdim=True).clamp(min=1.0)
    torch.testing.assert_close(data.vector_sum(), rows.sum(0))
    assert data.class_counts().tolist() == [14.0, 13.0, 13.0]
    joint = class_statistics(data.vectors, data.labels, 3, 0.5)
    torch.testing.assert_close(joint[: 3 * 7].view(3, 7)[1], rows[data.labels == 1].sum(0))
    assert joint[3 * 7 :].tolist() == [7.0, 6.5, 6.5]


def test_sums_of_logits_are_by_class_of_centred_logits_no_longer_than_the_bound():
    logits = torch.tensor([[3.0, 1.0], [8.0, -4.0], [0.0, 2.0]])
    sums = class_logit_sums(logits, torch.tensor([0, 0, 1]), 2).view(2, 2) * LOGIT_BOUND
    longest = LOGIT_BOUND / math.sqrt(2)  # of (6, -6)
    expected = torch.tensor([[1.0 + longest, -1.0 - longest], [-1.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(sums, expected)


def test_whatever_the_last_bits_of_a_release_depend_on_is_in_the_digest():
    """Noise is repeated where a digest is the same: added to other sums it could be taken off."""
    data = training_set()
    last_bit = data.vectors.clone()
    last_bit[0, 0] = torch.nextafter(last_bit[0, 0], torch.tensor(9.0))
    others = [
        dataclasses.replace(data, vectors=last_bit),
        dataclasses.replace(data, length=math.nextafter(data.length, 2.0)),
        dataclasses.replace(data, vectors=None),
    ]
    assert len({data.digest, *(other.digest for other in others)}) == 4
    assert dataclasses.replace(data, vectors=data.vectors.clone()).digest == data.digest


def test_images_have_no_mean_to_release():
    with pytest.raises(ValueError, match="these are images"):
        TrainingSet(torch.zeros(3, dtype=torch.long), 2).vector_sum()
    with pytest.raises(ValueError, match="none were given"):
        TrainingSet(torch.zeros(3, dtype=torch.long), 2).class_sums()
