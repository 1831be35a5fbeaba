"""Layers and small functions that the model parts are made of."""

from torch.nn import ConvTranspose2d, Linear
from torch.nn.functional import interpolate

from hookline.modeling.layers.conv import CNNBlockBase, Conv2d
from hookline.modeling.layers.norm import (
    NORMS,
    BatchNorm2d,
    FrozenBatchNorm2d,
    LayerNorm,
    NaiveSyncBatchNorm,
    SyncBatchNorm,
    get_norm,
)
from hookline.modeling.layers.ops import batched_nms, cat, cross_entropy, nonzero_tuple
from hookline.modeling.layers.roi_align import ROIAlign
from hookline.modeling.layers.shape_spec import ShapeSpec
from hookline.structures import paste_masks_in_image

__all__ = [
    "NORMS",
    "BatchNorm2d",
    "CNNBlockBase",
    "Conv2d",
    "ConvTranspose2d",
    "FrozenBatchNorm2d",
    "LayerNorm",
    "Linear",
    "NaiveSyncBatchNorm",
    "ROIAlign",
    "ShapeSpec",
    "SyncBatchNorm",
    "batched_nms",
    "cat",
    "cross_entropy",
    "get_norm",
    "interpolate",
    "nonzero_tuple",
    "paste_masks_in_image",
]
