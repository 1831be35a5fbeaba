"""Geometry and colour: objects that change image, boxes, polygons, keypoints and label maps alike; usually ``as T``.

Transforms are fvcore's (deterministic); augmentations draw them (random). Names, arguments and draws are Detectron2's.
"""

from fvcore.transforms.transform import (
    GridSampleTransform,
    HFlipTransform,
    NoOpTransform,
    PadTransform,
    ScaleTransform,
    Transform,
    TransformList,
    VFlipTransform,
)

from hookline.data.transforms.affine import ExtentTransform, RandomExtent, RandomRotation, RotationTransform
from hookline.data.transforms.arrays import image_to_chw, image_to_tensor
from hookline.data.transforms.augmentation import AugInput, Augmentation, AugmentationList, apply_augmentations
from hookline.data.transforms.chance import RandomApply, RandomFlip
from hookline.data.transforms.colour import (
    BlendTransform,
    ColorTransform,
    PILColorTransform,
    RandomBrightness,
    RandomContrast,
    RandomLighting,
    RandomSaturation,
)
from hookline.data.transforms.crop import (
    CropTransform,
    FixedSizeCrop,
    RandomCrop,
    RandomCrop_CategoryAreaConstraint,
)
from hookline.data.transforms.resize import RandomResize, Resize, ResizeScale, ResizeShortestEdge, ResizeTransform

__all__ = [
    "AugInput",
    "Augmentation",
    "AugmentationList",
    "BlendTransform",
    "ColorTransform",
    "CropTransform",
    "ExtentTransform",
    "FixedSizeCrop",
    "GridSampleTransform",
    "HFlipTransform",
    "NoOpTransform",
    "PILColorTransform",
    "PadTransform",
    "RandomApply",
    "RandomBrightness",
    "RandomContrast",
    "RandomCrop",
    "RandomCrop_CategoryAreaConstraint",
    "RandomExtent",
    "RandomFlip",
    "RandomLighting",
    "RandomResize",
    "RandomRotation",
    "RandomSaturation",
    "Resize",
    "ResizeScale",
    "ResizeShortestEdge",
    "ResizeTransform",
    "RotationTransform",
    "ScaleTransform",
    "Transform",
    "TransformList",
    "VFlipTransform",
    "apply_augmentations",
    "image_to_chw",
    "image_to_tensor",
]
