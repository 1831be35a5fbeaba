"""Mask R-CNN small enough to learn from random weights on two CPU cores: a narrow ResNet-18 for small images.

Batch norm is trained, since there are no ImageNet statistics to freeze.
"""

from hookline.config import LazyCall as L
from hookline.modeling.backbone import BasicBlock, BasicStem, ResNet
from hookline.modeling.layers import ShapeSpec

from .mask_rcnn_fpn import model, pooler

WIDTH = 32  # of the first stage; ResNet-18 has 64
CHANNELS = 64

model.backbone.bottom_up = L(ResNet)(
    stem=L(BasicStem)(in_channels=3, out_channels=WIDTH, norm="BN"),
    stages=[
        L(ResNet.make_stage)(
            block_class=BasicBlock,
            num_blocks=2,
            stride_per_block=[1 if level == 0 else 2, 1],
            in_channels=WIDTH if level == 0 else WIDTH * 2 ** (level - 1),
            out_channels=WIDTH * 2**level,
            norm="BN",
        )
        for level in range(4)
    ],
    out_features=["res2", "res3", "res4", "res5"],
    freeze_at=0,
)
model.backbone.out_channels = CHANNELS
model.backbone.norm = "BN"

rpn = model.proposal_generator
rpn.head.in_channels = CHANNELS
rpn.anchor_generator.sizes = [[16], [32], [64], [128], [256]]
rpn.batch_size_per_image = 64
rpn.pre_nms_topk = (500, 500)
rpn.post_nms_topk = (200, 100)

heads = model.roi_heads
heads.num_classes = 1
heads.batch_size_per_image = 64
heads.box_head.input_shape = L(ShapeSpec)(channels=CHANNELS, height=7, width=7)
heads.box_head.fc_dims = [256, 256]
heads.box_predictor.input_shape = L(ShapeSpec)(channels=256)
heads.mask_pooler = pooler(14)
heads.mask_head.input_shape = L(ShapeSpec)(channels=CHANNELS, width=14, height=14)
heads.mask_head.conv_dims = [CHANNELS] * 3
model.pixel_mean = [123.675, 116.280, 103.530]
model.pixel_std = [58.395, 57.120, 57.375]
model.input_format = "RGB"
