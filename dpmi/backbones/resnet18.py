"""ResNet-18."""

from dpmi.backbones._resnets import resnet

BACKBONE = resnet("basic", [2, 2, 2, 2], "ResNet18_Weights.IMAGENET1K_V1")
