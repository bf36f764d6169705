import torch
from torch import nn

from dpmi.mechanisms import NonPrivate


def test_the_original_trains_on_the_images_as_they_are(stripes):
    data = stripes()
    assert NonPrivate().release_data(data) is data
    assert NonPrivate().train_batches() is None


def test_the_originals_gradient_is_the_plain_mean():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    images, labels = torch.rand(5, 1, 4, 4), torch.tensor([0, 1, 0, 1, 1])
    nn.functional.cross_entropy(net(images), labels).backward()
    reference = [parameter.grad.clone() for parameter in net.parameters()]
    logits = NonPrivate().make_gradient(net)(images, labels)
    assert not logits.requires_grad
    for parameter, expected in zip(net.parameters(), reference, strict=True):
        torch.testing.assert_close(parameter.grad, expected)


def test_the_original_promises_nothing_and_says_why():
    promise = NonPrivate().guarantee()
    assert promise.epsilon is None
    assert "no privacy guarantee" in str(promise)
    assert "without any mechanism" in promise.reason
