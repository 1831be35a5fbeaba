"""A small Mask R-CNN and small samples for it."""

import numpy as np
import pytest
import torch

from hookline.modeling.anchor_generator import DefaultAnchorGenerator
from hookline.modeling.backbone import FPN, BasicBlock, BasicStem, LastLevelMaxPool, ResNet
from hookline.modeling.box_regression import Box2BoxTransform
from hookline.modeling.layers import ShapeSpec
from hookline.modeling.matcher import Matcher
from hookline.modeling.meta_arch import GeneralizedRCNN
from hookline.modeling.poolers import ROIPooler
from hookline.modeling.proposal_generator import RPN, StandardRPNHead
from hookline.modeling.roi_heads import (
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    KRCNNConvDeconvUpsampleHead,
    MaskRCNNConvUpsampleHead,
    StandardROIHeads,
)
from hookline.structures import BitMasks, Boxes, Instances, Keypoints, PolygonMasks


@pytest.fixture(autouse=True)
def _seeded():
    state = torch.get_rng_state()
    torch.manual_seed(0)
    yield
    torch.set_rng_state(state)


@pytest.fixture
def build_rcnn():
    """A function that builds a Mask R-CNN of a few thousand parameters."""
    return _build_rcnn


@pytest.fixture
def make_sample():
    """A function that makes a training sample of noise with rectangles as objects."""
    return _make_sample


def _build_rcnn(num_classes=3, width=8, norm="BN", keypoints=0, mask=True, **roi_heads):
    features = ["res2", "res3", "res4", "res5"]
    stages = [
        ResNet.make_stage(BasicBlock, 1, in_channels=a, out_channels=b, stride_per_block=[s], norm=norm)
        for a, b, s in ((8, 8, 1), (8, 16, 2), (16, 16, 2), (16, 16, 2))
    ]
    pooled = ["p2", "p3", "p4", "p5"]
    heads = {}
    if mask:
        heads["mask_in_features"], heads["mask_pooler"] = pooled, _pooler(6)
        heads["mask_head"] = MaskRCNNConvUpsampleHead(
            ShapeSpec(channels=width, height=6, width=6), num_classes=num_classes, conv_dims=[width, width]
        )
    if keypoints:
        heads["keypoint_in_features"], heads["keypoint_pooler"] = pooled, _pooler(6)
        heads["keypoint_head"] = KRCNNConvDeconvUpsampleHead(
            ShapeSpec(channels=width, height=6, width=6), num_keypoints=keypoints, conv_dims=[width]
        )
    return GeneralizedRCNN(
        backbone=FPN(
            ResNet(BasicStem(3, 8, norm), stages, out_features=features),
            features,
            width,
            top_block=LastLevelMaxPool(),
        ),
        proposal_generator=RPN(
            in_features=[*pooled, "p6"],
            head=StandardRPNHead(in_channels=width, num_anchors=3),
            anchor_generator=DefaultAnchorGenerator(
                sizes=[[16], [32], [64], [128], [256]], aspect_ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16, 32, 64]
            ),
            anchor_matcher=Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True),
            box2box_transform=Box2BoxTransform([1.0, 1.0, 1.0, 1.0]),
            batch_size_per_image=64,
            positive_fraction=0.5,
            pre_nms_topk=(100, 100),
            post_nms_topk=(50, 50),
        ),
        roi_heads=StandardROIHeads(
            num_classes=num_classes,
            batch_size_per_image=32,
            positive_fraction=0.25,
            proposal_matcher=Matcher([0.5], [0, 1]),
            box_in_features=pooled,
            box_pooler=_pooler(4),
            box_head=FastRCNNConvFCHead(ShapeSpec(channels=width, height=4, width=4), conv_dims=[], fc_dims=[32]),
            box_predictor=FastRCNNOutputLayers(
                ShapeSpec(channels=32),
                box2box_transform=Box2BoxTransform((10, 10, 5, 5)),
                num_classes=num_classes,
                test_score_thresh=0.0,
            ),
            **heads,
            **roi_heads,
        ),
        pixel_mean=[127.0, 127.0, 127.0],
        pixel_std=[60.0, 60.0, 60.0],
        input_format="BGR",
    )


def _pooler(size):
    return ROIPooler(size, (1 / 4, 1 / 8, 1 / 16, 1 / 32), 0, "ROIAlignV2")


def _make_sample(height, width, boxes, classes=None, keypoints=0, masks="polygon", seed=0):
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    instances = Instances((height, width), gt_boxes=Boxes(boxes))
    instances.gt_classes = torch.tensor(classes if classes is not None else [0] * len(boxes), dtype=torch.int64)
    corners = [[np.array([x0, y0, x1, y0, x1, y1, x0, y1])] for x0, y0, x1, y1 in boxes.tolist()]
    polygons = PolygonMasks(corners)
    instances.gt_masks = polygons if masks == "polygon" else BitMasks.from_polygon_masks(polygons, height, width)
    if keypoints:
        centres = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
        points = torch.cat([centres, torch.full((len(boxes), 1, 1), 2.0)], 2)
        instances.gt_keypoints = Keypoints(points.expand(-1, keypoints, -1))
    image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
    return {
        "image": image,
        "height": 2 * height,
        "width": 2 * width,
        "instances": instances,
        "file_name": f"{seed}.jpg",
    }
