"""Mask R-CNN with a feature pyramid (https://arxiv.org/abs/1703.06870, https://arxiv.org/abs/1612.03144), ResNet-50."""

from omegaconf import DictConfig

from hookline.config import LazyCall as L
from hookline.modeling.anchor_generator import DefaultAnchorGenerator
from hookline.modeling.backbone import FPN, BasicStem, ResNet
from hookline.modeling.backbone.fpn import LastLevelMaxPool
from hookline.modeling.box_regression import Box2BoxTransform
from hookline.modeling.layers import ShapeSpec
from hookline.modeling.matcher import Matcher
from hookline.modeling.meta_arch import GeneralizedRCNN
from hookline.modeling.poolers import ROIPooler
from hookline.modeling.proposal_generator import RPN, StandardRPNHead
from hookline.modeling.roi_heads import (
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    MaskRCNNConvUpsampleHead,
    StandardROIHeads,
)

POOLED_LEVELS = ["p2", "p3", "p4", "p5"]  # p6 only proposes: its boxes are pooled from p5


def pooler(size: int) -> DictConfig:
    """Pool regions to (size, size) from the pyramid's levels, without rounding coordinates (RoIAlign, aligned)."""
    return L(ROIPooler)(
        output_size=size, scales=(1 / 4, 1 / 8, 1 / 16, 1 / 32), sampling_ratio=0, pooler_type="ROIAlignV2"
    )


backbone = L(FPN)(
    bottom_up=L(ResNet)(
        stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
        stages=L(ResNet.make_default_stages)(depth=50, stride_in_1x1=True, norm="FrozenBN"),
        out_features=["res2", "res3", "res4", "res5"],
    ),
    in_features="${.bottom_up.out_features}",
    out_channels=256,
    top_block=L(LastLevelMaxPool)(),
)

proposal_generator = L(RPN)(
    in_features=[*POOLED_LEVELS, "p6"],
    head=L(StandardRPNHead)(in_channels=256, num_anchors=3),
    anchor_generator=L(DefaultAnchorGenerator)(
        sizes=[[32], [64], [128], [256], [512]],
        aspect_ratios=[0.5, 1.0, 2.0],
        strides=[4, 8, 16, 32, 64],
        offset=0.0,
    ),
    anchor_matcher=L(Matcher)(thresholds=[0.3, 0.7], labels=[0, -1, 1], allow_low_quality_matches=True),
    box2box_transform=L(Box2BoxTransform)(weights=[1.0, 1.0, 1.0, 1.0]),
    batch_size_per_image=256,
    positive_fraction=0.5,
    pre_nms_topk=(2000, 1000),  # training, evaluation
    post_nms_topk=(1000, 1000),
    nms_thresh=0.7,
)

roi_heads = L(StandardROIHeads)(
    num_classes=80,
    batch_size_per_image=512,
    positive_fraction=0.25,
    proposal_matcher=L(Matcher)(thresholds=[0.5], labels=[0, 1], allow_low_quality_matches=False),
    box_in_features=POOLED_LEVELS,
    box_pooler=pooler(7),
    box_head=L(FastRCNNConvFCHead)(
        input_shape=L(ShapeSpec)(channels=256, height=7, width=7), conv_dims=[], fc_dims=[1024, 1024]
    ),
    box_predictor=L(FastRCNNOutputLayers)(
        input_shape=L(ShapeSpec)(channels=1024),
        test_score_thresh=0.05,
        box2box_transform=L(Box2BoxTransform)(weights=(10, 10, 5, 5)),
        num_classes="${..num_classes}",
    ),
    mask_in_features=POOLED_LEVELS,
    mask_pooler=pooler(14),
    mask_head=L(MaskRCNNConvUpsampleHead)(
        input_shape=L(ShapeSpec)(channels=256, width=14, height=14),
        num_classes="${..num_classes}",
        conv_dims=[256] * 5,  # four convolutions and the one that doubles the size
    ),
)

model = L(GeneralizedRCNN)(
    backbone=backbone,
    proposal_generator=proposal_generator,
    roi_heads=roi_heads,
    pixel_mean=[103.530, 116.280, 123.675],  # BGR, of ImageNet
    pixel_std=[1.0, 1.0, 1.0],  # the zoo's ResNets carry the deviation in their first convolution
    input_format="BGR",
)
