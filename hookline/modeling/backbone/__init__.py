"""Backbones: from images to feature maps."""

from hookline.modeling.backbone.backbone import Backbone
from hookline.modeling.backbone.fpn import FPN, LastLevelMaxPool, LastLevelP6P7
from hookline.modeling.backbone.resnet import ResNet, ResNetBlockBase
from hookline.modeling.backbone.resnet_blocks import BasicBlock, BasicStem, BottleneckBlock

__all__ = [
    "FPN",
    "Backbone",
    "BasicBlock",
    "BasicStem",
    "BottleneckBlock",
    "LastLevelMaxPool",
    "LastLevelP6P7",
    "ResNet",
    "ResNetBlockBase",
]
