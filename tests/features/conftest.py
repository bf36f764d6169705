import pytest
import torch

from dpmi.models.resnet import ResNet18


@pytest.fixture(scope="session")
def pretrained():
    """A state dict of ResNet-18 with BatchNorm statistics that are not those of a beginner."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = ResNet18(7).train()
        with torch.no_grad():
            for layer in net.modules():
                if isinstance(layer, torch.nn.BatchNorm2d):
                    layer.weight.uniform_(0.5, 1.5)
                    layer.bias.uniform_(-0.5, 0.5)
            net(torch.rand(4, 3, 48, 48))
        return net.net.state_dict()
