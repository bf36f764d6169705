import pytest
import torch

from dpmi.models.network import ImageNetwork, Pretrained


@pytest.fixture(scope="session")
def pretrained():
    """A ResNet-18 with BatchNorm statistics that are not those of a beginner."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = ImageNetwork("resnet18", 7).train()
        with torch.no_grad():
            for layer in net.modules():
                if isinstance(layer, torch.nn.BatchNorm2d):
                    layer.weight.uniform_(0.5, 1.5)
                    layer.bias.uniform_(-0.5, 0.5)
            net(torch.rand(4, 3, 48, 48))
        return Pretrained("resnet18", net.net.state_dict())
