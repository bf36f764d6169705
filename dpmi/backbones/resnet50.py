"""ResNet-50."""

from dpmi.backbones._resnets import resnet

BACKBONE = resnet("bottleneck", [3, 4, 6, 3], "ResNet50_Weights.IMAGENET1K_V2")
