import pytest
import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.transforms.functional import normalize

from dpmi.models.network import build_network
from dpmi.models.norms import (
    FrozenStatisticsBatchNorm,
    convert_norms,
    group_norm_from_batch_norm,
)
from dpmi.models.preprocessing import INPUTS


def pretrained_like(num_classes=5):
    torch.manual_seed(0)
    net = resnet18(num_classes=num_classes)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, std=0.3)
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.2)
    return net.eval()


def test_it_computes_what_torchvisions_resnet18_computes():
    reference = pretrained_like()
    images = torch.rand(3, 3, 64, 64)
    normalised = normalize(images, INPUTS["imagenet"].mean, INPUTS["imagenet"].std)
    for norm in ("batch", "frozen_batch"):
        net = build_network("resnet18", 5, norm, reference.state_dict()).eval()
        torch.testing.assert_close(net(images), reference(normalised), rtol=1e-4, atol=1e-5)


def test_a_gray_image_is_taken_as_three_equal_channels():
    net = build_network("resnet18", 5, "frozen_batch", pretrained_like().state_dict())
    gray = torch.rand(2, 1, 64, 64)
    torch.testing.assert_close(net(gray), net(gray.expand(-1, 3, -1, -1)))


def test_frozen_statistics_are_never_updated_and_mix_no_images():
    net = build_network("resnet18", 2, "frozen_batch", pretrained_like().state_dict()).train()
    before = {k: v.clone() for k, v in net.named_buffers()}
    images = torch.rand(4, 1, 64, 64)
    together = net(images)
    alone = torch.cat([net(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(before[k], v) for k, v in net.named_buffers())
    frozen = [m for m in net.modules() if isinstance(m, FrozenStatisticsBatchNorm)]
    assert len(frozen) == 20
    assert all(m.weight.requires_grad and m.bias.requires_grad for m in frozen)


def test_group_norm_repeats_the_batch_norm_on_an_image_with_the_populations_statistics():
    torch.manual_seed(0)
    channels, side = 72, 64  # in 8 groups, as 32 do not divide them
    source = nn.BatchNorm2d(channels).eval()
    nn.init.normal_(source.running_mean, std=1.0)
    nn.init.uniform_(source.running_var, 0.2, 3.0)
    nn.init.normal_(source.weight)
    nn.init.normal_(source.bias)
    noise = torch.randn(1, channels, side, side)
    mean, std = noise.mean((2, 3), keepdim=True), noise.std((2, 3), unbiased=False, keepdim=True)
    image = (noise - mean) / std * source.running_var.sqrt().view(1, -1, 1, 1)
    image = image + source.running_mean.view(1, -1, 1, 1)
    converted = group_norm_from_batch_norm(source)
    torch.testing.assert_close(converted(image), source(image), rtol=1e-3, atol=1e-4)


def test_group_norm_leaves_no_batch_norm_and_keeps_the_filters():
    reference = pretrained_like()
    net = build_network("resnet18", 5, "group", reference.state_dict())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    assert torch.equal(net.net.layer3[1].conv2.weight, reference.layer3[1].conv2.weight)


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="batch, group, frozen_batch"):
        convert_norms(pretrained_like(), "layer")
