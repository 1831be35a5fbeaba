"""ROI heads: classes, boxes, masks and keypoints of regions."""

from hookline.modeling.roi_heads.box_head import FastRCNNConvFCHead
from hookline.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers, fast_rcnn_inference
from hookline.modeling.roi_heads.keypoint_head import (
    BaseKeypointRCNNHead,
    KRCNNConvDeconvUpsampleHead,
    keypoint_rcnn_inference,
    keypoint_rcnn_loss,
)
from hookline.modeling.roi_heads.mask_head import (
    BaseMaskRCNNHead,
    MaskRCNNConvUpsampleHead,
    mask_rcnn_inference,
    mask_rcnn_loss,
)
from hookline.modeling.roi_heads.roi_heads import ROIHeads, StandardROIHeads, select_foreground_proposals

__all__ = [
    "BaseKeypointRCNNHead",
    "BaseMaskRCNNHead",
    "FastRCNNConvFCHead",
    "FastRCNNOutputLayers",
    "KRCNNConvDeconvUpsampleHead",
    "MaskRCNNConvUpsampleHead",
    "ROIHeads",
    "StandardROIHeads",
    "fast_rcnn_inference",
    "keypoint_rcnn_inference",
    "keypoint_rcnn_loss",
    "mask_rcnn_inference",
    "mask_rcnn_loss",
    "select_foreground_proposals",
]
