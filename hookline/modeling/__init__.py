"""Layers, backbones, proposal generators, ROI heads, meta architectures.

Constructor names, arguments and checkpoint keys are Detectron2's. A model maps a list of samples to a dict of scalar
losses in training, and to a list of predictions in evaluation.
"""

from hookline.modeling.anchor_generator import DefaultAnchorGenerator
from hookline.modeling.backbone import FPN, Backbone, ResNet
from hookline.modeling.box_regression import Box2BoxTransform
from hookline.modeling.layers import ShapeSpec
from hookline.modeling.matcher import Matcher
from hookline.modeling.meta_arch import GeneralizedRCNN
from hookline.modeling.poolers import ROIPooler
from hookline.modeling.postprocessing import detector_postprocess
from hookline.modeling.proposal_generator import RPN, StandardRPNHead
from hookline.modeling.roi_heads import (
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    KRCNNConvDeconvUpsampleHead,
    MaskRCNNConvUpsampleHead,
    ROIHeads,
    StandardROIHeads,
)
from hookline.modeling.sampling import subsample_labels

__all__ = [
    "FPN",
    "RPN",
    "Backbone",
    "Box2BoxTransform",
    "DefaultAnchorGenerator",
    "FastRCNNConvFCHead",
    "FastRCNNOutputLayers",
    "GeneralizedRCNN",
    "KRCNNConvDeconvUpsampleHead",
    "MaskRCNNConvUpsampleHead",
    "Matcher",
    "ROIHeads",
    "ROIPooler",
    "ResNet",
    "ShapeSpec",
    "StandardROIHeads",
    "StandardRPNHead",
    "detector_postprocess",
    "subsample_labels",
]
