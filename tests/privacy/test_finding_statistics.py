"""Counts and logits of several findings: one image moves K of them, and no sum by more than 1."""

import math

import pytest
import torch

from dpmi.privacy.finding_statistics import LOGIT_BOUND, finding_counts, finding_logit_sums
from dpmi.privacy.statistics import SENSITIVITY, TrainingSet

K = 5


def findings(n=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    found = (torch.rand(n, K, generator=generator) < 0.4).float()
    found[torch.rand(n, K, generator=generator) < 0.3] = math.nan
    found[0], found[1], found[2] = 1.0, 0.0, math.nan  # all there, all absent, nothing known
    return found


def hostile_logits(n=40):
    """Of all sizes, and some not finite; those of the first images are the longest that count."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(n, K, generator=generator) * 10 ** torch.linspace(-2, 6, n)[:, None]
    logits[:2] = LOGIT_BOUND
    logits[3, 0], logits[4, 1] = math.nan, math.inf
    return logits


def test_dropping_any_one_image_moves_counts_and_logit_sums_by_at_most_their_sensitivity():
    found, logits = findings(), hostile_logits()
    whole = TrainingSet(found, K)
    largest = {"counts": 0.0, "logits": 0.0}
    for row in range(len(found)):
        kept = torch.arange(len(found)) != row
        fewer = TrainingSet(found[kept], K)
        moved = {
            "counts": whole.class_counts() - fewer.class_counts(),
            "logits": whole.logit_sums(logits) - fewer.logit_sums(logits[kept]),
        }
        for name, by in moved.items():
            assert by.norm() <= SENSITIVITY + 1e-12
            largest[name] = max(largest[name], float(by.norm()))
    assert largest == pytest.approx({"counts": SENSITIVITY, "logits": SENSITIVITY})


def test_dropping_any_one_patient_moves_them_by_at_most_their_sensitivity():
    found, logits = findings(), hostile_logits()
    patients = torch.arange(40) // 4
    whole = TrainingSet(found, K, patients=patients)
    for patient in range(10):
        kept = patients != patient
        others = torch.unique(patients[kept], return_inverse=True)[1]
        fewer = TrainingSet(found[kept], K, patients=others)
        assert (whole.class_counts() - fewer.class_counts()).norm() <= SENSITIVITY + 1e-12
        moved = whole.logit_sums(logits) - fewer.logit_sums(logits[kept])
        assert moved.norm() <= SENSITIVITY + 1e-12


def test_counts_and_logit_sums_are_of_what_is_known():
    found = torch.tensor([[1.0, 0.0], [1.0, math.nan], [0.0, 1.0]])
    assert finding_counts(found) * math.sqrt(2) == pytest.approx([2, 1, 1, 1])
    logits = torch.tensor([[1.0, -2.0], [0.5, 9.0], [-1.0, 3.0]])
    sums = finding_logit_sums(logits, found) * LOGIT_BOUND * math.sqrt(2)
    # The second image is too long for the bound, were its unknown logit counted.
    assert sums.tolist() == pytest.approx([1.5, 3.0, -1.0, -2.0])
    assert TrainingSet(found, 2).num_logit_sums == 4
    assert TrainingSet(torch.arange(3), 3).num_logit_sums == 9
