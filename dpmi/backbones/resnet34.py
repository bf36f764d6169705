"""ResNet-34."""

from dpmi.backbones._resnets import resnet

BACKBONE = resnet("basic", [3, 4, 6, 3], "ResNet34_Weights.IMAGENET1K_V1")
