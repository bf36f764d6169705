"""Losses of classes and of several findings: of an example alone, whatever stands beside it."""

import math

import pytest
import torch
from torch import nn

from dpmi.base.targets import are_findings, example_losses, probabilities
from dpmi.base.views import as_one_batch

NAN = math.nan


def test_a_loss_of_findings_is_the_mean_over_those_that_are_known():
    logits = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]], dtype=torch.float64)
    findings = torch.tensor([[1.0, 0.0, NAN], [NAN, 1.0, NAN]])
    losses = example_losses(logits, findings)
    first = (math.log1p(math.exp(-1)) + math.log1p(math.exp(-2))) / 2
    assert losses.tolist() == pytest.approx([first, math.log1p(math.exp(-3))])


def test_what_is_not_known_has_no_part_in_loss_or_gradient():
    findings = torch.tensor([[1.0, NAN], [NAN, NAN]])
    for hidden in (0.0, 1e4, -1e4):
        logits = torch.tensor([[0.3, hidden], [hidden, 7.0]], requires_grad=True)
        losses = example_losses(logits, findings)
        (gradient,) = torch.autograd.grad(losses.sum(), logits)
        assert losses[1] == 0
        assert gradient[0, 1] == 0
        assert gradient[1].tolist() == [0, 0]
        assert float(gradient[0, 0]) == pytest.approx(torch.tensor(0.3).sigmoid() - 1)


def test_the_loss_of_an_example_is_the_same_to_the_bit_in_any_batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 4, generator=generator)
    findings = (torch.rand(7, 4, generator=generator) < 0.5).float()
    findings[torch.rand(7, 4, generator=generator) < 0.4] = NAN
    together = example_losses(logits, findings)
    for row in range(7):
        assert example_losses(logits[row : row + 1], findings[row : row + 1]) == together[row]


def test_of_classes_loss_and_probabilities_are_those_of_a_softmax():
    logits, labels = torch.randn(5, 3), torch.arange(5) % 3
    expected = nn.functional.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(example_losses(logits, labels), expected)
    assert not are_findings(labels)
    torch.testing.assert_close(probabilities(logits, multilabel=False).sum(1), torch.ones(5))
    torch.testing.assert_close(probabilities(logits, multilabel=True), logits.sigmoid())


@pytest.mark.parametrize("of_views", [True, False])
def test_the_findings_of_an_example_go_with_each_of_its_views(of_views):
    images = torch.arange(6.0).view(3, 2, 1, 1, 1)
    findings = torch.tensor([[1.0, 0.0], [0.0, NAN], [1.0, 1.0]])
    given = torch.stack([findings, 1 - findings], 1) if of_views else findings
    flat, labels, views = as_one_batch(images, given)
    assert (flat.flatten().tolist(), views) == ([0, 1, 2, 3, 4, 5], 2)
    expected = given.flatten(0, 1) if of_views else findings.repeat_interleave(2, 0)
    torch.testing.assert_close(labels, expected, equal_nan=True)
    assert labels.shape == (6, 2)
