"""The plain gradient."""

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
