import pytest
import torch

from dpmi.models.prior import midway


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
