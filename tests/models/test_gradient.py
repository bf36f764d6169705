"""The plain gradient."""

import pytest
import torch
from torch import nn

from dpmi.models.gradient import MeanGradient


def test_of_images_in_views_it_is_that_of_the_mean_loss_over_the_views_of_each():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    images, labels = torch.rand(5, 4, 1, 4, 4), torch.arange(5) % 3
    logits = MeanGradient(net)(images, labels)
    assert logits.shape == (20, 3)
    found = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    losses = [
        nn.functional.cross_entropy(net(views), label.expand(4))
        for views, label in zip(images, labels, strict=True)
    ]
    torch.stack(losses).mean().backward()
    for grad, parameter in zip(found, net.parameters(), strict=True):
        torch.testing.assert_close(grad, parameter.grad)


@pytest.mark.parametrize("bound", [0.1, 1e3])
def test_a_batchs_gradient_of_a_larger_norm_is_scaled_down_and_another_is_as_it_was(bound):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    images, labels = torch.rand(6, 1, 4, 4), torch.arange(6) % 3
    MeanGradient(net)(images, labels)
    plain = torch.cat([p.grad.flatten() for p in net.parameters()])
    MeanGradient(net, clip_norm=bound)(images, labels)
    found = torch.cat([p.grad.flatten() for p in net.parameters()])
    assert 0.1 < float(plain.norm()) < 1e3
    expected = plain * min(1.0, bound / float(plain.norm()))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)
