import math

import pytest
import torch

from dpmi.models.head import FeatureHead
from dpmi.models.prior import between, midway


def test_two_classes_are_decided_midway_between_their_mean_margins():
    means = torch.tensor([[2.0, -2.0], [1.0, -1.0]])  # margins -4 and -2: all were decided as one
    shift = midway(means)
    assert float(shift[1] - shift[0]) == pytest.approx(-3.0)
    assert ((means - shift).argmax(1) == torch.arange(2)).all()


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_a_threshold_that_was_displaced_is_found_whatever_the_classes_are(classes):
    generator = torch.Generator().manual_seed(classes)
    settled = 6 * torch.eye(classes) + torch.randn(classes, classes, generator=generator)
    settled = settled - midway(settled)
    by = 3 * torch.randn(classes, generator=generator)
    by = by - by.mean()
    torch.testing.assert_close(midway(settled + by), by)


def test_each_finding_is_decided_midway_between_those_that_show_it_and_those_that_do_not():
    means = torch.tensor([[1.0, -2.0, 3.0], [-3.0, -4.0, 1.0]])
    shift = between(means)
    assert shift.tolist() == [-1.0, -3.0, 2.0]
    assert ((means - shift)[0] > 0).all()
    assert ((means - shift)[1] < 0).all()


def test_of_findings_the_odds_of_the_training_set_are_taken_off_in_evaluation_alone():
    net = FeatureHead(2, 3, "linear")
    net.set_finding_counts(torch.tensor([10.0, 50, -3]), torch.tensor([90.0, 50, 97]), 100)
    x = torch.tensor([[1.0, 0.0]])
    assert net.train()(x).tolist() == [[0, 0, 0]]
    odds = [math.log(10 / 90), 0, math.log(1 / 97)]  # a count below one image is taken for one
    assert net.eval()(x)[0].tolist() == pytest.approx([-value for value in odds])
    assert net.known.tolist() == pytest.approx([1.0, 1.0, 0.98])
    net.set_finding_counts(torch.tensor([10.0]), torch.tensor([90.0]), 100, noise_std=30)
    assert net.log_shares[0].item() == pytest.approx(math.log(30 / 90))
