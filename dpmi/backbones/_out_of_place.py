"""torchvision's networks without operations in place, which Opacus' hooks forbid."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models import DenseNet
from torchvision.models.resnet import BasicBlock, Bottleneck


class OutOfPlaceBlock(BasicBlock):
    """Two convolutions, as in ResNet-18 and ResNet-34."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H', W')."""
        out = nn.functional.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        identity = x if self.downsample is None else self.downsample(x)
        return nn.functional.relu(out + identity)


class OutOfPlaceBottleneck(Bottleneck):
    """Three convolutions, as in ResNet-50."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H', W')."""
        out = nn.functional.relu(self.bn1(self.conv1(x)))
        out = nn.functional.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        identity = x if self.downsample is None else self.downsample(x)
        return nn.functional.relu(out + identity)


class OutOfPlaceDenseNet(DenseNet):
    """DenseNet, whose last ReLU is no layer of its own."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, K)."""
        maps = nn.functional.relu(self.features(x))
        pooled: Tensor = nn.functional.adaptive_avg_pool2d(maps, 1).flatten(1)
        return self.classifier(pooled)


def without_operations_in_place(net: nn.Module) -> None:
    """Let ReLUs and their like leave what they are given as it is."""
    for layer in net.modules():
        if getattr(layer, "inplace", False):
            layer.inplace = False  # type: ignore[assignment]
